"""What a rating costs, from one million of them to 32: python benchmarks/scale.py

Sets of several sizes are made by make_large.py (in a folder beside each other, kept for the next time), and for each of them is measured:
preparing in memory and out of core, loading, splitting, cutting into batches, and training. Every measurement has a process of its own,
whose peak of memory is part of the result. Where a memory cgroup can be made (Linux, root), the process that prepares out of core
gets 1 GB and no more, and a row `limit` says so. The two ways to prepare must give equal files, or nothing is written.

    python benchmarks/scale.py --folder some/large/disk
    python benchmarks/scale.py --quick              # small sets, seconds; shown, but not written unless --out is given
"""
import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from make_large import RATINGS, make_large
from run import peak_memory

from bst_nbdev.core import BSTError, atomic_path, check_writable, device_name, file_digest, seed_everything, show_progress, source_commit

COLUMNS = ['ratings', 'work', 'value', 'unit', 'device', 'commit']
SIZES, QUICK = [10**6, 4 * 10**6, 16 * 10**6, RATINGS], [20_000, 40_000]
MEMORY, LIMIT = '1GB', 10**9  # of the out-of-core route: what it is told, and what it gets
SCRIPT = Path(__file__).resolve()

class Clock:
    "Seconds since it was last asked"
    def __init__(self): self.start = time.perf_counter()

    def __call__(self):
        before, self.start = self.start, time.perf_counter()
        return self.start - before


# --- Each in a process of its own: rows of (work, value, unit)

def prepare(a, memory=None):
    "From the CSV files to the prepared folder, with the command that people use"
    from bst_nbdev.cli import bst_prepare
    name, out = ('prepare out of core', a.data/'out_of_core') if memory else ('prepare', a.data/'prepared')
    shutil.rmtree(out, ignore_errors=True)
    clock = Clock()
    if bst_prepare(['--data', str(a.data/'csv'), '--out', str(out), *(['--memory', memory] if memory else [])]): sys.exit('bst_prepare failed')
    yield name, clock(), 's'

def start(a):
    "Load the prepared folder, split it, cut it into batches, and plan an epoch"
    from bst_nbdev.prepared import load_prepared
    from bst_nbdev.splits import make_split, seen_rows
    from bst_nbdev.presets import build_config, training_settings
    clock = Clock()
    data = load_prepared(a.data/'prepared')
    yield 'load', clock(), 's'
    split = make_split(data, 'temporal')
    yield 'split', clock(), 's'
    seen_rows(data, split, 256)
    yield 'seen rows', clock(), 's'
    config = build_config(data, 'rating')
    batches = config.batches(data, split, training_settings('rating', len(split.train))['batch_size'])
    yield 'batches', clock(), 's'
    batches['train'].plan(0)
    yield 'plan of an epoch', clock(), 's'

def train(a):
    "Labels per second of the preset `rating`, over steps whose batches come from all over the epoch, after a few to warm up"
    import torch
    from accelerate import Accelerator
    from bst_nbdev.prepared import load_prepared
    from bst_nbdev.training import average_weights, make_optimizer, make_schedule, train_epoch
    from bst_nbdev.pipeline import Recipe, build
    torch.set_num_threads(a.threads)
    seed_everything(0)
    recipe, data = Recipe(batch_size=a.batch_size), load_prepared(a.data/'prepared')
    split, batches, model = build(recipe, data, 'cpu')
    train, config = batches['train'], recipe.training(len(split.train))
    steps = config.epochs * len(train)
    optimizer = make_optimizer(model, config)
    schedule, averaged = make_schedule(optimizer, config, steps), average_weights(model, config.averaging, steps)
    batches, loss, rates = iter(train), model.config.compute_loss, []
    for n in range(a.warm_up + a.rounds):
        some = list(itertools.islice(batches, max(1, a.labels // config.batch_size)))
        if not some: break
        clock, busy = Clock(), time.process_time()
        train_epoch(model, some, loss, optimizer, schedule, Accelerator(cpu=True), config.clip, averaged)
        rates.append((sum(len(label) for _, label in some), clock(), time.process_time() - busy))
    labels, seconds, busy = map(sum, zip(*(rates[a.warm_up:] or rates)))
    name = 'train' if a.batch_size is None else f'train, batch {a.batch_size}'
    yield name, labels / seconds, 'labels/s'
    yield f'{name}: per second of a core', labels / busy, 'labels/s'                   # hardly moved by what else the machine does
    yield f'{name}: batch', config.batch_size, 'labels'
    yield f'{name}: parameters', sum(p.numel() for p in model.parameters()), 'parameters'

JOBS = {'prepare': prepare, 'prepare out of core': lambda a: prepare(a, MEMORY), 'start': start, 'train': train}

def work(a):
    "Do one job in this process, and print its rows"
    show_progress(False)
    rows = [list(row) for row in JOBS[a.job](a)]
    name = a.job if a.job != 'train' else rows[0][0]
    print(json.dumps([*rows, [f'{name}: memory', peak_memory(), 'MB']]))


# --- The command

@contextmanager
def limited(limit):
    "Yield a function that limits the memory of a new process, file pages included, or None where the kernel cannot do it"
    old, within = Path('/sys/fs/cgroup/memory'), None  # only there if the kernel has the first version of cgroups, which counts swap with the rest
    root, memory, swap = (old, 'limit_in_bytes', ('memsw.limit_in_bytes', limit)) if old.exists() else (old.parent, 'max', ('swap.max', 0))
    group = root/f'bst_nbdev-{os.getpid()}'
    try:
        group.mkdir()
        (group/f'memory.{memory}').write_text(str(limit))
        if (file := group/f'memory.{swap[0]}').exists(): file.write_text(str(swap[1]))
        within = lambda: (group/'cgroup.procs').write_text(str(os.getpid()))
    except OSError as error: print(f'memory is not limited, for that takes Linux, a memory cgroup and the right to make one: {error}', file=sys.stderr)
    try: yield within
    finally:
        if group.exists(): group.rmdir()

def fresh(job, data, *arguments, before=None):
    "Rows of a job that was done in a new process, in which `before` was called first"
    command = [sys.executable, str(SCRIPT), '--job', job, '--data', str(data), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, preexec_fn=before)
    if done.returncode: raise SystemExit(f'{job} of {data} failed')
    return json.loads(done.stdout.splitlines()[-1])

def same_files(a, b): return {p.name: file_digest(p) for p in a.iterdir()} == {p.name: file_digest(p) for p in b.iterdir()}

def measure(folder, ratings, a):
    "All rows of one size"
    data = folder/f'{ratings}'
    if not (data/'csv').exists(): make_large(data/'csv', ratings)
    yield from fresh('prepare', data)
    with limited(LIMIT) as within:
        yield from fresh('prepare out of core', data, before=within)
        if within: yield 'prepare out of core: limit', LIMIT / 10**6, 'MB'
    if not same_files(data/'prepared', data/'out_of_core'): raise SystemExit('nothing was written: the two ways to prepare differ')
    shutil.rmtree(data/'out_of_core')
    yield from fresh('start', data)
    training = ['--threads', a.threads, '--labels', a.labels, '--rounds', a.rounds, '--warm-up', a.warm_up]
    yield from fresh('train', data, *training)
    yield from fresh('train', data, *training, '--batch-size', 1024)

def merge(path, rows):
    "Put new rows in the place of old ones of the same size and work"
    if path.exists():
        old = pd.read_csv(path, dtype=dict(commit=str))
        same = old.set_index(['ratings', 'work']).index.isin(rows.set_index(['ratings', 'work']).index)
        rows = pd.concat([old[~same], rows])
    with atomic_path(path) as scratch: rows.sort_values('ratings', kind='stable').to_csv(scratch, index=False, float_format='%.5g')

def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', type=float, nargs='+', help='how many ratings (default: 1e6 4e6 16e6 and all of ML-32M)')
    parser.add_argument('--folder', type=Path, help='where the sets are made, and kept; some 3 GB for all (default: a temporary one)')
    parser.add_argument('--out', type=Path, help='the result file (default: results/scale.csv; with --quick, none)')
    parser.add_argument('--threads', type=int, default=2, help='threads of torch (default: %(default)s)')
    parser.add_argument('--labels', type=int, default=65_536, help='labels in a round of training (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=8, help='rounds that count (default: %(default)s)')
    parser.add_argument('--warm-up', type=int, default=2, help='rounds before (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='two small sets and little training, to try the command: its figures mean little')
    for name, kind in dict(job=str, data=Path, batch_size=int).items(): parser.add_argument(f'--{name.replace("_", "-")}', type=kind, help=argparse.SUPPRESS)
    a = parser.parse_args(arguments)
    for name in 'threads', 'labels', 'rounds':
        if getattr(a, name) < 1: parser.error(f'--{name} is {getattr(a, name)}: give 1 or more')
    if a.job: return work(a)
    if a.quick: a.labels, a.rounds, a.warm_up = 2048, 1, 0
    out = a.out or (None if a.quick else Path('results/scale.csv'))
    try:
        if out: check_writable(out.parent)
        with tempfile.TemporaryDirectory() as temporary:
            for ratings in a.sizes or (QUICK if a.quick else SIZES):
                rows = pd.DataFrame(measure(a.folder or Path(temporary), int(ratings), a), columns=COLUMNS[1:4])
                rows = rows.assign(ratings=int(ratings), device=device_name('cpu', a.threads), commit=source_commit())[COLUMNS]
                if out: merge(out, rows)
                print(rows[COLUMNS[:4]].to_string(index=False, header=False, float_format='{:.5g}'.format), flush=True)
    except BSTError as error: raise SystemExit(f'error: {error}') from error

if __name__ == '__main__': main()
