"""Measure what other busy processes cost, with no environment variable set, and write results/threads.csv.

    python benchmarks/threads.py                    # training on the sample, alone and beside a process that keeps a core busy
    python benchmarks/threads.py --tests            # and `nbdev_test` as a whole, beside the same with OMP_NUM_THREADS=1 (minutes)

Figures mean something only on a machine that has nothing else to do. `ratio` says how many times faster a variant is than its
`baseline`. The targets are 0.4 beside a busy process (2.5 times the time alone) and 0.77 for the tests (1.3 times).
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
from run import COLUMNS, alternate, merge, must_equal, table

from bst_nbdev.core import BSTError, check_writable, device_name, source_commit

ROOT = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = ('OMP_', 'GOMP_', 'KMP_', 'MKL_', 'IN_TEST')
TRAIN = 'import sys; from bst_nbdev.cli import bst_train; sys.exit(bst_train())'
ALONE, BUSY, PATIENT = 'alone', 'beside a busy process', 'beside a busy process, threads that wait as long as libgomp lets them'
ONE_THREAD, NOTHING_SET = 'OMP_NUM_THREADS=1', 'nothing set'

def environment(**variables):
    "Copy the present environment without the variables of OpenMP, and add these"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(THREAD_VARIABLES)}
    return {**kept, 'PYTHONPATH': str(ROOT), 'BST_PROGRESS': '0', **variables}

def timed(command, **variables):
    "Seconds that a command takes, and what it prints"
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode: raise SystemExit(f'{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}')
    return taken, done.stdout

@contextmanager
def busy_process():
    "Start a process that keeps one core busy, and stop it on exit"
    process = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try: yield process
    finally:
        process.kill()
        process.wait()

def train(busy=False, **variables):
    "Seconds of `bst_train` on the sample, and its table of figures"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-c', TRAIN, '--out', f'{folder}/run']
        if not busy: taken, printed = timed(command, **variables)
        else:
            with busy_process(): taken, printed = timed(command, **variables)
    return taken, printed[printed.index('protocol:'):printed.index('trained ')]

def training_job(repeat):
    "Rows for training on the sample; the figures of the model must be the same in every variant"
    ways = {ALONE: train, BUSY: partial(train, busy=True), PATIENT: partial(train, busy=True, GOMP_SPINCOUNT='300000')}
    found = alternate(ways, repeat, 'training')
    must_equal('the figures', *((results[0][1], found[ALONE][0][1]) for results in found.values()))
    seconds = {name: [taken for taken, _ in results] for name, results in found.items()}
    yield from table('sample: bst_train', 's', seconds, [ALONE])

def tests_job(repeat):
    "Rows for the tests of all notebooks"
    command = [str(Path(sys.executable).with_name('nbdev_test'))]
    ways = {ONE_THREAD: lambda: timed(command, OMP_NUM_THREADS='1')[0], NOTHING_SET: lambda: timed(command)[0]}
    yield from table('nbdev_test', 's', alternate(ways, repeat, 'tests'), [ONE_THREAD])

def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('results/threads.csv'), help='the result file (default: %(default)s)')
    parser.add_argument('--repeat', type=int, default=3, help='rounds (default: %(default)s)')
    parser.add_argument('--tests', action='store_true', help='measure the tests of the notebooks too, in one round')
    a = parser.parse_args(arguments)
    if a.repeat < 1: parser.error(f'--repeat must be at least 1, got {a.repeat}')
    try:
        check_writable(a.out.parent)
        about = dict(device=device_name('cpu', len(os.sched_getaffinity(0))), commit=source_commit())
        jobs = [partial(training_job, a.repeat)] + ([partial(tests_job, 1)] if a.tests else [])
        for job in jobs:
            rows = pd.DataFrame(job()).assign(**about).reindex(columns=COLUMNS)
            merge(a.out, rows)
            print(rows[COLUMNS[:6]].to_string(index=False, header=False, na_rep=''), flush=True)
    except BSTError as error: raise SystemExit(f'error: {error}') from error

if __name__ == '__main__': main()
