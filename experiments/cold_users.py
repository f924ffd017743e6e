"""Predict for users whom training has not seen, from their first ratings -> results/cold_users.csv.

    python experiments/cold_users.py --data ml-1m --seeds 0 1 2
    python experiments/cold_users.py --data sample --quick --out cold_users.csv

A tenth of the users, the same for every seed, is kept out of training; the others are split by
`leave-last-out`. Then the first k ratings of a stranger with at least 60 ratings are the history, and the
model is asked, without a moment, how they rate their next 20 films (MAE of the median, RMSE of the mean), and
which film of the whole catalogue comes next (HR and NDCG of a list of 10), with and without their profile.
Beside it stand the film's mean rating, biases of which the stranger's own is computed from the k ratings, and
popularity.
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bst_nbdev.core import UNKNOWN, atomic_path, device_name, progress, show_progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.splits import Split, make_split
from bst_nbdev.packing import History
from bst_nbdev.evaluation import UserItemBias, rating_scores, training_rows
from bst_nbdev.ranking import ranking_scores, seen_before, target_ranks
from bst_nbdev.pipeline import Recipe
from compare import train_on

PROTOCOL, PRESET = 'leave-last-out', 'both'
SHARE = .1  # of the users is kept out of training
LEAST, AHEAD = 60, 20  # ratings of a stranger; how many of the next are predicted
HISTORIES = (0, 1, 2, 3, 5, 10, 20, 30, 50)  # k
GROUP = 32  # strangers who are asked together
COLUMNS = ['dataset', 'model', 'seed', 'k', 'profile', 'users', 'targets', 'mae', 'rmse', 'hit_rate', 'ndcg',
           'device', 'commit']
KEY = ['dataset', 'model', 'seed']

def keep_out(data):
    "Choose strangers; return the split of all others, and the strangers with enough ratings"
    whole = make_split(data, PROTOCOL)
    is_stranger = np.random.default_rng(0).random(len(data.users)) < SHARE

    def known(rows): return rows[~is_stranger[data.user[rows]]]

    split = Split(PROTOCOL, known(whole.train), known(whole.validation), known(whole.test))
    strangers = np.flatnonzero(is_stranger & (np.diff(data.offsets) >= LEAST))
    rows = training_rows(data, split)
    return split, strangers, known(rows)

def next_rows(data, strangers, k):
    "Row numbers of the first ratings after k of each stranger (n, up to 20), and which of them there are"
    rows = data.offsets[strangers][:, None] + k + np.arange(AHEAD)
    exist = rows < data.offsets[strangers + 1][:, None]
    return np.where(exist, rows, rows[:, :1]), exist

def first_ratings(data, user, k, with_profile):
    "The first k ratings of a stranger as a history"
    rows = slice(data.offsets[user], data.offsets[user] + k)
    profile = [int(feature.rows[user]) for feature in data.user_features.values()]
    if not with_profile: profile = [UNKNOWN] * len(profile)
    item = np.array(data.item[rows], np.int64)
    return History(item, np.array(data.rating[rows]), np.array(data.timestamp[rows]), UNKNOWN, tuple(profile))

@torch.inference_mode()
def ask_model(model, data, strangers, k, with_profile):
    "Return logits of the ratings of the next films (N, K), and scores of the whole catalogue (n, M)"
    rows, exist = next_rows(data, strangers, k)
    items = torch.from_numpy(data.item[rows].astype(np.int64))
    ratings, following = [], []
    for n in range(0, len(strangers), GROUP):
        some = slice(n, n + GROUP)
        asked = model.ask([first_ratings(data, user, k, with_profile) for user in strangers[some]])
        logits = model.decode(asked.memory, items[some], asked.questions)  # (B, 20, K)
        ratings.append(logits[torch.from_numpy(exist[some])])
        following.append(model.next_item_scores(asked))
    return torch.cat(ratings), torch.cat(following)

def scores_of(data, strangers, k, predicted=None, following=None):
    "Score predictions of the next films' ratings, and scores of the catalogue"
    rows, exist = next_rows(data, strangers, k)
    found = dict(k=k, users=len(strangers), targets=int(exist.sum()))
    if predicted is not None:
        label = torch.from_numpy(data.rating[rows[exist]])
        scores = rating_scores(predicted, label, data.scale.values)
        found |= {name: scores[name] for name in ('mae', 'rmse')}
    if following is not None:
        first = rows[:, 0]
        seen, target = seen_before(data, first), data.item[first].astype(np.int64)
        scores = ranking_scores(target_ranks(following, torch.from_numpy(target), torch.from_numpy(seen)))
        found |= {name: scores[name] for name in ('hit_rate', 'ndcg')}
    return found

def by_model(model, data, strangers, histories=HISTORIES):
    "Ask the model after each number of ratings, with and without profiles"
    known = [False, True] if data.user_features else [False]
    for with_profile in known:
        for k in progress(histories, 'histories'):
            answers = ask_model(model, data, strangers, k, with_profile)
            yield dict(profile='given' if with_profile else 'none', **scores_of(data, strangers, k, *answers))

def item_means(data, rows):
    "Mean rating of each item in `rows`, and of all of them where it has none"
    count = np.bincount(data.item[rows], minlength=len(data.items))
    total = np.bincount(data.item[rows], data.rating[rows], len(data.items))
    return np.where(count, total / np.maximum(count, 1), data.rating[rows].mean())

def stranger_biases(fitted, data, strangers, k):
    "Regularised mean residual of each stranger's first k ratings"
    rows = data.offsets[strangers][:, None] + np.arange(k)
    residual = data.rating[rows] - fitted.mean - fitted.item[data.item[rows]]  # (n, k)
    return residual.sum(1) / (fitted.user_regularization + k)

def by_baselines(data, strangers, learnt, histories=HISTORIES):
    "Predict the same by the film's mean, by biases, and by popularity; yield (name, row)"
    means, fitted = item_means(data, learnt), UserItemBias().fit(data, learnt)
    popularity = torch.from_numpy(np.bincount(data.item[learnt], minlength=len(data.items)))
    for k in histories:
        rows, exist = next_rows(data, strangers, k)
        item, stranger = data.item[rows], stranger_biases(fitted, data, strangers, k)[:, None]
        biased = (fitted.mean + fitted.item[item] + stranger).clip(data.scale.low, data.scale.high)
        for name, predicted in ('mean of the film', means[item]), ('user + item bias', biased):
            predicted = torch.from_numpy(predicted[exist].astype(np.float32))
            yield name, scores_of(data, strangers, k, predicted)
        following = popularity.expand(len(strangers), -1)
        yield 'popularity', scores_of(data, strangers, k, following=following)

def measure(where, data, seeds, epochs=None):
    "Yield the rows of baselines, and of a model for each seed"
    split, strangers, learnt = keep_out(data)
    for name, row in by_baselines(data, strangers, learnt): yield dict(model=name, seed=0, **row)
    for seed in seeds:
        recipe = Recipe(where, PRESET, PROTOCOL, epochs=epochs, seed=seed)
        model, _ = train_on(data, recipe, split)
        for row in by_model(model.eval(), data, strangers):
            yield dict(model=f'BST ({PRESET})', seed=seed, **row)

def merge(path, rows):
    "Replace the rows of the same methods and seeds in a result file, and keep the others"
    if path.exists():
        old = pd.read_csv(path, dtype=dict(commit=str))
        merged = old.merge(rows[KEY].drop_duplicates(), on=KEY, how='left', indicator=True)
        rows = pd.concat([old[(merged._merge == 'left_only').values], rows])
    with atomic_path(path) as scratch:
        rows.sort_values(KEY, kind='stable').to_csv(scratch, index=False, float_format='%.6g')

def make_parser(doc, out, seeds):
    "The options that experiments with seeds share"
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m',
                        help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path(out), help='the result file (default: %(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help=f'of weights and order{seeds} (default: 0)')
    parser.add_argument('--threads', type=int, default=1, help='cores (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='one epoch, to try the command')
    return parser

def main():
    parser = make_parser(__doc__, 'results/cold_users.csv', '; the strangers are the same')
    parser.add_argument('--epochs', type=int, help="of the training (default: the preset's)")
    args = parser.parse_args()
    show_progress(False)
    torch.set_num_threads(args.threads)
    data = load(args.data)
    rows = pd.DataFrame(measure(args.data, data, args.seeds, 1 if args.quick else args.epochs))
    rows = rows.assign(dataset=data.name, device=device_name('cpu', args.threads), commit=source_commit())
    rows = rows.reindex(columns=COLUMNS)
    merge(args.out, rows)
    shown = rows[COLUMNS[:-2]]
    print(shown.to_string(index=False, float_format='{:.4f}'.format, na_rep=''))

if __name__ == '__main__': main()
