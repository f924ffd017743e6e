"""Rank each user's last rating among the whole catalogue, by models and baselines -> results/ranking.csv.

    python experiments/ranking.py --data ml-1m --seeds 0 1 2 --runs runs/experiments --jobs 2
    python experiments/ranking.py --data ml-1m --only EASE  # one method; other rows stay
    python experiments/ranking.py --data sample --quick --out ranking.csv

To decode the whole catalogue for each user takes time, so a model with both answers is ranked by rating
and by both together only as it is asked in use: on the test part, without the moment.

By `leave-last-out`: models and baselines learn from the training part; each user's last rating but one
chooses (the epoch, EASE's regularization), and the last is used once. With --runs, models that
`experiments/reproduce.py` or this script trained before are loaded from there, and others are kept there.

A row stands for one way to rank (`ranked_by`), with the moment of the target known or unknown, and some
users: all; those whose target shares its second with no other rating of theirs ("own second"); those whose
target is rated 4 or more ("liked"), or less ("disliked"). Candidates are all items except those rated before
the target; ties count against the method. `hit_rate` and `ndcg` are of a list of 10, those with _50 and _200
of longer lists; those with _100 are of 10 again, among 100 negatives drawn at random. `rank_seconds` is the
time to score the catalogue for all targets of the part.

The last columns describe the lists of ten of all users: the mean expected rating of what they list (by the
model itself, or for methods without ratings by `both` of the same seed, if its run is kept), how many items
occur in them, and how many training ratings a listed item has on average. EASE needs the extra "bench".
"""
import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bst_nbdev.core import atomic_path, device_name, library_versions, show_progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.splits import make_split
from bst_nbdev.top_items import ranked_by_choices, ranking_score
from bst_nbdev.evaluation import training_rows
from bst_nbdev.ranking import (Ease, Popularity, history_before, ranking_scores, sampled_ranks, seen_before,
                               shares_second, target_ranks)
from bst_nbdev.pipeline import train
from bst_nbdev.runs import check_output_folder, load_run, save_run
from reproduce import recipe_of, run_folder

PROTOCOL, LENGTH, NEGATIVES, LIKED = 'leave-last-out', 10, 100, 4.
LENGTHS = (10, 50, 200)  # of the lists
GRID = (100., 200., 500., 1000., 2000.)  # of EASE's regularization
MODELS = {'BST (both)': 'both', 'BST (next)': 'next', 'BST (rating)': 'rating'}  # name of the row: preset
METHODS = (*MODELS, 'popularity', 'EASE')
JUDGE = 'BST (both)'  # rates what methods without ratings list
MAX_PAIRS = 2**18  # of target and item that are scored together
KEY = ['dataset', 'protocol', 'model', 'seed']
ROW = ['setting', 'part', 'moment', 'ranked_by', 'users']
MEASURES = ['hit_rate', 'ndcg', 'mrr']
MEASURES += [f'{name}_{k}' for k in (*LENGTHS[1:], NEGATIVES) for name in ('hit_rate', 'ndcg')]
LISTS = ['mean_expected', 'distinct_films', 'mean_popularity']
COLUMNS = [*KEY[:3], 'setting', 'seed', *ROW[1:], *MEASURES, 'targets', 'candidates', *LISTS, 'epochs',
           'best_epoch', 'train_seconds', 'rank_seconds', 'device', 'commit', 'versions', 'data_sha256']
LIBRARIES = ('python', 'torch', 'numpy')
SHOWN = ['model', 'setting', 'seed', 'part', 'moment', 'ranked_by', 'hit_rate', 'ndcg', *LISTS]

class ModelAnswers:
    "Scores of all items by each way to rank that a model has"
    def __init__(self, model, data, moment, ways=None):
        self.model, self.data, self.moment = model, data, moment
        self.seconds = dict.fromkeys(ways or ranked_by_choices(model.config), 0.)

    def __call__(self, rows):
        "Score the catalogue for targets, each answer once: {way to rank: (B, M)}"
        c, answers, taken = self.model.config, {}, {}
        histories = [history_before(self.data, row, max_history=c.max_history) for row in rows]
        at = None if self.moment == 'unknown' else self.data.timestamp[rows].tolist()
        for answer in ('next',) if list(self.seconds) == ['next'] else c.answers:
            start = time.perf_counter()
            answers[answer] = self.model.score_items(histories, np.arange(c.items), at, answer=answer)
            taken[answer] = time.perf_counter() - start
        for way in self.seconds: self.seconds[way] += taken.get(way, sum(taken.values()))
        return {way: ranking_score(answers, c, way) for way in self.seconds}

class BaselineScores:
    "Scores of all items by a baseline, which has one way to rank"
    def __init__(self, fitted, data): self.fitted, self.data, self.seconds = fitted, data, {'': 0.}

    def __call__(self, rows):
        start = time.perf_counter()
        scores = torch.as_tensor(self.fitted.scores(self.data, rows))
        self.seconds[''] += time.perf_counter() - start
        return {'': scores}

def rank_all(method, data, rows, judge=None):
    "Rank the targets by each way: {way: columns with a value (or ten) for each target}"
    columns = {way: dict(rank=[], candidates=[], listed=[], expected=[]) for way in method.seconds}
    for batch in np.array_split(rows, max(len(rows) * len(data.items) // MAX_PAIRS, 1)):
        scores, seen = method(batch), torch.from_numpy(seen_before(data, batch))
        expected = scores.get('rating')
        if expected is None and judge: expected = judge(batch)['rating']
        target = torch.from_numpy(data.item[batch].astype(np.int64))
        for way, score in scores.items():
            listed = score.masked_fill(seen, -np.inf).topk(LENGTHS[0], dim=1).indices
            found = dict(rank=target_ranks(score, target, seen), candidates=(~seen).sum(1), listed=listed)
            if expected is not None: found['expected'] = expected.gather(1, listed)
            for name, values in found.items(): columns[way][name].append(values.numpy())
    return {way: {name: np.concatenate(parts) for name, parts in found.items() if parts}
            for way, found in columns.items()}

def describe_lists(found, counts):
    "Say what the lists of all users are like"
    listed = found['listed']
    return dict(mean_expected=found['expected'].mean() if 'expected' in found else np.nan,
                distinct_films=len(np.unique(listed)), mean_popularity=counts[listed].mean())

def user_groups(data, rows):
    "Mark the targets of each group of users"
    liked = data.rating[rows] >= LIKED
    groups = {'all': np.ones(len(rows), bool), 'own second': ~shares_second(data, rows), 'liked': liked,
              'disliked': ~liked}
    return {name: chosen for name, chosen in groups.items() if chosen.any()}

def ranked(method, data, split, part, seed=0, judge=None, groups=None, **more):
    "Rank the targets of a part; yield a row of the result file for each way and group of users"
    rows = getattr(split, part)
    counts = np.bincount(data.item[training_rows(data, split)], minlength=len(data.items))
    before = dict(method.seconds)
    for way, found in rank_all(method, data, rows, judge).items():
        ranks, drawn = found['rank'], sampled_ranks(found['rank'], found['candidates'], NEGATIVES, seed)
        for users, chosen in user_groups(data, rows).items():
            if groups and users not in groups: continue
            row = dict(part=part, ranked_by=way, users=users, seed=seed, **ranking_scores(ranks[chosen]))
            others = {k: ranking_scores(ranks[chosen], k) for k in LENGTHS[1:]}
            for k, scores in (others | {NEGATIVES: ranking_scores(drawn[chosen])}).items():
                row |= {f'{name}_{k}': scores[name] for name in ('hit_rate', 'ndcg')}
            if users == 'all': row |= describe_lists(found, counts)
            yield dict(row, targets=int(chosen.sum()), candidates=found['candidates'][chosen].mean(),
                       rank_seconds=method.seconds[way] - before[way], **more)

def popularity(data, split, seed, judge):
    "Rank by popularity: the same list for every user"
    scores = BaselineScores(Popularity().fit(data, training_rows(data, split)), data)
    for part in 'validation', 'test': yield from ranked(scores, data, split, part, seed, judge)

def ease(data, split, seed, judge):
    "Rank by EASE: every regularization on validation, the best of them on test"
    best = None
    for value in GRID:
        start = time.perf_counter()
        scores = BaselineScores(Ease(value).fit(data, training_rows(data, split)), data)
        more = dict(setting=f'regularization {value:g}', train_seconds=time.perf_counter() - start)
        row, = ranked(scores, data, split, 'validation', seed, groups=('all',), **more)
        yield row
        if best is None or row['ndcg'] > best[0]: best = row['ndcg'], scores, more
    _, scores, more = best
    yield from ranked(scores, data, split, 'test', seed, judge, **more)

def trained_run(where, data, name, seed, runs, epochs=None):
    "Load the run of a model from the folder of runs, or train it and keep it there"
    job = PROTOCOL, MODELS[name], LENGTH, 1
    folder = run_folder(runs, data.name, job, seed) if runs else None
    if folder and folder.exists(): return load_run(folder, where, 'cpu')
    if folder: check_output_folder(folder)  # before the work, not after it
    run = train(replace(recipe_of(where, job, seed), epochs=epochs), data, 'cpu', baselines=())
    if folder: save_run(run, folder)
    return run

def model(where, data, split, name, seed, runs, epochs, judge):
    "Rank by a model, with and without the moment of the target"
    run = trained_run(where, data, name, seed, runs, epochs)
    assert run.recipe.seed == seed and (run.split.test == split.test).all(), 'the run is of another split'
    facts = dict(epochs=len(run.training_log), best_epoch=run.best_epoch, train_seconds=run.seconds)
    network = run.model.eval()
    for part, moment in product(('validation', 'test'), network.config.moments):
        is_list = part == 'test' and moment == network.config.moments[-1]  # what a user is shown
        ways = None if is_list or 'next' not in network.config.answers else ('next',)
        asked = judge and is_list and ModelAnswers(judge.model.eval(), data, moment)
        answers = ModelAnswers(network, data, moment, ways)
        yield from ranked(answers, data, split, part, seed, asked, moment=moment, **facts)

def work(where, name, seed, threads, epochs, runs):
    "Run one job; return rows of the result file"
    torch.set_num_threads(threads)
    show_progress(False)
    data = load(where)
    split = make_split(data, PROTOCOL)
    judge = None
    if runs and name not in (JUDGE, 'BST (rating)'):
        folder = run_folder(runs, data.name, (PROTOCOL, MODELS[JUDGE], LENGTH, 1), seed)
        if folder.exists(): judge = load_run(folder, where, 'cpu')
    if name in MODELS: rows = model(where, data, split, name, seed, runs, epochs, judge)
    else:
        asked = judge and ModelAnswers(judge.model.eval(), data, 'unknown')
        rows = dict(popularity=popularity, EASE=ease)[name](data, split, seed, asked)
    versions = '; '.join(f'{k} {v}' for k, v in library_versions().items() if k in LIBRARIES)
    table = pd.DataFrame(rows).assign(dataset=data.name, protocol=PROTOCOL, model=name,
                                      device=device_name('cpu', threads), commit=source_commit(),
                                      versions=versions, data_sha256=data.source['sha256'][:16])
    return with_texts(table.reindex(columns=COLUMNS))

def with_texts(table):
    "Put empty text, which sorts, in the place of what is missing in the columns that name a row"
    return table.assign(**{name: table[name].astype(object).fillna('') for name in ROW})

def merge(path, rows):
    "Replace the rows of the same jobs in a result file, and keep the others"
    if path.exists():
        old = with_texts(pd.read_csv(path, dtype=dict(commit=str)))
        merged = old.merge(rows[KEY].drop_duplicates(), on=KEY, how='left', indicator=True)
        rows = pd.concat([old[(merged._merge == 'left_only').values], rows])
    rows = rows.sort_values([*KEY, *ROW], ascending=[True] * 5 + [False] + [True] * 3)
    with atomic_path(path) as scratch: rows.to_csv(scratch, index=False, float_format='%.6g')

def run_jobs(args, jobs):
    "Run jobs and write their rows; return what failed"
    failed, epochs = [], 1 if args.quick else args.epochs
    with ProcessPoolExecutor(args.jobs) as pool:
        waiting = {pool.submit(work, args.data, *job, args.threads, epochs, args.runs): job for job in jobs}
        for done in as_completed(waiting):
            if error := done.exception():
                failed.append(f'{waiting[done]}: {error}')
                continue
            merge(args.out, done.result())
            shown = done.result().query('users == "all"')[SHOWN]
            print(shown.to_string(index=False, header=False), flush=True)
    return failed

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m',
                        help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('results/ranking.csv'),
                        help='the result file (default: %(default)s)')
    parser.add_argument('--only', choices=METHODS, help='run one method only')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0],
                        help='of the models; one job for each (default: 0)')
    parser.add_argument('--jobs', type=int, default=1, help='jobs at a time (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='cores for each job (default: %(default)s)')
    parser.add_argument('--runs', type=Path,
                        help='folder of trained models: load those that are there, keep the others there')
    parser.add_argument('--epochs', type=int, help="of the models (default: the preset's)")
    parser.add_argument('--quick', action='store_true', help='one epoch each, to try the command')
    args = parser.parse_args()
    jobs = [(name, seed) for seed in args.seeds for name in METHODS
            if args.only in (None, name) and (name in MODELS or seed == args.seeds[0])]
    judges = [job for job in jobs if job[0] == JUDGE]  # first, since they rate the lists of others
    failed = run_jobs(args, judges) + run_jobs(args, [job for job in jobs if job not in judges])
    if failed: raise SystemExit('failed:\n' + '\n'.join(failed))

if __name__ == '__main__': main()
