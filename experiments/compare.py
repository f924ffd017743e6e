"""What can be said of trained models beyond one row each: how sure differences are, ensembles, calibration, and users nobody knows.

    python experiments/reproduce.py --suite results --seeds 0 1 2 --runs runs/experiments       # trains what is compared here
    python experiments/compare.py --runs runs/experiments --data ml-1m                          # -> results/significance.csv, …
    python experiments/compare.py --runs runs/experiments --data ml-1m --only unknown_users

All but the last is by `leave-last-out`, whose split is the same for every seed: one test rating for each user.

- significance: the errors of ours (mean over seeds) against SVD's and SVD++'s on the very same ratings, with a paired bootstrap over users
- ensemble: the distributions of all seeds, averaged
- calibration: how often each rating came, by the chance it was given
- unknown_users: a tenth of all users is kept out of training; their last rating is foreseen from the ten before it, or from all
- one_split: by protocols that draw their split, models that differ in the seed of weights and order alone (the split is that of seed 0), and
  the mean of their distributions; --protocol and --length pick some, and the rows of the others stay
"""
import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bst_nbdev.core import atomic_path, device_name, seed_everything, show_progress, source_commit
from bst_nbdev.data import load
from bst_nbdev.evaluation import as_rating, fit_baseline, rating_scores, validation_metrics
from bst_nbdev.packing import Chunks, PackedBatches
from bst_nbdev.pipeline import Recipe, load_run
from bst_nbdev.presets import build_batches, build_loss, build_model, reach
from bst_nbdev.sequences import Split, make_split, seen_rows
from bst_nbdev.stream import rating_index
from bst_nbdev.training import fit, predict
from reproduce import merge

PROTOCOL, RESAMPLES, SHORT = 'leave-last-out', 10_000, 10
MEASURES = ('mae', 'mae_mean', 'rmse')

DRAWN = ('random-ratings', 'fill-in', 10, 1), ('random-windows', 'default', 10, 1), ('random-windows', 'default', 4, 2)  # for one_split

def fitted(data, recipe, split):
    "A model trained on a split, and its batches"
    seed_everything(recipe.seed)
    model = build_model(data, recipe.preset, **recipe.model_settings())
    training = recipe.training(len(split.train))
    batches = build_batches(data, split, model.config, training.batch_size, seed=recipe.seed)
    model.init_from_training(*seen_rows(data, split, reach(model.config) - 1), labels=torch.as_tensor(data.rating[split.train]))
    metrics = validation_metrics(model.config)
    fit(model, batches['train'], batches['validation'], build_loss(model.config), metrics, training, monitor=next(iter(metrics)))
    return model, batches

def answers(model, batches):
    "Scores of a pass in the order of the row numbers"
    scores, labels = predict(model, batches)
    order = torch.from_numpy(batches.target_rows().argsort())
    return scores[order], labels[order]

def trained(a, data):
    "(model, scores, labels) of each seed's run, on the test part"
    found = sorted(a.runs.glob(f'{data.name}-{PROTOCOL}-default-10-*'))
    if not found: raise SystemExit(f'{a.runs} has no runs by {PROTOCOL}: run experiments/reproduce.py --suite results --runs {a.runs} first')
    runs = [load_run(folder, a.data, 'cpu') for folder in found]
    return [(run.model, *answers(run.model, build_batches(data, run.split, run.model.config)['test'])) for run in runs]

def scored(data, name, scores, labels, values, protocol=PROTOCOL, **more):
    "A row in the manner of the other result files"
    return dict(dataset=data.name, protocol=protocol, model=name, part='test', **rating_scores(scores, labels, values), **more)

def significance(a, data):
    "Differences to the baselines, with the middle 95 % of a paired bootstrap over users"
    models, split = trained(a, data), make_split(data, PROTOCOL)
    labels, values = models[0][2], models[0][0].config.rating_values
    error = lambda predictions: {m: (as_rating(predictions, values, m == 'mae') - labels).numpy() for m in MEASURES}
    ours = [error(scores) for _, scores, _ in models]
    drawn = np.random.default_rng(0).integers(0, len(labels), (RESAMPLES, len(labels)), dtype=np.int32)
    def measure(errors, name):  # (resamples + 1,): the whole first
        each = errors[name] ** 2 if name == 'rmse' else abs(errors[name])
        means = np.concatenate([[each.mean()], [each[rows].mean() for rows in drawn]])
        return means ** .5 if name == 'rmse' else means
    for baseline in 'SVD', 'SVD++':
        theirs = error(torch.from_numpy(fit_baseline(baseline, data, split).predict(data, split.test)))
        for name in MEASURES:
            mine = np.stack([measure(errors, name) for errors in ours])                                             # (seeds, resamples + 1)
            other = measure(theirs, name)
            difference = mine.mean(0) - other
            low, high = np.quantile(difference[1:], [.025, .975])
            yield dict(dataset=data.name, protocol=PROTOCOL, measure=name, baseline=baseline, ours=mine[:, 0].mean(), spread=mine[:, 0].std(ddof=1) if len(ours) > 1 else np.nan,
                       theirs=other[0], difference=difference[0], low=low, high=high, better=(difference[1:] < 0).mean(), seeds=len(ours), users=len(labels))

def ensemble(a, data):
    "The mean of the distributions of all seeds"
    models = trained(a, data)
    mixed = torch.stack([scores.softmax(-1) for _, scores, _ in models]).mean(0).log()
    yield scored(data, f'BST (default), ensemble of {len(models)}', mixed, models[0][2], models[0][0].config.rating_values, seeds=len(models))

def calibration(a, data, parts=10):
    "For each rating, tenths of the answers by the chance it was given"
    model, scores, labels = trained(a, data)[0]
    chance, came = scores.softmax(-1), torch.nn.functional.one_hot(rating_index(labels, model.config.rating_values), scores.shape[1]).float()
    for k, value in enumerate(model.config.rating_values):
        for part in chance[:, k].argsort().tensor_split(parts):
            yield dict(dataset=data.name, protocol=PROTOCOL, rating=value, chance=chance[part, k].mean().item(), came=came[part, k].mean().item(), answers=len(part))

def unknown_users(a, data):
    "A model that has never met a tenth of the users, asked about their last ratings and about those of others whose id is hidden"
    whole = make_split(data, PROTOCOL)
    stranger = np.random.default_rng(0).random(len(data.users)) < .1
    known = lambda rows: rows[~stranger[data.user[rows]]]
    split = Split(PROTOCOL, known(whole.train), known(whole.validation), whole.test)
    model, batches = fitted(data, Recipe(str(a.data), protocol=PROTOCOL, epochs=a.epochs), split)
    shown = model.user.id.known.clone()
    assert not shown[torch.from_numpy(stranger)].any(), 'the model knows users that were kept out'
    groups = {'unknown': whole.test[stranger[data.user[whole.test]]], 'known': known(whole.test)}
    c = model.config
    for group, rows in groups.items():
        for history, args in (f'last {SHORT}', dict(chunk=1, min_history=SHORT)), ('all that a chunk brings', dict(chunk=c.chunk, min_history=c.min_history)):
            for hidden in (False, True) if group == 'known' else (True,):
                for table in (model.user.id, model.user_bias, model.user_factors): table.known.copy_(shown & (not hidden))
                test = PackedBatches(Chunks(data, rows, visibility=c.context, tensors=batches['test'].chunks.tensors, **args), 4096)
                who = 'a user nobody knows' if group == 'unknown' else 'a known user, id hidden' if hidden else 'a known user'
                yield scored(data, 'BST (default)', *answers(model, test), c.rating_values, user=who, history=history, users=len(rows))

def one_split(a, data):
    "Models of several seeds on the very same split, and the mean of their distributions"
    for protocol, preset, length, step in DRAWN:
        if a.protocol not in (None, protocol) or a.length not in (None, length): continue
        recipe = Recipe(str(a.data), preset, protocol, length, step, a.epochs)
        split = make_split(data, protocol, length, step)
        about, mixed = dict(protocol=protocol, sequence_length=length, step=step), 0
        for seed in range(a.seeds):
            model, batches = fitted(data, replace(recipe, seed=seed), split)
            values, (scores, labels) = model.config.rating_values, answers(model, batches['test'])
            mixed = mixed + scores.softmax(-1) / a.seeds
            yield scored(data, f'BST ({preset})', scores, labels, values, seed=seed, seeds=1, **about)
        yield scored(data, f'BST ({preset}), ensemble of {a.seeds}', mixed.log(), labels, values, seeds=a.seeds, **about)

JOBS = dict(significance=significance, ensemble=ensemble, calibration=calibration, unknown_users=unknown_users, one_split=one_split)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m', help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--runs', type=Path, default=Path('runs/experiments'), help='where the trained models are (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('results'), help='folder for the result files (default: %(default)s)')
    parser.add_argument('--only', choices=JOBS, help='just one of them')
    parser.add_argument('--epochs', type=int, help="for unknown_users and one_split; the preset's if not given")
    parser.add_argument('--protocol', choices=sorted({job[0] for job in DRAWN}), help='for one_split: just one of them')
    parser.add_argument('--length', type=int, choices=sorted({job[2] for job in DRAWN}), help='for one_split: just this length of windows')
    parser.add_argument('--seeds', type=int, default=3, help='for one_split: how many (default: %(default)s)')
    a = parser.parse_args()
    show_progress(False)
    data = load(a.data)
    about = dict(device=device_name('cpu', torch.get_num_threads()), commit=source_commit())
    for name, job in JOBS.items():
        if a.only not in (None, name): continue
        table = pd.DataFrame(job(a, data)).assign(**about)
        if name == 'one_split': merge(a.out/f'{name}.csv', table)
        else:
            with atomic_path(a.out/f'{name}.csv') as scratch: table.to_csv(scratch, index=False, float_format='%.6g')
        print(f'\n{name}\n' + table.drop(columns=list(about)).to_string(index=False), flush=True)

if __name__ == '__main__': main()
