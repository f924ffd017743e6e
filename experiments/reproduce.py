"""Measure models and baselines by all protocols that the results page speaks of, and write the result files.

    python experiments/reproduce.py --suite results --seeds 0 1 2 --jobs 2    # our model, MovieLens-1M -> results/results.csv
    python experiments/reproduce.py --suite compared --jobs 2                 # published models and baselines -> results/compared.csv
    python experiments/reproduce.py --suite windowed                          # ours with no more history than a window -> results/windowed.csv
    python experiments/reproduce.py --data ml-1m.zip --only leave-last-out    # published figures; from an archive; a part, other rows stay
    python experiments/reproduce.py --suite sample                            # the embedded sample -> results/sample.csv
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

from bst_nbdev.core import atomic_path, device_name, library_versions, progress, show_progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.evaluation import BASELINES, METRICS, compare
from bst_nbdev.pipeline import Recipe, check_output_folder, save_run, train
from bst_nbdev.presets import PRESETS
from bst_nbdev.sequences import PROTOCOLS, make_split

COLUMNS = ['dataset', 'protocol', 'model', 'sequence_length', 'step', 'seed', 'part', *METRICS, 'epochs', 'best_epoch',
           'parameters', 'train_seconds', 'device', 'commit', 'versions', 'data_sha256']
KEY = ['dataset', 'protocol', 'model', 'sequence_length', 'step', 'seed']
SIMPLE = ('SVD', 'user + item bias', 'global mean')

# (protocol, preset, variant or baseline, sequence length, step): long ones first, so that no core is left with one of them at the end
REPRODUCTION = [('leave-last-out', 'pytorch', 10, 1), ('random-windows', 'pytorch', 10, 1), ('leave-last-out', 'keras', 4, 1),
                ('random-windows', 'pytorch', 4, 2), ('random-windows', 'keras', 4, 2), ('leave-last-out', 'SVD++', 10, 1),
                ('random-windows', 'SVD++', 10, 1), ('random-windows', 'SVD++', 4, 2)]
REPRODUCTION += [(protocol, name, length, step) for protocol, length, step in (('random-windows', 4, 2), ('random-windows', 10, 1), ('leave-last-out', 10, 1))
                 for name in SIMPLE]

WINDOWS = [('random-windows', length, 2 if length == 4 else 1) for length in (10, 4, 15, 20)]  # the lengths that were published
OTHERS = [(protocol, 10, 1) for protocol in ('random-ratings', 'leave-last-out', 'temporal')]
RESULTS = [('random-windows', 'default', 10, 1), ('random-ratings', 'fill-in', 10, 1), ('leave-last-out', 'default', 10, 1),
           ('temporal', 'default', 10, 1), ('random-ratings', 'default', 10, 1)]
RESULTS += [(protocol, 'default', length, step) for protocol, length, step in WINDOWS[1:]]
WINDOWED = [(protocol, 'default, windows', length, step) for protocol, length, step in WINDOWS]
COMPARED = [(protocol, name, length, step) for protocol, length, step in WINDOWS + OTHERS for name in ('SVD++', *SIMPLE)]
COMPARED += [(protocol, name, PRESETS[name]['model']['sequence_length'], 1) for protocol, _, _ in OTHERS for name in ('paper', 'keras', 'pytorch')]
COMPARED += [('random-windows', name, length, step) for _, length, step in WINDOWS for name in ('paper', 'keras', 'pytorch')]

SAMPLE = [(protocol, name, length, 1) for protocol in PROTOCOLS
          for name, length in (('default', 16), ('joint', 16), ('pytorch', 10), ('keras', 4), ('SVD', 16), ('user + item bias', 16), ('global mean', 16))]
SAMPLE += [('random-ratings', 'fill-in', 16, 1)]
SMALL = [(protocol, name, 10, 1) for protocol, _, _ in WINDOWS[:1] + OTHERS for name in ('default', 'SVD++', *SIMPLE)]
SMALL += [('random-ratings', 'fill-in', 10, 1)]
SUITES = {'reproduction': ('ml-1m', REPRODUCTION), 'results': ('ml-1m', RESULTS), 'windowed': ('ml-1m', WINDOWED), 'compared': ('ml-1m', COMPARED),
          'sample': ('sample', SAMPLE), 'ml-100k': ('ml-100k', SMALL)}  # name of the result file: (data, jobs)
VARIANTS = {'default, windows': dict(preset='default', chunk=1)}  # each target sees its own window of L - 1 ratings and no more

def name_of(job): return '{} / {} / length {} / step {}'.format(*job)

def recipe_of(data, job, seed, quick=False):
    "What a job trains"
    protocol, name, length, step = job
    settings = VARIANTS.get(name, dict(preset=name))
    if settings.get('chunk') == 1: settings = settings | dict(history=length - 1)
    return Recipe(str(data), protocol=protocol, sequence_length=length, step=step, epochs=1 if quick else None, objective='rating', seed=seed, **settings)

def work(data, job, seed, threads, quick, runs):
    "One job as rows of the result file: validation and test"
    torch.set_num_threads(threads)
    show_progress(False)
    protocol, name, length, step = job
    interactions, start = load(data), time.perf_counter()
    if name in BASELINES:
        table, facts = compare(interactions, make_split(interactions, protocol, length, step, seed), {}, baselines=[name]), {}
    else:
        folder = runs and runs/f'{interactions.name}-{protocol}-{name}-{length}-{seed}'.replace(', ', '-').replace(' ', '-')
        if folder: check_output_folder(folder)                                                      # before the work, not after it
        run = train(recipe_of(data, job, seed, quick), interactions, 'cpu', baselines=())
        table = run.table.assign(model=f'BST ({name})')
        if folder: save_run(run, folder)
        facts = dict(epochs=len(run.history), best_epoch=run.best_epoch, parameters=run.model.summary().loc['total', 'parameters'])
    versions = '; '.join(f'{k} {v}' for k, v in library_versions().items() if k in ('python', 'torch', 'numpy', 'scikit-surprise'))
    return table.assign(dataset=interactions.name, sequence_length=length, step=step, seed=seed, train_seconds=round(time.perf_counter() - start, 1),
                        device=device_name('cpu', threads), commit=source_commit(), versions=versions,
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
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='of split, weights and order; one job for each (default: 0)')
    parser.add_argument('--jobs', type=int, default=1, help='jobs side by side (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='cores for each job (default: %(default)s)')
    parser.add_argument('--runs', type=Path, help='keep the trained models in this folder, for experiments/compare.py')
    parser.add_argument('--quick', action='store_true', help='one epoch each, to try the command')
    parser.add_argument('--list', action='store_true', help='name the jobs and stop')
    a = parser.parse_args()
    data, jobs = SUITES[a.suite]
    data, out, jobs = a.data or data, a.out or Path(f'results/{a.suite}.csv'), [job for job in jobs if a.only in name_of(job)]
    if a.list: return print(*map(name_of, jobs), sep='\n')
    if not jobs: parser.error(f'no job has {a.only!r} in its name: see --list')
    failed = []
    with ProcessPoolExecutor(a.jobs) as pool:
        waiting = {pool.submit(work, data, job, seed, a.threads, a.quick, a.runs): job for seed in a.seeds for job in jobs}
        for done in progress(as_completed(waiting), 'jobs', total=len(waiting)):
            if error := done.exception():
                failed.append(f'{name_of(waiting[done])}: {error}')
                continue
            merge(out, done.result())
            print(done.result()[['protocol', 'model', 'sequence_length', 'part', 'mae_mean', 'mae', 'rmse', 'epochs', 'train_seconds']].to_string(index=False, header=False), flush=True)
    if failed: raise SystemExit('failed:\n' + '\n'.join(failed))

if __name__ == '__main__': main()
