"""Other Behavior Sequence Transformers that can be installed, beside ours, into the same result file as the rest:

    python benchmarks/others.py --data ml-1m --torch-rechub rechub/bin/python --deepctr deepctr/bin/python

Each library runs in an environment of its own (benchmarks/README.md says how to make them), in a process of its own, and they work in turns:
only one at a time, with the same number of threads. All are given the same windows, widths, layers, heads, batch size and optimizer, and
learn whether a rating is 4 or more. Ours is built twice, with the feed-forward width that each of the others has.
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from run import COLUMNS, OURS, alternate, locate, merge, seconds, some_windows, table

from bst_nbdev.core import BSTError, check_writable, device_name, seed_everything, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.splits import make_split
from bst_nbdev.windows import Batches
from bst_nbdev.packing import Chunks, PackedBatches
from bst_nbdev.presets import build_model
from bst_nbdev.training import TrainingConfig, make_optimizer, make_schedule, predict, train_epoch

SIZES = dict(width=64, user_width=32, feature_width=32, layers=2, heads=4, mlp=[64], dropout=.1, learning_rate=.001)
HIDDEN = {'torch-rechub': 2048, 'deepctr': 256}  # the first cannot be told otherwise, the second takes four times the width
VARIANTS = {'torch-rechub': {'torch-rechub': 'its trainer and loader', 'torch-rechub, network': 'its network alone'}, 'deepctr': {'deepctr': 'Keras'}}

class Worker:
    "A library in its own process and environment"
    def __init__(self, python, kind, folder):
        command = [str(python), str(Path(__file__).with_name('others_worker.py')), kind, str(folder)]
        self.kind, self.log = kind, open(folder/f'{kind}.log', 'w+')
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.about = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if line: return json.loads(line)
        self.log.seek(0)
        last = self.log.read().strip().splitlines()[-1:] or ['no message']
        raise BSTError(f'{self.kind} ended with: {last[0]} (is it installed for {self.process.args[0]}?)')

    def ask(self, what):
        print(what, file=self.process.stdin, flush=True)
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

def write_windows(folder, windows, data, threads, batch_size):
    "Save the windows as plain arrays, and the setting, for the workers"
    inputs, label = windows[torch.arange(len(windows))]
    names = list(data.user_features)
    arrays = dict(user=inputs['user'], item=inputs['item'], padding_mask=inputs['padding_mask'], click=label >= 4)
    arrays |= {name: inputs['user_features'][:, i] for i, name in enumerate(names)}
    arrays = {name: np.asarray(x) for name, x in arrays.items()}
    np.savez(folder/'windows.npz', **{name: x if x.dtype == bool else x.astype(np.int64) for name, x in arrays.items()})
    rows = dict(user=len(data.users), item=len(data.items)) | {name: len(data.user_features[name].values) for name in names}
    (folder/'setting.json').write_text(json.dumps(dict(SIZES, rows=rows, features=names, threads=threads, batch_size=batch_size)))

class Ours:
    "A model of ours, in this process"
    def __init__(self, model, loss, batches, asked, labels, batch_size):
        config = TrainingConfig(optimizer='adam', learning_rate=SIZES['learning_rate'], batch_size=batch_size, clip=0.)
        self.model, self.loss, self.batches, self.asked, self.labels = model, loss, batches, asked, labels
        self.accelerator, self.optimizer = Accelerator(cpu=True), make_optimizer(model, config)
        self.schedule, self.parameters = make_schedule(self.optimizer, config, 1), sum(p.numel() for p in model.parameters())
        self.train()
        self.answer()

    def train(self): train_epoch(self.model, self.batches, self.loss, self.optimizer, self.schedule, self.accelerator)

    def answer(self): return predict(self.model, self.asked)[0]

def same_sizes(data, windows, hidden, batch_norm, batch_size):
    "Ours with the layers of another"
    seed_everything(0)
    model = build_model(data, 'single-sequence', sequence_length=windows.sequence_length, item_width=SIZES['width'], user_width=SIZES['user_width'],
                       feature_width=SIZES['feature_width'], blocks=SIZES['layers'], heads=SIZES['heads'], mlp=tuple(SIZES['mlp']), hidden=hidden,
                       dropout=SIZES['dropout'], item_join='none', item_numbers=False, position='learned', rating='none', activation='leaky_relu', norm='post',
                       biases=False, batch_norm=batch_norm, id_dropout=0., objective='click')
    return Ours(model, model.config.compute_loss, Batches(windows, batch_size, shuffle=True), Batches(windows, batch_size), len(windows), batch_size)

def packed(data, targets, length, batch_size, chunk=32):
    "Our two-stream network with the same labels and as many ratings of history, in chunks"
    seed_everything(0)
    model, chunks = build_model(data, 'rating', objective='click'), lambda: Chunks(data, targets, chunk, length - 1)
    return Ours(model, model.config.compute_loss, PackedBatches(chunks(), batch_size, shuffle=True), PackedBatches(chunks(), batch_size), len(targets), batch_size)

def against(data, library, python, threads, repeat, count, batch_size, length=10):
    "Rows of one library and ours: training and answering"
    rows = make_split(data, 'leave-last-out', length).train
    windows = some_windows(data, rows, length, count)
    neighbours = rows[:4 * count]  # the first users': a chunk needs neighbours
    ours = {f'{OURS}, single-sequence, same sizes': same_sizes(data, windows, HIDDEN[library], library == 'torch-rechub', batch_size),
            f'{OURS}, two-stream, chunks of 32, history of {length - 1}': packed(data, neighbours, length, batch_size)}
    with tempfile.TemporaryDirectory() as folder:
        write_windows(Path(folder), windows, data, threads, batch_size)
        workers = {}
        try:
            for kind, how in VARIANTS[library].items():
                worker = Worker(python, kind, Path(folder))
                workers[f"{library} {worker.about['version']}, {how}"] = worker
            what = f'length {length}, batch {batch_size}, against {library} (feed-forward {HIDDEN[library]})'
            for name, worker in workers.items():
                found = worker.ask('answer')
                if found['answers'] != len(windows) or not found['spread'] > 0: raise SystemExit(f'nothing was measured: {name} does not answer for each window')
            for work, named in ('train', f'training clicks, {what}'), ('answer', f'evaluating clicks, {what}'):
                measures = {name: lambda w=w, work=work: len(windows) / w.ask(work)['seconds'] for name, w in workers.items()}
                measures |= {name: lambda o=o, work=work: o.labels / seconds(getattr(o, work)) for name, o in ours.items()}
                yield from table(named, 'examples/s', alternate(measures, repeat, named), list(workers))
            sizes = {name: [w.about['parameters']] for name, w in workers.items()} | {name: [o.parameters] for name, o in ours.items()}
            yield from table(f'parameters, {what}', 'parameters', sizes)
        finally:
            for worker in workers.values(): worker.close()

def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m', help='ml-1m, sample, or a .zip or folder like that of ml-1m (default: %(default)s)')
    parser.add_argument('--torch-rechub', type=Path, help='the Python of an environment with torch-rechub')
    parser.add_argument('--deepctr', type=Path, help='the Python of an environment with deepctr')
    parser.add_argument('--out', type=Path, help='the result file (default: results/benchmark.csv; with --quick, none)')
    parser.add_argument('--repeat', type=int, default=5, help='rounds (default: %(default)s)')
    parser.add_argument('--windows', type=int, default=12_800, help='windows in a pass (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=256, help='windows in a batch (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of each library (default: %(default)s, all cores)')
    parser.add_argument('--quick', action='store_true', help='one round of few windows, to try the command: its figures mean little')
    a = parser.parse_args(arguments)
    pythons = {name: path for name, path in {'torch-rechub': a.torch_rechub, 'deepctr': a.deepctr}.items() if path}
    if not pythons: parser.error('no library to compare with: give --torch-rechub or --deepctr')
    for name, path in pythons.items():
        if not path.exists(): parser.error(f'--{name}: {path} is no Python: see benchmarks/README.md on how to make the environment')
    out = a.out or (None if a.quick else Path('results/benchmark.csv'))
    try:
        if out: check_writable(out.parent)
        torch.set_num_threads(a.threads)
        data = load(locate(a.data))
        about = dict(device=device_name('cpu', a.threads), commit=source_commit())
        for library, python in pythons.items():
            found = against(data, library, python, a.threads, 1 if a.quick else a.repeat, min(a.windows, 1024) if a.quick else a.windows, a.batch_size)
            rows = pd.DataFrame(found).assign(**about).reindex(columns=COLUMNS)
            rows['work'] = f'{data.name}: ' + rows['work']
            if out: merge(out, rows)
            print(rows[COLUMNS[:6]].to_string(index=False, header=False, na_rep='', float_format='{:.4g}'.format), flush=True)
    except BSTError as error: raise SystemExit(f'error: {error}') from error

if __name__ == '__main__': main()
