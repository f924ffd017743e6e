"""Update a model slice by slice, and compare with training anew and with never updating -> results/updates.csv.

    python experiments/updates.py --data ml-1m --seeds 0
    python experiments/updates.py --data sample --quick --out updates.csv

Ratings are cut by time. A model learns the first 70 percent. Then five slices of 5 percent arrive, one after the
other: `update` goes on from the model before it with the slice and as many old ratings, as `bst_update --all`
does; `anew` learns everything from the beginning; `never` stays as it was, and only reads the new ratings as
history. Each is asked about the slice that follows, which nobody has learnt: how its ratings will be (MAE of the
median, RMSE of the mean), and, for 2,000 of them, which item comes next, without the moment.
"""
import time
from copy import deepcopy

import numpy as np
import pandas as pd
import torch

from bst_nbdev.core import device_name, progress, seed_everything, show_progress, source_commit
from bst_nbdev.data import from_frame
from bst_nbdev.prepared import load
from bst_nbdev.splits import Split
from bst_nbdev.presets import build_model, training_settings
from bst_nbdev.training import TrainingConfig
from bst_nbdev.evaluation import evaluate_model, fit_model, init_from_split
from bst_nbdev.ranking import ModelScores, rank_targets, ranking_scores
from bst_nbdev.update import mark_shown
from bst_nbdev.update_recipe import UpdateRecipe, rows_since, split_update
from cold_users import make_parser, merge

PRESET = 'both'
CUTS = (.7, .75, .8, .85, .9, .95, 1.)  # shares of all ratings, by time
MAX_RANKED = 2000  # targets of a slice whose next item is looked for
COLUMNS = ['dataset', 'model', 'seed', 'slice', 'ratings', 'new_users', 'new_items', 'targets', 'mae', 'rmse',
           'hit_rate', 'ndcg', 'train_seconds', 'device', 'commit']

def prefixes(data):
    "The data as they were at each cut, all with the same vocabularies"
    frame = data.frame()
    people = pd.DataFrame(dict(user=data.users.ids))
    for name, feature in data.user_features.items(): people[name] = feature.values.decode(feature.rows[1:])
    genres = [[genre for genre, is_of in zip(data.genre_names, row) if is_of] for row in data.genres[1:]]
    films = pd.DataFrame(dict(item=data.items.ids, title=data.titles[1:], genres=genres, year=data.year[1:]))
    order = np.argsort(data.timestamp, kind='stable')
    table = frame[['user', 'item', 'rating']].assign(timestamp=data.timestamp)
    for cut in CUTS:
        known = table.iloc[np.sort(order[:round(cut * len(order))])]
        yield from_frame(known, people, films, rating_values=data.rating_values, name=data.name)

def fit(model, data, split, config):
    "Train a model on a split; return it with the seconds that took"
    seed_everything(config.seed)
    batches = model.config.batches(data, split, config.batch_size, seed=config.seed)
    start = time.process_time()
    fit_model(model, batches, config)
    return model.eval(), time.process_time() - start

def everything(data, last):
    "All ratings to learn; the newest of them watch the training"
    rows = np.arange(len(data))
    return Split('update-all', rows, last, last[:0], has_test=False)

def train_anew(data, last, seed, epochs):
    "Train on all that is known"
    split = everything(data, last)
    settings = training_settings(PRESET, len(split.train)) | dict(seed=seed)
    config = TrainingConfig(**settings | (dict(epochs=epochs) if epochs else {}))
    seed_everything(seed)
    return fit(init_from_split(build_model(data, PRESET), data, split), data, split, config)

def update(model, data, before, seed):
    "Go on from a model with what came since"
    recipe = UpdateRecipe('', data.name, PRESET, '', protocol='update-all', seed=seed)
    split = split_update(data, before, recipe.protocol, recipe.old_share, seed)
    return fit(mark_shown(deepcopy(model), data, split), data, split, recipe.training(len(split.train)))

def scores_of(model, data, rows):
    "Scores on the ratings of a slice"
    batches = model.config.batches(data, Split('update', rows, rows, rows))['test']
    found = {name: value for name, value in evaluate_model(model, batches).items() if name in ('mae', 'rmse')}
    some = np.sort(np.random.default_rng(0).permutation(rows)[:MAX_RANKED])
    ranks, _ = rank_targets(ModelScores(model, data, moment='unknown', ranked_by='next'), data, some)
    return found | {name: value for name, value in ranking_scores(ranks).items() if name != 'mrr'}

def counts(data): return np.diff(data.offsets)

def measure(data, seed, epochs=None):
    "Yield the rows of one seed"
    known = list(prefixes(data))
    last = rows_since(known[0], (counts(known[0]) * .95).astype(int))
    first, seconds = train_anew(known[0], last, seed, epochs)
    models = dict(never=(first, 0.), update=(first, 0.), anew=(first, seconds))
    for n in progress(range(1, len(known)), 'slices'):
        before, after = known[n - 1], known[n]
        rows = rows_since(after, counts(before))
        facts = dict(slice=n, ratings=len(before), targets=len(rows),
                     new_users=int((counts(before)[np.unique(after.user[rows])] == 0).sum()),
                     new_items=len(np.setdiff1d(after.item[rows], before.item)))
        for name, (model, seconds) in models.items():
            yield dict(model=name, seed=seed, **facts, **scores_of(model, after, rows), train_seconds=seconds)
        if n == len(known) - 1: return
        models['update'] = update(models['update'][0], after, counts(before), seed)
        models['anew'] = train_anew(after, rows, seed, epochs)

def main():
    args = make_parser(__doc__, 'results/updates.csv', '').parse_args()
    show_progress(False)
    torch.set_num_threads(args.threads)
    data = load(args.data)
    rows = pd.DataFrame(row for seed in args.seeds for row in measure(data, seed, 1 if args.quick else None))
    rows = rows.assign(dataset=data.name, device=device_name('cpu', args.threads), commit=source_commit())
    rows = rows.reindex(columns=COLUMNS)
    merge(args.out, rows)
    print(rows[COLUMNS[:-2]].to_string(index=False, float_format='{:.4f}'.format, na_rep=''))

if __name__ == '__main__': main()
