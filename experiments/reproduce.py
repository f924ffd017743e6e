"""Measure models and baselines by every protocol of the results page, and write the result files.

    python experiments/reproduce.py --suite results --seeds 0 1 2 --jobs 2  # our models
    python experiments/reproduce.py --suite compared --jobs 2               # published, baselines
    python experiments/reproduce.py --suite windowed                        # ours, limited to a window
    python experiments/reproduce.py --data ml-1m.zip --only leave-last-out  # some jobs; other rows stay
    python experiments/reproduce.py --suite sample                          # the bundled sample
    python experiments/reproduce.py --list

A suite is written to results/SUITE.csv; its data are MovieLens-1M unless --data says otherwise. Each job is
one model (or baseline) on one protocol with one seed: it is trained on the training part,
its epoch is chosen on validation, and the test part is used once, for the row that is written. Each job
has its own cores. SVD and SVD++ need the extra "bench".
"""
import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import pandas as pd
import torch

from bst_nbdev.core import (atomic_path, device_name, library_versions, progress, show_progress,
                            source_commit)
from bst_nbdev.prepared import load
from bst_nbdev.names import PROTOCOLS
from bst_nbdev.splits import make_split
from bst_nbdev.presets import PRESETS
from bst_nbdev.evaluation import BASELINES, METRICS, compare
from bst_nbdev.ranking import RANKING
from bst_nbdev.pipeline import Recipe, train
from bst_nbdev.runs import check_output_folder, save_run

COLUMNS = ['dataset', 'protocol', 'model', 'sequence_length', 'step', 'seed', 'part', 'moment', *METRICS,
           *RANKING, 'epochs', 'best_epoch', 'parameters', 'train_seconds', 'device', 'commit', 'versions',
           'data_sha256']
KEY = ['dataset', 'protocol', 'model', 'sequence_length', 'step', 'seed']
LIBRARIES = ('python', 'torch', 'numpy', 'scikit-surprise')
SIMPLE = ('SVD', 'user + item bias', 'global mean')
PUBLISHED = ('paper', 'keras', 'pytorch')

# Jobs are (protocol, preset or variant or baseline, sequence length, step); the longest come first, so that no
# core waits at the end. WINDOWS has the lengths that were published.
WINDOWS = [('random-windows', length, 2 if length == 4 else 1) for length in (10, 4, 15, 20)]
OTHERS = [(protocol, 10, 1) for protocol in ('random-ratings', 'leave-last-out', 'temporal')]

REPRODUCTION = [('leave-last-out', 'pytorch', 10, 1), ('random-windows', 'pytorch', 10, 1),
                ('leave-last-out', 'keras', 4, 1), ('random-windows', 'pytorch', 4, 2),
                ('random-windows', 'keras', 4, 2), ('leave-last-out', 'SVD++', 10, 1),
                ('random-windows', 'SVD++', 10, 1), ('random-windows', 'SVD++', 4, 2)]
SHORT = [('random-windows', 4, 2), ('random-windows', 10, 1), ('leave-last-out', 10, 1)]
REPRODUCTION += [(protocol, name, length, step) for protocol, length, step in SHORT for name in SIMPLE]

RESULTS = [('leave-last-out', 'both', 10, 1), ('random-windows', 'both', 10, 1), ('temporal', 'both', 10, 1),
           ('random-ratings', 'both', 10, 1)]
RESULTS += [(protocol, 'both, user table', length, step) for protocol, _, length, step in RESULTS[:4]]
RESULTS += [('random-windows', 'rating', 10, 1), ('random-ratings', 'fill-in', 10, 1),
            ('leave-last-out', 'rating', 10, 1), ('temporal', 'rating', 10, 1),
            ('random-ratings', 'rating', 10, 1)]
RESULTS += [(protocol, 'rating', length, step) for protocol, length, step in WINDOWS[1:]]
WINDOWED = [(protocol, 'rating, windows', length, step) for protocol, length, step in WINDOWS]

COMPARED = [(protocol, name, length, step) for protocol, length, step in WINDOWS + OTHERS
            for name in ('SVD++', *SIMPLE)]
COMPARED += [(protocol, name, PRESETS[name].model['sequence_length'], 1)
             for protocol, _, _ in OTHERS for name in PUBLISHED]
COMPARED += [('random-windows', name, length, step) for _, length, step in WINDOWS for name in PUBLISHED]

LENGTHS = {'both': 16, 'rating': 16, 'single-sequence': 16, 'pytorch': 10, 'keras': 4,
           **dict.fromkeys(SIMPLE, 16)}
SAMPLE = [(protocol, name, length, 1) for protocol in PROTOCOLS for name, length in LENGTHS.items()]
SAMPLE += [('random-ratings', 'fill-in', 16, 1)]
SMALL = [(protocol, name, 10, 1) for protocol, _, _ in WINDOWS[:1] + OTHERS
         for name in ('both', 'rating', 'SVD++', *SIMPLE)]
SMALL += [('random-ratings', 'fill-in', 10, 1)]

# name of the result file: (data, jobs)
SUITES = {'reproduction': ('ml-1m', REPRODUCTION), 'results': ('ml-1m', RESULTS),
          'windowed': ('ml-1m', WINDOWED), 'compared': ('ml-1m', COMPARED),
          'sample': ('sample', SAMPLE), 'ml-100k': ('ml-100k', SMALL)}

def name_of(job): return '{} / {} / length {} / step {}'.format(*job)

def recipe_of(data, job, seed, quick=False):
    "Make the recipe of a job"
    protocol, name, length, step = job
    preset, _, variant = name.partition(', ')
    settings = dict(preset=preset)
    if variant == 'windows': settings |= dict(chunk=1, min_history=length - 1)  # targets see length - 1 ratings
    if variant == 'user table': settings |= dict(user_table=True)
    if preset in PUBLISHED: settings |= dict(objective='rating')
    return Recipe(str(data), protocol=protocol, sequence_length=length, step=step,
                  epochs=1 if quick else None, seed=seed, **settings)

def run_folder(runs, dataset, job, seed):
    "Name the folder in which the model of a job is kept"
    protocol, name, length, step = job
    return runs/f'{dataset}-{protocol}-{name}-{length}-{seed}'.replace(', ', '-').replace(' ', '-')

def run_model(data, interactions, job, seed, quick, runs):
    "Train the model of a job; return its scores and some facts"
    folder = run_folder(runs, interactions.name, job, seed) if runs else None
    if folder: check_output_folder(folder)  # before the work, not after it
    run = train(recipe_of(data, job, seed, quick), interactions, 'cpu', baselines=())
    if folder: save_run(run, folder)
    parameters = run.model.summary().loc['total', 'parameters']
    facts = dict(epochs=len(run.training_log), best_epoch=run.best_epoch, parameters=parameters)
    return run.table.assign(model=f'BST ({job[1]})'), facts

def work(data, job, seed, threads, quick, runs):
    "Run one job; return rows of the result file for validation and test"
    torch.set_num_threads(threads)
    show_progress(False)
    protocol, name, length, step = job
    interactions, start, facts = load(data), time.perf_counter(), {}
    if name in BASELINES:
        table = compare(interactions, make_split(interactions, protocol, length, step, seed), {},
                        baselines=[name])
    else:
        table, facts = run_model(data, interactions, job, seed, quick, runs)
    versions = '; '.join(f'{k} {v}' for k, v in library_versions().items() if k in LIBRARIES)
    table = table.assign(dataset=interactions.name, sequence_length=length, step=step, seed=seed,
                         train_seconds=round(time.perf_counter() - start, 1),
                         device=device_name('cpu', threads), commit=source_commit(), versions=versions,
                         data_sha256=interactions.source['sha256'][:16], **facts)
    return table.reindex(columns=COLUMNS)

def merge(path, rows):
    "Replace the rows of the same jobs in a result file, keep the others, and sort"
    if path.exists():
        old = pd.read_csv(path, dtype=dict(commit=str))
        keep = old.merge(rows[KEY].drop_duplicates(), on=KEY, how='left',
                         indicator=True)._merge == 'left_only'
        rows = pd.concat([old[keep.values], rows])
    order = [name for name in (*KEY, 'part', 'moment') if name in rows]
    rows = rows.sort_values(order, ascending=[name != 'part' for name in order])
    with atomic_path(path) as scratch: rows.to_csv(scratch, index=False, float_format='%.6g')

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--suite', choices=SUITES, default='reproduction',
                        help='which jobs (default: %(default)s)')
    parser.add_argument('--data', help="a MovieLens name, a .zip or a folder (default: the suite's)")
    parser.add_argument('--out', type=Path, help='the result file (default: results/SUITE.csv)')
    parser.add_argument('--only', default='', help='run only jobs whose name contains this')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0],
                        help='of split, weights and order; one job for each (default: 0)')
    parser.add_argument('--jobs', type=int, default=1, help='jobs at a time (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='cores for each job (default: %(default)s)')
    parser.add_argument('--runs', type=Path,
                        help='keep the trained models in this folder, for experiments/compare.py')
    parser.add_argument('--quick', action='store_true', help='one epoch each, to try the command')
    parser.add_argument('--list', action='store_true', help='list the jobs and stop')
    args = parser.parse_args()
    data, jobs = SUITES[args.suite]
    data, out = args.data or data, args.out or Path(f'results/{args.suite}.csv')
    jobs = [job for job in jobs if args.only in name_of(job)]
    if args.list: return print(*map(name_of, jobs), sep='\n')
    if not jobs: parser.error(f'no job contains {args.only!r} in its name: see --list')
    failed = []
    with ProcessPoolExecutor(args.jobs) as pool:
        waiting = {pool.submit(work, data, job, seed, args.threads, args.quick, args.runs): job
                   for seed in args.seeds for job in jobs}
        for done in progress(as_completed(waiting), 'jobs', total=len(waiting)):
            if error := done.exception():
                failed.append(f'{name_of(waiting[done])}: {error}')
                continue
            merge(out, done.result())
            shown = done.result()[['protocol', 'model', 'sequence_length', 'part', 'moment', 'mae_mean', 'mae',
                                   'rmse', 'hit_rate', 'ndcg', 'epochs', 'train_seconds']]
            print(shown.to_string(index=False, header=False), flush=True)
    if failed: raise SystemExit('failed:\n' + '\n'.join(failed))

if __name__ == '__main__': main()
