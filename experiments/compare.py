"""Analyse trained models: significance, ensembles, calibration, and seeds on one split.

    python experiments/reproduce.py --suite results --seeds 0 1 2 --runs runs/experiments   # first
    python experiments/compare.py --runs runs/experiments --data ml-1m
    python experiments/compare.py --runs runs/experiments --data ml-1m --only one_split

Each job writes the file of its name under results/. All but the last use `leave-last-out`, whose split is
the same for every seed: one test rating for each user.

- significance: our errors (mean over seeds) minus those of SVD and SVD++ on the same ratings, with a
  paired bootstrap over users
- ensemble: the mean of the distributions of all seeds
- calibration: how often each rating occurred, by the probability that was predicted for it
- one_split: for protocols that draw their split at random, models that differ only in the seed of weights
  and order (the split is that of seed 0), and the mean of their distributions; --protocol and --length
  select jobs, and other rows stay
"""
import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bst_nbdev.core import atomic_path, device_name, seed_everything, show_progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.splits import make_split
from bst_nbdev.presets import build_model
from bst_nbdev.training import predict
from bst_nbdev.evaluation import fit_baseline, fit_model, init_from_split, point_estimate, rating_scores
from bst_nbdev.pipeline import Recipe
from bst_nbdev.runs import load_run
from reproduce import merge

PROTOCOL, PRESET = 'leave-last-out', 'rating'
RESAMPLES = 10_000  # of the bootstrap
MEASURES = ('mae', 'mae_mean', 'rmse')

# jobs of one_split: (protocol, preset, length, step)
ONE_SPLIT = [('random-ratings', 'fill-in', 10, 1), ('random-windows', PRESET, 10, 1),
             ('random-windows', PRESET, 4, 2)]

def train_on(data, recipe, split):
    "Train a model on a given split; return it with its batches"
    seed_everything(recipe.seed)
    model = build_model(data, recipe.preset, **recipe.model_settings())
    training = recipe.training(len(split.train))
    batches = model.config.batches(data, split, training.batch_size, seed=recipe.seed)
    init_from_split(model, data, split)
    fit_model(model, batches, training)
    return model, batches

def predict_in_order(model, batches):
    "Return logits of the ratings, and labels, in the order of the row numbers"
    predictions, labels = predict(model, batches)
    order = torch.from_numpy(batches.target_rows().argsort())
    return model.config.by_answer(predictions)['rating'][order], labels[order]

def load_seeds(args, data):
    "Load the run of each seed; return (model, logits, labels) on the test part"
    folders = sorted(args.runs.glob(f'{data.name}-{PROTOCOL}-{PRESET}-10-*'))
    if not folders:
        raise SystemExit(f'no runs by {PROTOCOL} in {args.runs}: '
                         f'run experiments/reproduce.py --suite results --runs {args.runs} first')
    found = []
    for folder in folders:
        run = load_run(folder, args.data, 'cpu')
        test = run.model.config.batches(data, run.split)['test']
        found.append((run.model, *predict_in_order(run.model, test)))
    return found

def score(data, name, logits, labels, values, protocol=PROTOCOL, **more):
    "Make a row like those of the other result files"
    return dict(dataset=data.name, protocol=protocol, model=name,
                part='test', **rating_scores(logits, labels, values), **more)

def resampled(errors, measure, drawn):
    "Compute a measure on all users and on each resample: (1 + resamples,)"
    each = errors[measure] ** 2 if measure == 'rmse' else abs(errors[measure])
    means = np.concatenate([[each.mean()], [each[rows].mean() for rows in drawn]])
    return means ** .5 if measure == 'rmse' else means

def significance(args, data):
    "Compare with baselines: differences with the middle 95 % of a paired bootstrap over users"
    models, split = load_seeds(args, data), make_split(data, PROTOCOL)
    labels, scale = models[0][2], models[0][0].config.scale

    def errors_of(predictions):
        return {m: (point_estimate(predictions, scale, m == 'mae') - labels).numpy() for m in MEASURES}

    ours = [errors_of(logits) for _, logits, _ in models]
    drawn = np.random.default_rng(0).integers(0, len(labels), (RESAMPLES, len(labels)), dtype=np.int32)
    for baseline in 'SVD', 'SVD++':
        fitted = fit_baseline(baseline, data, split)
        theirs = errors_of(torch.from_numpy(fitted.predict(data, split.test)))
        for measure in MEASURES:
            mine = np.stack([resampled(errors, measure, drawn) for errors in ours])  # (seeds, 1 + resamples)
            other = resampled(theirs, measure, drawn)
            difference = mine.mean(0) - other
            low, high = np.quantile(difference[1:], [.025, .975])
            yield dict(dataset=data.name, protocol=PROTOCOL, measure=measure, baseline=baseline,
                       ours=mine[:, 0].mean(), spread=mine[:, 0].std(ddof=1) if len(ours) > 1 else np.nan,
                       theirs=other[0], difference=difference[0], low=low, high=high,
                       better=(difference[1:] < 0).mean(), seeds=len(ours), users=len(labels))

def ensemble(args, data):
    "Score the mean of the distributions of all seeds"
    models = load_seeds(args, data)
    mixed = torch.stack([logits.softmax(-1) for _, logits, _ in models]).mean(0).log()
    name, values = f'BST ({PRESET}), ensemble of {len(models)}', models[0][0].config.rating_values
    yield score(data, name, mixed, models[0][2], values, seeds=len(models))

def calibration(args, data, parts=10):
    "Compare probability and frequency: for each rating, tenths of the test targets by predicted probability"
    model, logits, labels = load_seeds(args, data)[0]
    values, probability = model.config.rating_values, logits.softmax(-1)
    occurred = torch.nn.functional.one_hot(model.config.scale.index(labels), logits.shape[1]).float()
    for k, value in enumerate(values):
        for rows in probability[:, k].argsort().tensor_split(parts):
            yield dict(dataset=data.name, protocol=PROTOCOL, rating=value,
                       probability=probability[rows, k].mean().item(),
                       frequency=occurred[rows, k].mean().item(), answers=len(rows))

def one_split(args, data):
    "Score models of several seeds on the same split, and the mean of their distributions"
    for protocol, preset, length, step in ONE_SPLIT:
        if args.protocol not in (None, protocol) or args.length not in (None, length): continue
        recipe = Recipe(str(args.data), preset, protocol, length, step, args.epochs)
        split = make_split(data, protocol, length, step)
        job, mixed = dict(protocol=protocol, sequence_length=length, step=step), 0
        for seed in range(args.seeds):
            model, batches = train_on(data, replace(recipe, seed=seed), split)
            values = model.config.rating_values
            logits, labels = predict_in_order(model, batches['test'])
            mixed = mixed + logits.softmax(-1) / args.seeds
            yield score(data, f'BST ({preset})', logits, labels, values, seed=seed, seeds=1, **job)
        yield score(data, f'BST ({preset}), ensemble of {args.seeds}', mixed.log(), labels, values,
                    seeds=args.seeds, **job)

JOBS = dict(significance=significance, ensemble=ensemble, calibration=calibration, one_split=one_split)

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m',
                        help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--runs', type=Path, default=Path('runs/experiments'),
                        help='folder of the trained models (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('results'),
                        help='folder for the result files (default: %(default)s)')
    parser.add_argument('--only', choices=JOBS, help='run one job only')
    parser.add_argument('--epochs', type=int, help="of one_split (default: the preset's)")
    parser.add_argument('--protocol', choices=sorted({job[0] for job in ONE_SPLIT}),
                        help='of one_split: run this one only')
    parser.add_argument('--length', type=int, choices=sorted({job[2] for job in ONE_SPLIT}),
                        help='of one_split: run this length of windows only')
    parser.add_argument('--seeds', type=int, default=3,
                        help='of one_split: number of seeds (default: %(default)s)')
    args = parser.parse_args()
    show_progress(False)
    data = load(args.data)
    source = dict(device=device_name('cpu', torch.get_num_threads()), commit=source_commit())
    for name, job in JOBS.items():
        if args.only not in (None, name): continue
        table = pd.DataFrame(job(args, data)).assign(**source)
        path = args.out/f'{name}.csv'
        if name == 'one_split':
            merge(path, table)
        else:
            with atomic_path(path) as scratch: table.to_csv(scratch, index=False, float_format='%.6g')
        print(f'\n{name}\n' + table.drop(columns=list(source)).to_string(index=False), flush=True)

if __name__ == '__main__': main()
