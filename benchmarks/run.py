"""Measure speed and memory and write results/benchmark.csv.

    python benchmarks/run.py --data ml-1m
    python benchmarks/run.py --data ml-1m --only training     # a part; other rows of the file stay
    python benchmarks/run.py --data sample --quick            # seconds; shown, but not written unless --out is given
    python benchmarks/run.py --list

Every work is done by several variants, in turn, round after round, so that a busy moment of the machine hits all of them.
Before anything is timed, the variants must have given the same result. `value` is the median of the rounds, and `ratio` the
median of the rounds' ratios: how many times better (faster, or smaller) the variant is than its `baseline`.
"""
import argparse
import gc
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from naive import naive_windows
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from bst_nbdev.core import (BSTError, DataError, atomic_path, check_writable, device_name, progress,
                            seed_everything, show_progress, source_commit)
from bst_nbdev.data import from_frame
from bst_nbdev.movielens import find_layout, open_files, read_movielens
from bst_nbdev.prepared import find_data, load, load_prepared, save_prepared
from bst_nbdev.splits import make_split, window_targets
from bst_nbdev.windows import Batches, RatingTensors, Windows, make_batches
from bst_nbdev.packing import Chunks, PackedBatches
from bst_nbdev.top_items import top_items
from bst_nbdev.presets import PRESETS, build_config, build_model, training_settings
from bst_nbdev.training import (TrainingConfig, average_weights, make_optimizer, make_schedule, predict,
                                train_epoch)
from bst_nbdev.evaluation import compare, evaluate_model, fit_model
from bst_nbdev.pipeline import Recipe, Run, build, choose_device
from bst_nbdev.recommender import Recommender

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ['work', 'variant', 'value', 'unit', 'ratio', 'baseline', 'device', 'commit']
HIGHER_IS_BETTER = {'examples/s': True, 'labels/s': True, 'users/s': True, 's': False, 'ms': False, 'MB': False}  # other units have no ratio
OURS, NAIVE, FRAME, ARRAYS = 'bst_nbdev', 'naive route', 'per-example Dataset, DataFrame', 'per-example Dataset, arrays'

@dataclass(frozen=True)
class Setting:
    "What a measurement needs to know"
    path: Path  # Folder or archive in the layout of ml-1m
    repeat: int  # Rounds
    windows: int  # Windows in a timed pass of training or evaluation
    threads: int  # Threads of torch
    device: str = 'cpu'  # Where the job `device` trains


# --- Measuring

def seconds(function, times=1):
    "How long a call takes: the median of a few times"
    taken = []
    for _ in range(times):
        gc.collect()
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)

def alternate(measures, repeat, description=''):
    "Call each of the functions in turn, round after round: {variant: [what it returned in each round]}"
    found = {variant: [] for variant in measures}
    for _ in progress(range(repeat), description, unit='round'):
        for variant, measure in measures.items(): found[variant].append(measure())
    return found

def table(work, unit, found, baselines=()):
    "Rows of one work. A variant has a row for each of the `baselines` that stand before it in `found`"
    rows, before = [], []
    for variant, values in found.items():
        value = dict(work=work, variant=variant, value=statistics.median(values), unit=unit)
        if not before: rows.append(value)
        for baseline in before:
            ratios = [a / b if HIGHER_IS_BETTER[unit] else b / a for a, b in zip(values, found[baseline])]
            rows.append(dict(value, ratio=statistics.median(ratios), baseline=baseline))
        if variant in baselines: before.append(variant)
    return rows

def must_equal(what, *pairs):
    "Figures of variants that do different things would mean nothing"
    for ours, theirs in pairs:
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if ours.shape != theirs.shape or not (ours == theirs).all(): raise SystemExit(f'nothing was measured: {what} differ')


# --- The usual ways, to compare with

class FrameDataset(Dataset):
    "As in public notebooks: a row of a DataFrame per window, looked up one by one, and a tensor for each of its fields"
    def __init__(self, inputs, label):
        self.dtypes = {name: x.dtype for name, x in inputs.items()} | {'label': label.dtype}
        self.frame = pd.DataFrame({name: x.tolist() for name, x in inputs.items()} | {'label': label.tolist()})

    def __len__(self): return len(self.frame)

    def __getitem__(self, index):
        row = self.frame.iloc[index].to_dict()
        example = {name: torch.tensor(value, dtype=self.dtypes[name]) for name, value in row.items()}
        label = example.pop('label')
        return example, label

class ArrayDataset(Dataset):
    "As good as a look-up one by one can be: the windows lie ready in arrays"
    def __init__(self, inputs, label): self.inputs, self.label = {name: np.asarray(x) for name, x in inputs.items()}, np.asarray(label)

    def __len__(self): return len(self.label)

    def __getitem__(self, index): return {name: x[index] for name, x in self.inputs.items()}, self.label[index]

def loaders(windows, batch_size, shuffle):
    "Batch the same windows by each variant"
    everything = windows[torch.arange(len(windows))]
    own = lambda: torch.Generator()  # or the loader would draw from the one that dropout uses
    one_by_one = lambda kind: DataLoader(kind(*everything), batch_size, shuffle, generator=own())
    return {FRAME: one_by_one(FrameDataset), ARRAYS: one_by_one(ArrayDataset), OURS: Batches(windows, batch_size, shuffle)}



# --- From file to first batch

@contextmanager
def unpacked(path):
    "Yield the folder with the files; unpack an archive, and remove its files on exit"
    if path.is_dir(): yield path
    else:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(path) as archive: archive.extractall(folder)
            yield next(Path(folder).rglob('ratings.dat')).parent

def all_windows(path, length, step):
    "User (W), items (W, L) and ratings (W, L) of all windows that are full, as arrays"
    data = read_movielens(path)
    targets = window_targets(data.offsets, length, step)
    rows = targets[:, None] + np.arange(1 - length, 1)
    rows = rows[rows[:, 0] >= data.offsets[data.user[targets]]]
    return data, data.user[rows[:, -1]], data.item[rows], data.rating[rows]

def first_batch(data, length, step, batch_size):
    "Return (inputs, label) of the first training batch"
    return next(iter(make_batches(data, make_split(data, 'random-windows', length, step), length, batch_size)['train']))

def naive_first_batch(user, item, rating, batch_size):
    "Return the first training batch of windows from the naive route"
    train = np.random.default_rng(0).random(len(user)) < .85
    inputs = dict(user=user[train], item=item[train], rating=rating[train, :-1])
    return next(iter(DataLoader(ArrayDataset(inputs, rating[train, -1]), batch_size, shuffle=True)))

def data_job(setting, data, length=4, step=2, batch_size=128):
    "Measure the way from a file to all windows and to the first batch; the naive route runs once for both"
    def by_naive_route():
        start = time.perf_counter()
        with unpacked(setting.path) as folder: found = naive_windows(folder, length, step)
        middle = time.perf_counter()
        naive_first_batch(*found, batch_size)
        return middle - start, time.perf_counter() - start

    with unpacked(setting.path) as folder: user, item, rating = naive_windows(folder, length, step)
    data, *ours = all_windows(setting.path, length, step)
    must_equal('the windows', (data.users.decode(ours[0]), user), (data.items.decode(ours[1]), item), (ours[2], rating))
    windows = Windows(data, window_targets(data.offsets, length, step), length)
    inputs, label = windows[torch.arange(len(windows))]
    full = ~inputs['padding_mask'].any(1)
    history, target = rating[:, :-1], rating[:, -1]
    must_equal('the batches', (data.items.decode(inputs['item'][full]), item), (inputs['rating'][full, :-1], history),
               (label[full], target))
    del user, item, rating, history, target, ours, windows, inputs, label

    with tempfile.TemporaryDirectory() as folder:
        prepared = save_prepared(data, Path(folder)/'prepared')
        to_windows = lambda: all_windows(setting.path, length, step)
        from_file = lambda: first_batch(load(setting.path), length, step, batch_size)
        from_prepared = lambda: first_batch(load_prepared(prepared), length, step, batch_size)
        ours = lambda: [seconds(way, times=3) for way in (to_windows, from_file, from_prepared)]
        found = alternate({NAIVE: by_naive_route, OURS: ours}, setting.repeat, 'data')
    columns = {variant: list(zip(*values)) for variant, values in found.items()}
    what = f'length {length}, step {step}'
    yield from table(f'file to all windows, {what}', 's', {NAIVE: columns[NAIVE][0], OURS: columns[OURS][0]}, [NAIVE])
    yield from table(f'file to first batch, {what}, batch {batch_size}', 's',
                     {NAIVE: columns[NAIVE][1], OURS: columns[OURS][1], f'{OURS}, prepared folder': columns[OURS][2]}, [NAIVE])


# --- Training and evaluation

def some_windows(data, rows, length, count):
    "Windows of at most `count` of the targets, drawn at random"
    rows = np.random.default_rng(0).permutation(rows)[:count]
    return Windows(data, np.sort(rows), length)

def train_pass(data, preset, length, batches, optimizer=None):
    "Seconds, and mean loss, of one pass over the batches with a fresh model"
    seed_everything(0)
    config = TrainingConfig(**{**PRESETS[preset].training, 'schedule': 'constant'})
    model = build_model(data, preset, sequence_length=length)
    optimizer = (optimizer or (lambda model: make_optimizer(model, config)))(model)
    accelerator = Accelerator(cpu=True)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, make_schedule(optimizer, config, len(batches)))
    gc.collect()
    start = time.perf_counter()
    loss = train_epoch(model, batches, model.config.compute_loss, optimizer, schedule, accelerator, config.clip)
    return time.perf_counter() - start, loss

def check_loaders(data, preset, length, batch_size, rows):
    "Make sure that all variants hand out the same batches and lead to the same loss, when nothing is shuffled"
    found = loaders(some_windows(data, rows, length, batch_size + 7), batch_size, shuffle=False)
    _, loss = train_pass(data, preset, length, found[OURS])
    for name in FRAME, ARRAYS:
        for (ours, label), (theirs, their_label) in zip(found[OURS], found[name], strict=True):
            inputs = [(list(ours), list(theirs)), *((ours[k], theirs[k]) for k in ours)]
            must_equal(f'the batches of {OURS} and {name}', *inputs, (label, their_label))
        must_equal(f'the losses of {OURS} and {name}', (round(loss, 4), round(train_pass(data, preset, length, found[name])[1], 4)))

def training_job(setting, data, preset, length, batch_size):
    "Throughput of training with the same network, optimizer and loss, and what part of the time the data take"
    rows = make_split(data, 'random-windows', length).train
    check_loaders(data, preset, length, batch_size, rows)
    windows = some_windows(data, rows, length, setting.windows)
    variants = loaders(windows, batch_size, shuffle=True)
    measure = lambda batches: lambda: (train_pass(data, preset, length, batches)[0], seconds(lambda: list(batches)))
    found = alternate({name: measure(batches) for name, batches in variants.items()}, setting.repeat, f'training {preset}')
    what = f'training, {preset}, length {length}, batch {batch_size}'
    rate = lambda at: {name: [len(windows) / taken[at] for taken in rounds] for name, rounds in found.items()}
    share = {name: [100 * alone / whole for whole, alone in rounds] for name, rounds in found.items()}
    yield from table(what, 'examples/s', rate(0), [FRAME, ARRAYS])
    yield from table(f'{what}: batches alone', 'examples/s', rate(1), [FRAME, ARRAYS])
    yield from table(f'{what}: share of the data', '%', share)

def evaluation_job(setting, data, preset, length, batch_size=1024):
    "Throughput of answering for a part"
    rows = make_split(data, 'random-windows', length).test
    check_loaders(data, preset, length, batch_size, rows)
    windows = some_windows(data, rows, length, setting.windows)
    model = build_model(data, preset, sequence_length=length)
    variants = loaders(windows, batch_size, shuffle=False)
    measure = lambda batches: lambda: len(windows) / seconds(lambda: predict(model, batches))
    found = alternate({name: measure(batches) for name, batches in variants.items()}, setting.repeat, f'evaluation {preset}')
    yield from table(f'evaluation, {preset}, length {length}, batch {batch_size}', 'examples/s', found, [FRAME, ARRAYS])

def optimizer_job(setting, data, preset, length, kind, batch_size=128):
    "Throughput of training by how the optimizer walks through the parameters"
    windows = some_windows(data, make_split(data, 'random-windows', length).train, length, setting.windows)
    ways = {'one parameter at a time': dict(foreach=False), 'many at a time (foreach)': dict(foreach=True),
            'in one call (fused)': dict(fused=True)}
    make = lambda way: lambda model: kind(model.parameters(), lr=.001, **way)
    measure = lambda way: lambda: len(windows) / train_pass(data, preset, length, Batches(windows, batch_size, shuffle=True), make(way))[0]
    found = alternate({name: measure(way) for name, way in ways.items()}, setting.repeat, f'optimizer {kind.__name__}')
    yield from table(f'optimizer {kind.__name__}, {preset}, length {length}, batch {batch_size}', 'examples/s', found, list(ways)[:1])


# --- One history, many questions

class Planned:
    "The first batches of a shuffled pass, whose plan is made already: companions and padding are those of a whole pass"
    def __init__(self, batches, labels):
        self.chunks, self.numbers, self.labels = batches.chunks, [], 0
        for numbers in batches.plan():
            if self.labels >= labels: break
            self.numbers.append(torch.from_numpy(numbers).to(self.chunks.targets.device))
            self.labels += int(self.chunks.label_counts[numbers].sum())

    def __len__(self): return len(self.numbers)

    def __iter__(self): return (self.chunks[numbers] for numbers in self.numbers)

def synchronize(device):
    "Wait until an accelerator has done what it was given"
    if str(device) != 'cpu': getattr(torch, torch.device(device).type).synchronize()

class Bf16(torch.nn.Module):
    "A model whose products are of 16-bit floats (autocast); its answers are float32"
    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, **inputs):
        with torch.autocast(inputs['item'].device.type, torch.bfloat16): return self.model(**inputs).float()

def packed_pass(batches, model, size, device='cpu', **changes):
    "Labels per second of a training pass of ours"
    config = TrainingConfig(**{**training_settings('rating', 10**6), 'batch_size': size, 'schedule': 'constant', **changes})
    accelerator, optimizer = Accelerator(cpu=str(device) == 'cpu'), make_optimizer(model, config)
    loss, schedule = model.config.compute_loss, make_schedule(optimizer, config, 1)
    synchronize(device)
    start = time.perf_counter()
    train_epoch(model, batches, loss, optimizer, schedule, accelerator, config.clip)
    synchronize(device)
    return batches.labels / (time.perf_counter() - start)

def packed_job(setting, data, length=10, chunks=(32, 64), batch_sizes=(1024, 4096)):
    """Throughput of the same network when it is trained in windows of one target, and in chunks where every place is one

    By `leave-last-out`, where all ratings but a user's last two are labels; the last row has the longer history of the preset. A pass is
    the beginning of one over all ratings.
    """
    rows, tensors = make_split(data, 'leave-last-out', length).train, RatingTensors(data)
    c = build_config(data, 'rating')
    few, many = setting.windows, 4 * setting.windows                                    # chunks are faster, so they get more to do
    variants = {f'windows of {length}': (1, length - 1, few)}
    for chunk, min_history in [*((chunk, length - 1) for chunk in chunks), (c.chunk, c.min_history)]:
        variants[f'{OURS}, chunks of {chunk}, history of {min_history}'] = chunk, min_history, many
    for size in batch_sizes:
        def measure(places, min_history, labels):
            batches = Planned(PackedBatches(Chunks(data, rows, places, min_history, tensors=tensors), size, shuffle=True), labels)
            def run():
                seed_everything(0)
                return packed_pass(batches, build_model(data, 'rating'), size)
            return run
        found = alternate({name: measure(*how) for name, how in variants.items()}, setting.repeat, f'packed, {size}')
        yield from table(f'training, rating, batch {size}, windows or chunks', 'examples/s', found, list(variants)[:1])

def catalogue_job(setting, data, calls=100, by_item=64):
    "All items for one user, drawn at random or with the longest history there is: half and 99 % of the calls are at least this quick"
    model = build_model(data, 'rating').eval()
    c, users = model.config, np.flatnonzero(np.diff(data.offsets) > 1)
    longest = users[np.argsort(-np.diff(data.offsets)[users], kind='stable')[:20]]
    drawn = np.random.default_rng(0).permutation(users)[:calls]
    def histories(users):
        chunks = Chunks(data, np.sort(data.offsets[users + 1] - 1), 1, c.chunk + c.min_history)
        return [chunks[torch.tensor([n])][0] for n in range(len(chunks))]
    items = torch.arange(len(data.items))[None]
    def catalogue(h):
        memory = model.encode(**h)
        return model.decode(memory, items, model.streams.questions(memory, h['target_time'], h['target_position']))[0]
    def one(h, item): return model(**{**h, 'target_item': torch.tensor([[item]])})
    def each(h, count): return [one(h, item) for item in range(count)]
    with torch.inference_mode():
        for who, asked in (f'with {c.chunk + c.min_history} ratings', histories(longest)), ('drawn at random', histories(drawn)):
            scores = catalogue(asked[0])
            if not torch.allclose(scores[:by_item], torch.cat(each(asked[0], by_item)), atol=1e-5): raise SystemExit('nothing was measured: answers differ')
            def timed(function, count):
                taken = [seconds(lambda: function(asked[n % len(asked)])) * 1e3 for n in range(count)]
                return np.quantile(taken, [.5, .99])
            share = len(data.items) / by_item
            measures = {'item by item': lambda: timed(lambda h: each(h, by_item), 5) * share, OURS: lambda: timed(catalogue, calls)}
            found = alternate(measures, setting.repeat, f'catalogue, users {who}')
            for at, what in enumerate(('half of the calls', '99 % of the calls')):
                rows = {name: [float(values[at]) for values in rounds] for name, rounds in found.items()}
                yield from table(f'whole catalogue for one user {who}, {what}', 'ms', rows, ['item by item'])


def untrained(data, source, preset='default'):
    "Make an untrained recommender: its predictions mean nothing, and take as long as any other's"
    recipe = Recipe(str(source), preset, 'leave-last-out')
    split, _, model = build(recipe, data)
    history, scores = pd.DataFrame(dict(epoch=[1], best=[True])), pd.DataFrame([dict(protocol=recipe.protocol, model='untrained', part='test')])
    return Recommender.from_run(Run(recipe, data, split, model.eval(), history, scores, 0., 'cpu'))

def half_of_calls(function, asked):
    "Milliseconds in which half of the calls are done, each with one of the arguments"
    return float(np.median([seconds(lambda: function(one)) * 1e3 for one in asked]))

def recommend_job(setting, data, calls=50, users=1000):
    "`recommend` against the model's own time for the same history, and the top 10 of many users in one call"
    recommender = untrained(data, setting.path)
    known = [int(user) for user in np.random.default_rng(0).permutation(data.users.ids)[:users]]
    histories, allowed = [recommender.users.history(user) for user in known[:calls]], recommender.network.known_items
    alone = 'the model alone (top_items)'
    measures = {alone: lambda: half_of_calls(lambda h: top_items(recommender.network, [h], allowed), histories),
                f'{OURS}, recommend': lambda: half_of_calls(lambda user: recommender.recommend(user, 10), known[:calls])}
    yield from table('top 10 of the whole catalogue for one user, half of the calls', 'ms', alternate(measures, setting.repeat, 'recommend'), [alone])
    many = {f'{OURS}, recommend_many': lambda: users / seconds(lambda: recommender.recommend_many(known, 10))}
    yield from table(f'top 10 of {users:,} users in one call', 'users/s', alternate(many, min(setting.repeat, 3), 'recommend_many'))

ANSWERS = {'rating': 'rating, by the expected rating', 'both': 'both, by liked'}  # preset: name of the variant

def made_up_catalogue(data, items):
    "Make data with the same users, times and ratings, and many made-up items, of which neighbouring ratings have neighbours"
    number = np.arange(1, items + 1)
    genre = np.array(data.genre_names or ['none'])[number % max(len(data.genre_names), 1)]
    films = pd.DataFrame(dict(item=number, title=[f'Film {n} ({1950 + n % 60})' for n in number], genres=genre, year=1950 + number % 60))
    ratings = dict(user=data.users.decode(data.user), item=number[np.arange(len(data)) % items], rating=data.rating, timestamp=data.timestamp)
    return from_frame(pd.DataFrame(ratings), items=films, name=f'{items:,} items')

def answers_job(setting, data, calls=50, users=1000, items=60_000, size=1024):
    "Measure lists and an epoch of training of the preset with both answers, against the one that only rates"
    calls, users = max(min(calls, setting.windows // 256), 1), min(users, setting.windows // 12)                # fewer to try the command
    def known(data, count): return [int(user) for user in np.random.default_rng(0).permutation(data.users.ids)[:count]]
    def in_turn(measure, repeat, description):
        return alternate({ANSWERS[preset]: partial(measure, preset) for preset in ANSWERS}, repeat, description)
    rating = [ANSWERS['rating']]
    large = made_up_catalogue(data, items)
    for what, ratings in ('the whole catalogue', data), (f'{items:,} made-up items', large):
        made = {preset: untrained(ratings, setting.path, preset) for preset in ANSWERS}
        asked = known(ratings, calls)
        found = in_turn(lambda preset: half_of_calls(lambda user: made[preset].recommend(user, 10), asked), setting.repeat, what)
        yield from table(f'answers, top 10 of {what} for one user, half of the calls', 'ms', found, rating)
        if ratings is large: continue
        asked = known(ratings, users)
        found = in_turn(lambda preset: len(asked) / seconds(lambda: made[preset].recommend_many(asked, 10)), min(setting.repeat, 3), 'recommend_many')
        yield from table(f'answers, top 10 of {len(asked):,} users in one call', 'users/s', found, rating)
    c, rows = build_config(data, 'rating'), make_split(data, 'leave-last-out', 10).train
    chunks = Chunks(data, rows, c.chunk, c.min_history, tensors=RatingTensors(data))
    batches = Planned(PackedBatches(chunks, size, shuffle=True), 4 * setting.windows)
    def train(preset):
        seed_everything(0)
        return packed_pass(batches, build_model(data, preset), size)
    for preset in ANSWERS: train(preset)                                                                       # warm
    yield from table(f'answers, training, batch {size}', 'labels/s', in_turn(train, setting.repeat, 'training'), rating)


# --- On an accelerator, or any device

def measured_peak(device, dtype, size=4096, calls=10):
    "Floating-point operations per second of a large product of matrices: the most that this device does"
    size = size if str(device) != 'cpu' else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    def product():
        a @ b
        synchronize(device)
    product()
    return 2 * size ** 3 / min(seconds(product) for _ in range(calls))

def operations(model, loss, inputs, label):
    "Floating-point operations of a training step's products, forward and backward"
    with FlopCounterMode(display=False) as counter: loss(model(**inputs), label).backward()
    model.zero_grad()
    return counter.get_total_flops()

def time_to(data, device, goal, every=100):
    "(seconds of training, best MAE of the median) of the preset `rating` by `random-windows`, measured on validation, until the goal or its last epoch"
    recipe = Recipe('', 'rating', 'random-windows', 10)
    split, batches, model = build(recipe, data, device)
    config, loss = recipe.training(len(split.train)), model.config.compute_loss
    steps, optimizer, accelerator = config.epochs * len(batches['train']), make_optimizer(model, config), Accelerator(cpu=str(device) == 'cpu')
    averaged = average_weights(model, config.averaging, steps)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, make_schedule(optimizer, config, steps))
    best, taken = float('inf'), 0.
    for _ in range(config.epochs):
        source, left = iter(batches['train']), len(batches['train'])
        while left:
            start = time.perf_counter()
            few = list(islice(source, every))
            train_epoch(model, few, loss, optimizer, schedule, accelerator, config.clip, averaged)
            synchronize(device)
            taken, left = taken + time.perf_counter() - start, left - len(few)
            best = min(best, evaluate_model(averaged.module, batches['validation'])['mae'])
            if best <= goal: return taken, best
    return taken, best

def device_job(setting, data, size=4096, goal=.6487, every=100):
    "Measure the preset `rating` on one device: labels per second, share of the device's peak, and time to the published MAE"
    rows, device = make_split(data, 'leave-last-out', 10).train, setting.device
    tensors, c = RatingTensors(data, device), build_config(data, 'rating')
    labels = setting.windows * (1 if device == 'cpu' else 40)
    batches = Planned(PackedBatches(Chunks(data, rows, c.chunk, c.min_history, tensors=tensors), size, shuffle=True), labels)
    seed_everything(0)
    model = build_model(data, 'rating').to(device)
    inputs, label = next(iter(batches))
    step, peak = operations(model, c.compute_loss, inputs, label) / len(label), measured_peak(device, torch.float32)
    ways = {'float32': lambda model: model} | ({'bf16': Bf16} if device != 'cpu' else {})
    for precision, way in ways.items():
        named = f'device, training, rating, batch {size}, {precision}'
        measure = lambda: packed_pass(batches, way(build_model(data, 'rating').to(device)), size, device)
        measure()                                                                                                  # warm
        rates = [measure() for _ in range(setting.repeat)]
        yield from table(named, 'examples/s', {OURS: rates})
        yield from table(f'{named}: share of the peak in float32', '%', {OURS: [100 * rate * step / peak for rate in rates]})
    yield from table('device, peak, product of matrices in float32', 'GFLOP/s', {'torch': [peak / 1e9]})
    taken, best = time_to(data, device, goal, every)
    if best <= goal: yield from table(f'device, training time to MAE {goal} on validation by random-windows', 's', {OURS: [taken]})
    else: print(f'{data.name}: MAE {goal} was not reached; the best was {best:.4f}, after {taken:.0f} s')


# --- Memory

def peak_memory():
    "Largest resident memory of this process so far, in MB (10**6 bytes)"
    status = Path('/proc/self/status')  # on Linux, because its getrusage counts the parent process in
    if status.exists(): return int(re.search(r'VmHWM:\s+(\d+) kB', status.read_text())[1]) * 1024 / 1e6
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == 'Darwin' else 1024) / 1e6

class FirstBatches:
    "Only the first few of some batches"
    def __init__(self, batches, count): self.batches, self.count = batches, min(count, len(batches))

    def __len__(self): return self.count

    def __iter__(self): return islice(iter(self.batches), self.count)

def memory_of_nothing(setting): return peak_memory()

def memory_of_naive_route(setting, length=10, step=1):
    with unpacked(setting.path) as folder: naive_windows(folder, length, step)
    return peak_memory()

def memory_of_run(setting, preset='pytorch', length=10, step=1):
    "Read, split, train, choose on validation, evaluate validation and test beside baselines"
    show_progress(False)
    torch.set_num_threads(setting.threads)
    data, recipe = load(setting.path), Recipe(str(setting.path), preset, 'random-windows', length, step, epochs=1)
    split, batches, model = build(recipe, data)
    first = FirstBatches(batches['train'], -(-setting.windows // recipe.training(len(split.train)).batch_size))
    fit_model(model, batches | dict(train=first), recipe.training(len(split.train)))
    compare(data, split, {preset: (model, batches)})
    return peak_memory()

def fresh(function, setting):
    "Call a function in a new process, and return its result"
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool: return pool.submit(function, setting).result()

def memory_job(setting, data):
    "Peak memory, each in a process of its own; once, since it hardly varies"
    what, naive = 'peak memory, length 10, step 1', f'{NAIVE}, to all windows'
    found = {naive: [fresh(memory_of_naive_route, setting)], f'{OURS}, whole run, pytorch': [fresh(memory_of_run, setting)]}
    yield from table(what, 'MB', found, [naive])
    yield from table(what, 'MB', {'imports alone': [fresh(memory_of_nothing, setting)]})

def process_time(code):
    "How long Python takes for a line of code, from its start to its end"
    return seconds(lambda: subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL))

def help_job(setting, data):
    "Help of the commands, next to the loading of PyTorch that it does without"
    baseline, call = 'python -c "import torch"', 'from bst_nbdev.start import {} as command\ntry: command(["--help"])\nexcept SystemExit: pass'
    codes = {baseline: 'import torch'} | {f'{name} --help': call.format(name) for name in COMMANDS}
    measures = {name: partial(process_time, code) for name, code in codes.items()}
    yield from table('answering --help', 's', alternate(measures, setting.repeat, '--help'), [baseline])


# --- The command

COMMANDS = 'bst_prepare', 'bst_train', 'bst_update', 'bst_evaluate', 'bst_recommend', 'bst_items', 'bst_users', 'bst_serve'  # whose help is timed
JOBS = {'data': data_job}
JOBS |= {f'training, {preset}, length {length}, batch {size}': partial(training_job, preset=preset, length=length, batch_size=size)
         for preset, length in (('pytorch', 4), ('pytorch', 10), ('keras', 4)) for size in (128, 512)}
JOBS |= {f'evaluation, {preset}, length {length}': partial(evaluation_job, preset=preset, length=length)
         for preset, length in (('pytorch', 10), ('keras', 4))}
JOBS |= {f'optimizer, {kind.__name__}, {preset}': partial(optimizer_job, preset=preset, length=length, kind=kind)
         for preset, length, kind in (('pytorch', 10, torch.optim.AdamW), ('keras', 4, torch.optim.Adagrad))}
JOBS |= {'packed': packed_job, 'catalogue': catalogue_job, 'recommend': recommend_job, 'answers': answers_job, 'memory': memory_job,
         'help': help_job, 'device': device_job}

def locate(data):
    "Folder or archive of the data; all measurements start there, so it must be the original in the layout of ml-1m"
    path = find_data(data)
    if (layout := find_layout(open_files(path)).name) != 'ml-1m':
        raise DataError(f'{path} has the layout of {layout}, but the naive route reads that of ml-1m only: give ml-1m or sample')
    return path

def merge(path, rows):
    "Put new rows in the place of old ones of the same work"
    if path.exists():
        old = pd.read_csv(path, dtype=dict(commit=str))
        rows = pd.concat([old[~old.work.isin(rows.work)], rows])
    with atomic_path(path) as scratch: rows.sort_values('work', kind='stable').to_csv(scratch, index=False, float_format='%.5g')

def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m', help='ml-1m, sample, or a .zip or folder like that of ml-1m (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='the result file (default: results/benchmark.csv; with --quick, none)')
    parser.add_argument('--only', default='', help='only jobs whose name has this in it')
    parser.add_argument('--repeat', type=int, default=5, help='rounds (default: %(default)s)')
    parser.add_argument('--windows', type=int, default=12_800, help='windows in a pass of training or evaluation (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch (default: %(default)s, all cores)')
    parser.add_argument('--device', default='cpu', help='where the job `device` trains, such as cuda; it runs with this option or --only device (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='one round of few windows, to try the command: its figures mean little')
    parser.add_argument('--list', action='store_true', help='name the jobs and stop')
    a = parser.parse_args(arguments)
    jobs = {name: job for name, job in JOBS.items() if a.only in name}
    if a.device != 'cpu': jobs = {'device': device_job}
    elif not a.only and not a.list: del jobs['device']
    if a.list: return print(*jobs, sep='\n')
    if not jobs: parser.error(f'no job has {a.only!r} in its name: see --list')
    for name in 'repeat', 'windows', 'threads':
        if getattr(a, name) < 1: parser.error(f'--{name} is {getattr(a, name)}: give 1 or more')
    out = a.out or (None if a.quick else Path('results/benchmark.csv'))
    try:
        if out: check_writable(out.parent)
        setting = Setting(locate(a.data), 1 if a.quick else a.repeat, min(a.windows, 1024) if a.quick else a.windows, a.threads, a.device)
        torch.set_num_threads(a.threads)
        choose_device(a.device)                                                         # is it there?
        data = load(setting.path)
        about = dict(device=device_name(a.device, a.threads), commit=source_commit())
        for name, job in progress(jobs.items(), 'jobs'):
            rows = pd.DataFrame(job(setting, data)).assign(**about).reindex(columns=COLUMNS)
            rows['work'] = f'{data.name}: ' + rows['work']
            if out: merge(out, rows)
            print(rows[COLUMNS[:6]].to_string(index=False, header=False, na_rep='', float_format='{:.4g}'.format), flush=True)
    except BSTError as error: raise SystemExit(f'error: {error}') from error

if __name__ == '__main__': main()
