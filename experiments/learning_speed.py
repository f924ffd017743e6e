"""Time to accuracy: the error on validation against seconds of training, by `random-windows` (length 10), into results/learning_speed.csv.

    python experiments/learning_speed.py --data ml-1m
    python experiments/learning_speed.py --data ml-1m --epochs 1 4      # schedules of one and of four epochs (default)
    python experiments/learning_speed.py --data sample --every 20 --out learning_speed.csv

Training stops for each measurement, and only training is timed. The best published figure of a BST on this protocol, an MAE of
0.6487 read off its test part, is the line to cross. When a schedule is through, the test part is used once.
"""
import argparse
import time
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator

from bst_nbdev.core import atomic_path, device_name, progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.evaluation import evaluate_model
from bst_nbdev.pipeline import Recipe, build
from bst_nbdev.presets import build_loss
from bst_nbdev.training import average_weights, make_optimizer, make_schedule, train_epoch

PUBLISHED = .6487  # Nelson Lin, length 10

class Few:
    "The next few of some batches"
    def __init__(self, batches, count): self.batches, self.count = batches, count

    def __len__(self): return self.count

    def __iter__(self): return islice(self.batches, self.count)

def curve(a, data, epochs):
    "Rows of one schedule, from the first step to the last"
    recipe = Recipe(str(a.data), a.preset, 'random-windows', 10, epochs=epochs, seed=a.seed)
    split, batches, model = build(recipe, data)
    config, loss = recipe.training(len(split.train)), build_loss(model.config)
    steps, train = epochs * len(batches['train']), batches['train']
    optimizer, accelerator = make_optimizer(model, config), Accelerator(cpu=True)
    schedule, averaged = make_schedule(optimizer, config, steps), average_weights(model, config.averaging, steps)
    about = dict(dataset=data.name, protocol=recipe.protocol, model=f'BST ({a.preset})', epochs=epochs, seed=a.seed)
    def row(part, step, seconds):
        found = evaluate_model(averaged.module, batches[part])
        return dict(about, part=part, step=step, labels=round(step * len(split.train) / len(train)), seconds=seconds, mae=found['mae'], rmse=found['rmse'])
    seconds, step = 0., 0
    with progress(total=steps, description=f'{epochs} epochs', unit='batch') as bar:
        for _ in range(epochs):
            source, left = iter(train), len(train)
            while left:
                few = Few(source, min(a.every, left))
                start = time.perf_counter()
                train_epoch(model, few, loss, optimizer, schedule, accelerator, config.clip, averaged)
                seconds, step, left = seconds + time.perf_counter() - start, step + len(few), left - len(few)
                bar.update(len(few))
                yield row('validation', step, seconds)
    yield row('test', step, seconds)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m', help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--preset', default='default', help='which model (default: %(default)s)')
    parser.add_argument('--epochs', type=int, nargs='+', default=[1, 4], help='lengths of the schedules (default: 1 and 4)')
    parser.add_argument('--every', type=int, default=100, help='steps between measurements (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of split, weights and order (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('results/learning_speed.csv'), help='the result file (default: %(default)s)')
    a = parser.parse_args()
    data, threads = load(a.data), torch.get_num_threads()
    about = dict(device=device_name('cpu', threads), commit=source_commit())
    table = pd.DataFrame([row for epochs in a.epochs for row in curve(a, data, epochs)]).assign(**about)
    with atomic_path(a.out) as scratch: table.to_csv(scratch, index=False, float_format='%.6g')
    for epochs, rows in table.groupby('epochs'):
        there = rows[(rows.part == 'validation') & (rows.mae <= PUBLISHED)]
        when = f'{there.seconds.iloc[0]:.1f} s' if len(there) else 'never'
        last = rows.iloc[-1]
        print(f'{epochs} epochs: MAE {PUBLISHED} on validation after {when}; in the end {last.seconds:.1f} s, MAE {last.mae:.4f} on test')

if __name__ == '__main__': main()
