"""Rank each user's last rating among the whole catalogue, by models and baselines, and write results/ranking.csv.

    python experiments/ranking.py --data ml-1m                                # -> results/ranking.csv
    python experiments/ranking.py --data ml-1m --seeds 0 1 2 --jobs 2         # seeds, side by side; --runs keeps the trained models
    python experiments/ranking.py --data ml-1m --only EASE                    # a part; other rows stay

By `leave-last-out`: models and baselines learn from the training part; the last rating but one of each user is for choosing (epoch, EASE's
regularization, variants), and the last is used once. Candidates are all items but those rated before the target; ties count against the method.
Columns that end in _100 say what the same ranks would have been against 100 negatives drawn at random. EASE needs the extra "bench".
"""
import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import pandas as pd
import torch

from bst_nbdev.core import atomic_path, device_name, library_versions, show_progress, source_commit
from bst_nbdev.data import load
from bst_nbdev.evaluation import training_rows
from bst_nbdev.pipeline import Recipe, free_folder, save_run, train
from bst_nbdev.ranking import Ease, ModelScores, Popularity, rank_targets, ranking_scores, sampled_ranks
from bst_nbdev.packing import ASSUMED_GAP
from bst_nbdev.sequences import make_split

PROTOCOL, NEGATIVES = 'leave-last-out', 100
GRID = (100., 200., 500., 1000., 2000.)  # of EASE's regularization
MODELS = {'BST (next)': dict(preset='next'), 'BST (default)': dict(preset='default')}
METHODS = ('popularity', 'EASE', *MODELS)
COLUMNS = ['dataset', 'protocol', 'model', 'setting', 'seed', 'part', 'hit_rate', 'ndcg', 'mrr', f'hit_rate_{NEGATIVES}', f'ndcg_{NEGATIVES}',
           'targets', 'candidates', 'epochs', 'best_epoch', 'train_seconds', 'rank_seconds', 'device', 'commit', 'versions', 'data_sha256']
KEY = ['dataset', 'protocol', 'model', 'seed']

def ranked(score, data, split, part, seed=0, **more):
    "A row of the result file"
    start = time.perf_counter()
    ranks, candidates = rank_targets(score, data, getattr(split, part))
    drawn = ranking_scores(sampled_ranks(ranks, candidates, NEGATIVES, seed))
    return dict(part=part, seed=seed, **ranking_scores(ranks), **{f'{name}_{NEGATIVES}': drawn[name] for name in ('hit_rate', 'ndcg')},
                targets=len(ranks), candidates=candidates.mean(), rank_seconds=time.perf_counter() - start, **more)

def popularity(data, split):
    "The same list for everybody"
    fitted = Popularity().fit(data, training_rows(data, split))
    for part in 'validation', 'test': yield ranked(lambda rows: fitted.scores(data, rows), data, split, part, setting='')

def ease(data, split):
    "Each regularization on validation, the best of them on test"
    best = None
    for value in GRID:
        start = time.perf_counter()
        fitted = Ease(value).fit(data, training_rows(data, split))
        score, more = lambda rows: fitted.scores(data, rows), dict(setting=f'regularization {value:g}', train_seconds=time.perf_counter() - start)
        row = ranked(score, data, split, 'validation', **more)
        yield row
        if best is None or row['ndcg'] > best[0]: best = row['ndcg'], fitted, more
    yield ranked(lambda rows: best[1].scores(data, rows), data, split, 'test', **best[2])

def model(name, data, split, seed, epochs, runs, where):
    "A model, asked when the target came, and what comes next also right after the last rating"
    run = train(Recipe(where, protocol=PROTOCOL, epochs=epochs, seed=seed, **MODELS[name]), data, 'cpu', baselines=())
    if runs: save_run(run, free_folder(run.recipe, run.interactions, runs))
    facts = dict(epochs=len(run.history), best_epoch=run.best_epoch, train_seconds=run.seconds)
    pauses = {'': None, f'asked {ASSUMED_GAP} s after the last rating': ASSUMED_GAP} if run.model.config.objective == 'next' else {'': None}
    for setting, pause in pauses.items():
        for part in 'validation', 'test':
            yield ranked(ModelScores(run.model, data, pause=pause), data, split, part, seed, setting=setting, **facts)

def work(where, name, seed, threads, epochs, runs):
    "One job as rows of the result file"
    torch.set_num_threads(threads)
    show_progress(False)
    data = load(where)
    split = make_split(data, PROTOCOL)
    if name in MODELS: rows = model(name, data, split, seed, epochs, runs, where)
    else: rows = dict(popularity=popularity, EASE=ease)[name](data, split)
    versions = '; '.join(f'{k} {v}' for k, v in library_versions().items() if k in ('python', 'torch', 'numpy'))
    return pd.DataFrame(rows).assign(dataset=data.name, protocol=PROTOCOL, model=name, device=device_name('cpu', threads),
                                     commit=source_commit(), versions=versions, data_sha256=data.source['sha256'][:16]).reindex(columns=COLUMNS)

def merge(path, rows):
    "Put new rows in the place of old ones of the same job"
    if path.exists():
        old = pd.read_csv(path, keep_default_na=False, na_values={name: [''] for name in COLUMNS if name != 'setting'})
        keep = old.merge(rows[KEY].drop_duplicates(), on=KEY, how='left', indicator=True)._merge == 'left_only'
        rows = pd.concat([old[keep.values], rows])
    order = rows.sort_values([*KEY, 'setting', 'part'], ascending=[True] * 5 + [False])
    with atomic_path(path) as scratch: order.to_csv(scratch, index=False, float_format='%.6g')

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m', help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('results/ranking.csv'), help='the result file (default: %(default)s)')
    parser.add_argument('--only', choices=METHODS, help='just one of them')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='of the models; one job for each (default: 0)')
    parser.add_argument('--jobs', type=int, default=1, help='jobs side by side (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='cores for each job (default: %(default)s)')
    parser.add_argument('--runs', type=Path, help='keep the trained models in this folder')
    parser.add_argument('--epochs', type=int, help="of the models; the preset's if not given")
    a = parser.parse_args()
    jobs = [(name, seed) for seed in a.seeds for name in METHODS if a.only in (None, name) and (name in MODELS or seed == a.seeds[0])]
    failed = []
    with ProcessPoolExecutor(a.jobs) as pool:
        waiting = {pool.submit(work, a.data, name, seed, a.threads, a.epochs, a.runs): (name, seed) for name, seed in jobs}
        for done in as_completed(waiting):
            if error := done.exception():
                failed.append(f'{waiting[done]}: {error}')
                continue
            merge(a.out, done.result())
            print(done.result()[['model', 'setting', 'seed', 'part', 'hit_rate', 'ndcg', 'mrr', f'hit_rate_{NEGATIVES}']].to_string(index=False, header=False), flush=True)
    if failed: raise SystemExit('failed:\n' + '\n'.join(failed))

if __name__ == '__main__': main()
