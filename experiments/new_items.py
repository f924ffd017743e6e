"""Rate and propose films that training has not seen, by their genres and year -> results/new_items.csv.

    python experiments/new_items.py --data ml-1m --seeds 0 1 2
    python experiments/new_items.py --data sample --quick --out new_items.csv

The tenth of the films that was rated first latest is kept out of training: its ratings are neither targets nor
history there. The other ratings are split by `leave-last-out`. Then the model is asked, without a moment, about
each rating of a new film: how it is rated (MAE of the median, RMSE of the mean), and at which place it stands
in the list of what comes next. The history holds all earlier ratings, those of new films too.

Beside it stand the mean of all ratings plus the mean deviation of the film's genres, the mean alone, a list
by popularity (new films have none, and ties count against a method), and chance.
"""

import numpy as np
import pandas as pd
import torch

from bst_nbdev.core import device_name, show_progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.packing import HiddenMoments
from bst_nbdev.splits import Split, make_split
from bst_nbdev.evaluation import evaluate_model, rating_scores
from bst_nbdev.pipeline import Recipe
from bst_nbdev.ranking import ModelScores, Popularity, rank_targets, ranking_scores
from cold_users import make_parser, merge
from compare import train_on

PROTOCOL, PRESET = 'leave-last-out', 'both'
SHARE = .1  # of the films is kept out of training
LENGTHS = (10, 100)  # of the lists
COLUMNS = ['dataset', 'model', 'seed', 'films', 'targets', 'mae', 'rmse', 'hit_rate', 'hit_rate_100', 'mrr',
           'device', 'commit']

def new_films(data):
    "Mark the films that were rated first latest (bool, [M])"
    first = np.full(len(data.items), np.iinfo(np.int64).max)
    np.minimum.at(first, data.item, data.timestamp)
    first[0] = np.iinfo(np.int64).min
    is_new = np.zeros(len(data.items), bool)
    is_new[np.argsort(first, kind='stable')[-round(SHARE * data.num_items):]] = True
    return is_new

def keep_out(data, is_new):
    "Return the split of all ratings of other films, and the rows of those of new films"
    whole, of_new = make_split(data, PROTOCOL), is_new[data.item]
    parts = [rows[~of_new[rows]] for rows in (whole.train, whole.validation, whole.test)]
    return Split(PROTOCOL, *parts, history_rows=np.flatnonzero(~of_new)), np.flatnonzero(of_new)

def genre_means(data, rows):
    "Mean of the ratings in `rows`, plus the mean deviation of the genres of each film (M,)"
    mean, flags = data.rating[rows].mean(), np.asarray(data.genres, np.float64)
    of_genre, residual = flags[data.item[rows]], data.rating[rows] - mean
    deviation = residual @ of_genre / np.maximum(of_genre.sum(0), 1)
    return mean + flags @ deviation / np.maximum(flags.sum(1), 1)

def list_scores(scores, data, rows):
    "Hit rates and MRR of the targets in lists"
    ranks, candidates = rank_targets(scores, data, rows)
    hits = {f'hit_rate_{k}': ranking_scores(ranks, k)['hit_rate'] for k in LENGTHS}
    return dict(hit_rate=hits.pop(f'hit_rate_{LENGTHS[0]}'), **hits, mrr=ranking_scores(ranks)['mrr']), candidates

def by_baselines(data, split, rows):
    "Yield the rows of baselines"
    learnt, label = split.train, torch.from_numpy(data.rating[rows])
    means = genre_means(data, learnt)
    for name, values in ('mean', np.full(len(means), data.rating[learnt].mean())), ('mean + genres', means):
        predicted = torch.from_numpy(values[data.item[rows]].astype(np.float32))
        scores = rating_scores(predicted, label, data.scale.values)
        yield dict(model=name, mae=scores['mae'], rmse=scores['rmse'])
    popularity = Popularity().fit(data, learnt)
    found, candidates = list_scores(lambda some: popularity.scores(data, some), data, rows)
    yield dict(model='popularity', **found)
    chance = {f'hit_rate_{k}': (k / candidates).mean() for k in LENGTHS}
    yield dict(model='chance', hit_rate=chance[f'hit_rate_{LENGTHS[0]}'], hit_rate_100=chance['hit_rate_100'])

def by_model(model, data, rows):
    "Scores of the model for ratings of new films"
    everything = Split(PROTOCOL, rows, rows, rows)  # now all earlier ratings are history
    batches = model.config.batches(data, everything)['test']
    scores = evaluate_model(model, HiddenMoments(batches))
    found, _ = list_scores(ModelScores(model, data, moment='unknown', ranked_by='next'), data, rows)
    return dict(mae=scores['mae'], rmse=scores['rmse'], **found)

def measure(where, data, seeds, epochs=None):
    "Yield the rows of baselines, and of a model for each seed"
    is_new = new_films(data)
    split, rows = keep_out(data, is_new)
    more = dict(films=int(is_new.sum()), targets=len(rows))
    for row in by_baselines(data, split, rows): yield dict(seed=0, **more, **row)
    for seed in seeds:
        model, _ = train_on(data, Recipe(where, PRESET, PROTOCOL, epochs=epochs, seed=seed), split)
        yield dict(model=f'BST ({PRESET})', seed=seed, **more, **by_model(model.eval(), data, rows))

def main():
    args = make_parser(__doc__, 'results/new_items.csv', '; the new films are the same').parse_args()
    show_progress(False)
    torch.set_num_threads(args.threads)
    data = load(args.data)
    rows = pd.DataFrame(measure(args.data, data, args.seeds, 1 if args.quick else None))
    rows = rows.assign(dataset=data.name, device=device_name('cpu', args.threads), commit=source_commit())
    rows = rows.reindex(columns=COLUMNS)
    merge(args.out, rows)
    print(rows[COLUMNS[:-2]].to_string(index=False, float_format='{:.4f}'.format, na_rep=''))

if __name__ == '__main__': main()
