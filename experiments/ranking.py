"""Rank each user's last rating among the whole catalogue, by models and baselines -> results/ranking.csv.

    python experiments/ranking.py --data ml-1m
    python experiments/ranking.py --data ml-1m --seeds 0 1 2 --jobs 2  # several seeds, two jobs at a time
    python experiments/ranking.py --data ml-1m --only EASE             # one method; other rows stay

By `leave-last-out`: models and baselines learn from the training part; each user's last rating but one
chooses (the epoch, EASE's regularization), and the last is used once. Candidates are all items except
those rated before the target; ties count against the method. Columns that end in _100 hold what the same
ranks would be among 100 negatives drawn at random. EASE needs the extra "bench".
"""
import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import pandas as pd
import torch

from bst_nbdev.core import atomic_path, device_name, library_versions, show_progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.splits import make_split
from bst_nbdev.packing import ASSUMED_GAP
from bst_nbdev.evaluation import training_rows
from bst_nbdev.ranking import Ease, ModelScores, Popularity, rank_targets, ranking_scores, sampled_ranks
from bst_nbdev.pipeline import Recipe, train
from bst_nbdev.runs import free_folder, save_run

PROTOCOL = 'leave-last-out'
NEGATIVES = 100
GRID = (100., 200., 500., 1000., 2000.)  # of EASE's regularization
MODELS = {'BST (next)': 'next', 'BST (two-stream)': 'two-stream'}  # name of the row: preset
METHODS = ('popularity', 'EASE', *MODELS)
COLUMNS = ['dataset', 'protocol', 'model', 'setting', 'seed', 'part', 'hit_rate', 'ndcg', 'mrr',
           f'hit_rate_{NEGATIVES}', f'ndcg_{NEGATIVES}', 'targets', 'candidates', 'epochs', 'best_epoch',
           'train_seconds', 'rank_seconds', 'device', 'commit', 'versions', 'data_sha256']
LIBRARIES = ('python', 'torch', 'numpy')
SHOWN = ['model', 'setting', 'seed', 'part', 'hit_rate', 'ndcg', 'mrr', f'hit_rate_{NEGATIVES}']
KEY = ['dataset', 'protocol', 'model', 'seed']

def ranked(scores, data, split, part, seed=0, **more):
    "Rank the targets of a part; return a row of the result file"
    start = time.perf_counter()
    ranks, candidates = rank_targets(scores, data, getattr(split, part))
    drawn = ranking_scores(sampled_ranks(ranks, candidates, NEGATIVES, seed))
    among_drawn = {f'{name}_{NEGATIVES}': drawn[name] for name in ('hit_rate', 'ndcg')}
    return dict(part=part, seed=seed, **ranking_scores(ranks), **among_drawn, targets=len(ranks),
                candidates=candidates.mean(), rank_seconds=time.perf_counter() - start, **more)

def popularity(data, split):
    "Rank by popularity: the same list for every user"
    fitted = Popularity().fit(data, training_rows(data, split))
    for part in 'validation', 'test':
        yield ranked(lambda rows: fitted.scores(data, rows), data, split, part, setting='')

def ease(data, split):
    "Rank by EASE: every regularization on validation, the best of them on test"
    best = None
    for value in GRID:
        start = time.perf_counter()
        fitted = Ease(value).fit(data, training_rows(data, split))
        more = dict(setting=f'regularization {value:g}', train_seconds=time.perf_counter() - start)
        row = ranked(lambda rows: fitted.scores(data, rows), data, split, 'validation', **more)
        yield row
        if best is None or row['ndcg'] > best[0]: best = row['ndcg'], fitted, more
    _, fitted, more = best
    yield ranked(lambda rows: fitted.scores(data, rows), data, split, 'test', **more)

def model(name, data, split, seed, epochs, runs, where):
    "Rank by a model at the time of the target; a next-item model also shortly after the last rating"
    recipe = Recipe(where, MODELS[name], PROTOCOL, epochs=epochs, seed=seed)
    run = train(recipe, data, 'cpu', baselines=())
    if runs: save_run(run, free_folder(run.recipe, run.interactions, runs))
    facts = dict(epochs=len(run.training_log), best_epoch=run.best_epoch, train_seconds=run.seconds)
    pauses = {'': None}
    if run.model.config.objective == 'next': pauses[f'scored {ASSUMED_GAP} s after the last rating'] = ASSUMED_GAP
    for setting, pause in pauses.items():
        for part in 'validation', 'test':
            yield ranked(ModelScores(run.model, data, pause=pause), data, split, part, seed, setting=setting,
                         **facts)

def work(where, name, seed, threads, epochs, runs):
    "Run one job; return rows of the result file"
    torch.set_num_threads(threads)
    show_progress(False)
    data = load(where)
    split = make_split(data, PROTOCOL)
    if name in MODELS: rows = model(name, data, split, seed, epochs, runs, where)
    else: rows = dict(popularity=popularity, EASE=ease)[name](data, split)
    versions = '; '.join(f'{k} {v}' for k, v in library_versions().items() if k in LIBRARIES)
    table = pd.DataFrame(rows).assign(dataset=data.name, protocol=PROTOCOL, model=name,
                                      device=device_name('cpu', threads), commit=source_commit(),
                                      versions=versions, data_sha256=data.source['sha256'][:16])
    return table.reindex(columns=COLUMNS)

def merge(path, rows):
    "Replace the rows of the same jobs in a result file, and keep the others"
    if path.exists():
        old = pd.read_csv(path, keep_default_na=False,
                          na_values={name: [''] for name in COLUMNS if name != 'setting'})
        merged = old.merge(rows[KEY].drop_duplicates(), on=KEY, how='left', indicator=True)
        rows = pd.concat([old[(merged._merge == 'left_only').values], rows])
    rows = rows.sort_values([*KEY, 'setting', 'part'], ascending=[True] * 5 + [False])
    with atomic_path(path) as scratch: rows.to_csv(scratch, index=False, float_format='%.6g')

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
    parser.add_argument('--runs', type=Path, help='keep the trained models in this folder')
    parser.add_argument('--epochs', type=int, help="of the models (default: the preset's)")
    args = parser.parse_args()
    jobs, failed = [], []
    for seed in args.seeds:
        for name in METHODS:
            if args.only not in (None, name): continue
            if name in MODELS or seed == args.seeds[0]: jobs.append((name, seed))
    with ProcessPoolExecutor(args.jobs) as pool:
        waiting = {pool.submit(work, args.data, *job, args.threads, args.epochs, args.runs): job for job in jobs}
        for done in as_completed(waiting):
            if error := done.exception():
                failed.append(f'{waiting[done]}: {error}')
                continue
            merge(args.out, done.result())
            print(done.result()[SHOWN].to_string(index=False, header=False), flush=True)
    if failed: raise SystemExit('failed:\n' + '\n'.join(failed))

if __name__ == '__main__': main()
