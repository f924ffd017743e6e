"""What was tried to train the preset `rating` faster, and what it gave: python benchmarks/speed.py --data ml-1m

First where the time goes (`profile`), then one change at a time: the model as it is and the changed one take turns, round after round, on the
same batches, and `ratio` is the median of the rounds' ratios. What needs a process of its own (threads, allocators) gets one, and so does its baseline.

    python benchmarks/speed.py --data ml-1m --preload jemalloc=/usr/lib/x86_64-linux-gnu/libjemalloc.so.2
    python benchmarks/speed.py --data sample --quick                # seconds; shown, but not written unless --out is given
"""
import argparse
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import run
import torch
from accelerate import Accelerator
from run import COLUMNS, Bf16, Planned, alternate, locate, merge, packed_pass, table
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from bst_nbdev.core import (BSTError, check_writable, device_name, progress, seed_everything,
                            show_progress, source_commit)
from bst_nbdev.prepared import load
from bst_nbdev.splits import make_split
from bst_nbdev.windows import RatingTensors
from bst_nbdev.packing import Chunks, PackedBatches, split_evenly
from bst_nbdev.two_stream import TwoStreamBlock
from bst_nbdev.presets import build_config, build_model, training_settings
from bst_nbdev.training import (TrainingConfig, average_weights, make_optimizer, make_schedule,
                                parameter_groups)

AS_IT_IS, BATCH = 'as it is', 1024
PARTS = {'products of matrices': ('mm', 'addmm', 'bmm', 'baddbmm'), 'copies': ('copy_', 'cat', 'clone'),
         'activation, softmax, layer norm': ('gelu', 'gelu_backward', '_softmax', '_softmax_backward_data', 'native_layer_norm', 'native_layer_norm_backward'),
         'look-ups in tables': ('index', 'index_select', 'gather', 'scatter_add_', 'embedding_dense_backward'),
         'random numbers': ('random_', 'rand', 'uniform_', 'bernoulli_'), 'optimizer': ('_fused_adamw_',)}

class Ground:
    "Data and batches that all trials share"
    def __init__(self, path, labels):
        self.data, self.count = load(path), labels
        self.rows, self.tensors, self.made = make_split(self.data, 'leave-last-out', 10).train, RatingTensors(self.data), {}

    def batches(self, chunk=None, min_history=None, size=BATCH, kind=PackedBatches):
        c, key = build_config(self.data, 'rating'), (chunk, min_history, size, kind)
        if key not in self.made:
            chunks = Chunks(self.data, self.rows, chunk or c.chunk, min_history or c.min_history, tensors=self.tensors)
            self.made[key] = Planned(kind(chunks, size, shuffle=True), self.count)
        return self.made[key]

class ByTotalLength(PackedBatches):
    "Batches as they were: sorted by the sum of both lengths, with more noise"
    def plan(self, epoch=0):
        generator = np.random.default_rng([self.seed, epoch])
        self.chunks.cut(generator.integers(0, self.chunks.chunk, int(self.chunks.user.max()) + 1))
        order = np.argsort((self.chunks.label_counts + self.chunks.history_lengths) * np.exp(.1 * generator.standard_normal(len(self.chunks))), kind='stable')
        batches = [order[part] for part in split_evenly(self.batch_shares()[order], self.num_batches)]
        return [batches[i] for i in generator.permutation(len(batches))]

# --- Trials: each gives labels per second

def train(ground, batches=None, change=lambda model: model, **changes):
    "One pass, after a change of the model"
    seed_everything(0)
    return packed_pass(batches or ground.batches(), change(build_model(ground.data, 'rating')), BATCH, **changes)

@contextmanager
def replaced(owner, name, value):
    "Give an attribute another value for the time of a block"
    before = getattr(owner, name)
    setattr(owner, name, value)
    try: yield
    finally: setattr(owner, name, before)

def fused_attention(self, x, key_value, bias):
    query, (key, value) = self.split_heads(self.query(self.norm1(x)))[0], key_value
    mixed = F.scaled_dot_product_attention(*(y.unflatten(0, (self.heads, -1)) for y in (query, key, value)), attn_mask=bias)
    return self.feed_forward(x + self.dropout(self.out(mixed.permute(1, 2, 0, 3).flatten(2))))

def with_method(ground, owner, name, value):
    with replaced(owner, name, value): return train(ground)

def with_optimizer(ground, **way):
    def make_adamw(model, config):
        return torch.optim.AdamW(parameter_groups(model, config), lr=config.learning_rate, betas=(.9, config.beta2), **way)
    with replaced(run, 'make_optimizer', make_adamw): return train(ground)  # `packed_pass` is in `run`

def with_precision(ground, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try: return train(ground)
    finally: torch.set_float32_matmul_precision(before)

def without_dropout(model):
    for layer in model.modules():
        if isinstance(layer, nn.Dropout): layer.p = 0.
    return model

COMPILED = {}

def compiled(ground):
    "Compiled once, when it is first called: that round does not count"
    if not COMPILED:
        COMPILED['model'] = torch.compile(build_model(ground.data, 'rating'), dynamic=True)
        packed_pass(ground.batches(), COMPILED['model'], BATCH)
    return packed_pass(ground.batches(), COMPILED['model'], BATCH)

TRIALS = {
    'batches sorted by total length': lambda g: train(g, g.batches(kind=ByTotalLength)),
    'no dropout, to see its price': lambda g: train(g, change=without_dropout),
    'scaled_dot_product_attention': partial(with_method, owner=TwoStreamBlock, name='forward', value=fused_attention),
    'AdamW, one parameter at a time': partial(with_optimizer, foreach=False),
    'AdamW, many at a time (foreach)': partial(with_optimizer, foreach=True),
    'no limit on the gradient, to see its price': lambda g: train(g, clip=0.),
    'float32 products in medium precision': partial(with_precision, precision='medium'),
    'bf16 (autocast)': lambda g: train(g, change=Bf16),
    'torch.compile': compiled}
SHAPES = {f'chunks of {chunk}, history of {min_history}': (chunk, min_history) for min_history, chunks in ((9, (24, 32, 48, 64)), (128, (64, 256))) for chunk in chunks}
SIZES = (256, 512, 2048, 4096)

def trials_job(ground, repeat, only):
    "Rows of everything that runs in this process"
    measures = {AS_IT_IS: train} | {name: trial for name, trial in TRIALS.items() if only in name}
    measures |= {name: lambda g, s=shape: train(g, g.batches(*s)) for name, shape in SHAPES.items() if only in name}
    measures |= {f'batches of {n}': lambda g, n=n: train(g, g.batches(size=n)) for n in SIZES if only in f'batches of {n}'}
    if len(measures) == 1: return
    for measure in measures.values(): measure(ground)                                      # warm
    found = alternate({name: partial(measure, ground) for name, measure in measures.items()}, repeat, 'trials')
    yield from table('training rating', 'labels/s', {name: values for name, values in found.items()}, [AS_IT_IS])

# --- Where the time goes

def profile_job(ground, repeat, only):
    "Share of a step's parts, and of the kinds of work in it"
    if only not in 'profile': return
    data, c = ground.data, TrainingConfig(**training_settings('rating', 10**6))
    model, batches, accelerator = build_model(data, 'rating'), ground.batches(), Accelerator(cpu=True)
    optimizer, loss, averaged = make_optimizer(model, c), model.config.compute_loss, average_weights(model, .1, 1000)
    schedule, spent = make_schedule(optimizer, c, 10**6), {}
    def section(name, function):
        start = time.perf_counter()
        found = function()
        spent[name] = spent.get(name, 0.) + time.perf_counter() - start
        return found
    def steps():
        source = iter(batches)
        for _ in range(len(batches)):
            inputs, label = section('data', lambda: next(source))
            value = section('forward', lambda: loss(model(**inputs), label))
            section('backward', lambda: (optimizer.zero_grad(), accelerator.backward(value)))
            section('gradient norm', lambda: accelerator.clip_grad_norm_(model.parameters(), c.clip))
            section('optimizer', lambda: (optimizer.step(), schedule.step()))
            section('averaged weights', lambda: averaged.update_parameters(model))
    steps()
    spent.clear()
    for _ in range(repeat): steps()
    yield from table('profile, parts of a step', '%', {name: [100 * s / sum(spent.values())] for name, s in spent.items()})
    with profile(activities=[ProfilerActivity.CPU]) as seen: steps()
    events = {event.key.removeprefix('aten::'): event.self_cpu_time_total for event in seen.key_averages()}
    whole = sum(events.values())
    shares = {part: [100 * sum(events.get(name, 0.) for name in names) / whole] for part, names in PARTS.items()}
    yield from table('profile, kinds of work', '%', shares | {'everything else': [100 - sum(s for s, in shares.values())]})

# --- What needs a process of its own

def worker(path, labels, threads):
    "Labels per second of the preset `rating` for each line on stdin"
    show_progress(False)
    torch.set_num_threads(threads)
    ground = Ground(path, labels)
    train(ground)
    print('ready', flush=True)
    for _ in sys.stdin: print(train(ground), flush=True)

def processes_job(path, labels, threads, preload, repeat):
    "Rows of what is set before a process starts: the number of threads, and how memory is allocated"
    ways = {AS_IT_IS: (threads, {}), 'glibc keeps freed memory': (threads, dict(MALLOC_TRIM_THRESHOLD_='1000000000', MALLOC_MMAP_THRESHOLD_='1000000000')),
            **({'one thread': (1, {})} if threads > 1 else {}),
            **{name: (threads, dict(LD_PRELOAD=library)) for name, library in preload.items()}}
    running = {}
    try:
        for name, (count, variables) in ways.items():
            command = [sys.executable, __file__, '--worker', '--data', str(path), '--labels', str(labels), '--threads', str(count)]
            running[name] = subprocess.Popen(command, env={**os.environ, **variables, 'OMP_NUM_THREADS': str(count)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if running[name].stdout.readline() != 'ready\n': raise SystemExit(f'{name}: the process ended before it was ready')
        def measure(process):
            print(file=process.stdin, flush=True)
            return float(process.stdout.readline())
        found = alternate({name: partial(measure, process) for name, process in running.items()}, repeat, 'processes')
        yield from table('training rating, in processes of their own', 'labels/s', found, [AS_IT_IS])
    finally:
        for process in running.values(): process.communicate()

def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m', help='ml-1m, sample, or a .zip or folder like that of ml-1m (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='the result file (default: results/speed.csv; with --quick, none)')
    parser.add_argument('--only', default='', help="only trials whose name has this in it; 'profile' and 'processes' are names too")
    parser.add_argument('--preload', nargs='*', default=[], metavar='NAME=LIBRARY', help='memory allocators to try, by the path of their shared library')
    parser.add_argument('--repeat', type=int, default=5, help='rounds (default: %(default)s)')
    parser.add_argument('--labels', type=int, default=12_288, help='labels in a pass (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch (default: %(default)s, all cores)')
    parser.add_argument('--quick', action='store_true', help='one round of few labels, to try the command: its figures mean little')
    parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
    a = parser.parse_args(arguments)
    for name in 'repeat', 'labels', 'threads':
        if getattr(a, name) < 1: parser.error(f'--{name} is {getattr(a, name)}: give 1 or more')
    if a.worker: return worker(a.data, a.labels, a.threads)
    preload = dict(pair.partition('=')[::2] for pair in a.preload)
    for name, library in preload.items():
        if not Path(library).is_file(): parser.error(f'--preload {name}: there is no file {library!r}')
    out, repeat, labels = a.out or (None if a.quick else Path('results/speed.csv')), 1 if a.quick else a.repeat, min(a.labels, 2048) if a.quick else a.labels
    try:
        if out: check_writable(out.parent)
        torch.set_num_threads(a.threads)
        path = locate(a.data)
        ground, about = Ground(path, labels), dict(device=device_name('cpu', a.threads), commit=source_commit())
        jobs = [partial(profile_job, ground, repeat, a.only), partial(trials_job, ground, repeat, a.only)]
        if a.only in 'processes': jobs.append(partial(processes_job, path, labels, a.threads, preload, repeat))
        for job in progress(jobs, 'jobs'):
            rows = pd.DataFrame(job(), columns=COLUMNS[:6]).assign(**about)
            if rows.empty: continue
            rows['work'] = f'{ground.data.name}: ' + rows['work']
            if out: merge(out, rows)
            print(rows[COLUMNS[:6]].to_string(index=False, header=False, na_rep='', float_format='{:.4g}'.format), flush=True)
    except BSTError as error: raise SystemExit(f'error: {error}') from error

if __name__ == '__main__': main()
