"""Measure models and baselines by all protocols that the results page speaks of, and write the result files.

    python experiments/reproduce.py --jobs 2                          # MovieLens-1M -> results/reproduction.csv
    python experiments/reproduce.py --data ml-1m.zip --jobs 2         # the same, from an archive that is there
    python experiments/reproduce.py --only leave-last-out             # a part; other rows of the file stay
    python experiments/reproduce.py --suite sample                    # the embedded sample -> results/sample.csv
    python experiments/reproduce.py --list

Each job is one model (or baseline) on one protocol with one seed: it is trained on the training part, its epoch is chosen on
validation, and the test part is used once, for the row that is written. Jobs run side by side, each on its own cores.
SVD and SVD++ need the extra "bench".
"""
import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import pandas as pd
import torch

from bst_nbdev.core import atomic_path, library_versions, progress, show_progress, source_commit
from bst_nbdev.data import load
from bst_nbdev.evaluation import BASELINES, compare
from bst_nbdev.pipeline import Recipe, train
from bst_nbdev.sequences import PROTOCOLS, make_split

COLUMNS = ['dataset', 'protocol', 'model', 'sequence_length', 'step', 'seed', 'part', 'mae', 'mae_median', 'rmse', 'auc', 'epochs', 'best_epoch',
           'parameters', 'train_seconds', 'device', 'commit', 'versions', 'data_sha256']
KEY = ['dataset', 'protocol', 'model', 'sequence_length', 'step', 'seed']

# (protocol, preset or baseline, sequence length, step): long ones first, so that no core is left with one of them at the end
REPRODUCTION = [('leave-last-out', 'pytorch', 10, 1), ('random-windows', 'pytorch', 10, 1), ('leave-last-out', 'keras', 4, 1),
                ('random-windows', 'pytorch', 4, 2), ('random-windows', 'keras', 4, 2), ('leave-last-out', 'SVD++', 10, 1),
                ('random-windows', 'SVD++', 10, 1), ('random-windows', 'SVD++', 4, 2)]
REPRODUCTION += [(protocol, name, length, step) for protocol, length, step in (('random-windows', 4, 2), ('random-windows', 10, 1), ('leave-last-out', 10, 1))
                 for name in ('SVD', 'user + item bias', 'global mean')]
REPRODUCTION += [('leave-last-out', 'default', 16, 1), ('random-windows', 'default', 16, 1)]

SAMPLE = [(protocol, name, length, 1) for protocol in PROTOCOLS
          for name, length in (('default', 16), ('pytorch', 10), ('keras', 4), ('SVD', 16), ('user + item bias', 16), ('global mean', 16))]
SUITES = {'reproduction': ('ml-1m', REPRODUCTION), 'sample': ('sample', SAMPLE)}  # name of the result file: (data, jobs)

def name_of(job): return '{} / {} / length {} / step {}'.format(*job)

def work(data, job, seed, threads, quick):
    "One job as rows of the result file: validation and test"
    torch.set_num_threads(threads)
    show_progress(False)
    protocol, name, length, step = job
    interactions, start = load(data), time.perf_counter()
    if name in BASELINES:
        table, facts = compare(interactions, make_split(interactions, protocol, length, step, seed), {}, baselines=[name]), {}
    else:
        recipe = Recipe(str(data), name, protocol, length, step, epochs=1 if quick else None, objective='rating', seed=seed)
        run = train(recipe, interactions, 'cpu', baselines=())
        table = run.table
        facts = dict(epochs=len(run.history), best_epoch=run.best_epoch, parameters=run.model.summary().loc['total', 'parameters'])
    versions = '; '.join(f'{k} {v}' for k, v in library_versions().items() if k in ('python', 'torch', 'numpy', 'scikit-surprise'))
    return table.assign(dataset=interactions.name, sequence_length=length, step=step, seed=seed, train_seconds=round(time.perf_counter() - start, 1),
                        device=f'cpu, {threads} thread' + 's' * (threads > 1), commit=source_commit(), versions=versions,
                        data_sha256=interactions.source['sha256'][:16], **facts).reindex(columns=COLUMNS)

def merge(path, rows):
    "Put new rows in the place of old ones of the same job, in a fixed order"
    if path.exists():
        old = pd.read_csv(path)
        keep = old.merge(rows[KEY].drop_duplicates(), on=KEY, how='left', indicator=True)._merge == 'left_only'
        rows = pd.concat([old[keep.values], rows])
    with atomic_path(path) as scratch: rows.sort_values([*KEY, 'part'], ascending=[True] * 6 + [False]).to_csv(scratch, index=False, float_format='%.6g')

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--suite', choices=SUITES, default='reproduction', help='which jobs (default: %(default)s)')
    parser.add_argument('--data', help="a MovieLens name, a .zip or a folder (default: the suite's)")
    parser.add_argument('--out', type=Path, help='the result file (default: results/SUITE.csv)')
    parser.add_argument('--only', default='', help='only jobs whose name has this in it')
    parser.add_argument('--seed', type=int, default=0, help='of split, weights and order (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, help='jobs side by side (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='cores for each job (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='one epoch each, to try the command')
    parser.add_argument('--list', action='store_true', help='name the jobs and stop')
    a = parser.parse_args()
    data, jobs = SUITES[a.suite]
    data, out, jobs = a.data or data, a.out or Path(f'results/{a.suite}.csv'), [job for job in jobs if a.only in name_of(job)]
    if a.list: return print(*map(name_of, jobs), sep='\n')
    if not jobs: parser.error(f'no job has {a.only!r} in its name: see --list')
    failed = []
    with ProcessPoolExecutor(a.jobs) as pool:
        waiting = {pool.submit(work, data, job, a.seed, a.threads, a.quick): job for job in jobs}
        for done in progress(as_completed(waiting), 'jobs', total=len(jobs)):
            if error := done.exception():
                failed.append(f'{name_of(waiting[done])}: {error}')
                continue
            merge(out, done.result())
            print(done.result()[['protocol', 'model', 'sequence_length', 'part', 'mae', 'rmse', 'epochs', 'train_seconds']].to_string(index=False, header=False), flush=True)
    if failed: raise SystemExit('failed:\n' + '\n'.join(failed))

if __name__ == '__main__': main()
