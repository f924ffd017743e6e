"""Measure the time to accuracy: validation error against seconds of training -> results/learning_speed.csv.

    python experiments/learning_speed.py --data ml-1m
    python experiments/learning_speed.py --data ml-1m --epochs 1 4  # two schedules (default)
    python experiments/learning_speed.py --data sample --every 20 --out learning_speed.csv

By `random-windows` of length 10. Training pauses for each measurement, and only training is timed. The goal
is the best published figure of a BST on this protocol: an MAE of 0.6487, read off its test part. At the end
of a schedule the test part is used once.
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
from bst_nbdev.training import average_weights, make_optimizer, make_schedule, train_epoch
from bst_nbdev.evaluation import evaluate_model
from bst_nbdev.pipeline import Recipe, build

PUBLISHED = .6487  # Nelson Lin, length 10

class NextBatches:
    "The next `count` batches of an iterator"
    def __init__(self, iterator, count): self.iterator, self.count = iterator, count

    def __len__(self): return self.count

    def __iter__(self): return islice(self.iterator, self.count)

def curve(args, data, epochs):
    "Train by one schedule; yield a row for each measurement"
    recipe = Recipe(str(args.data), args.preset, 'random-windows', 10, epochs=epochs, seed=args.seed)
    split, batches, model = build(recipe, data)
    train = batches['train']
    config, loss = recipe.training(len(split.train)), model.config.compute_loss
    steps = epochs * len(train)
    optimizer, accelerator = make_optimizer(model, config), Accelerator(cpu=True)
    schedule = make_schedule(optimizer, config, steps)
    averaged = average_weights(model, config.averaging, steps)
    job = dict(dataset=data.name, protocol=recipe.protocol, model=f'BST ({args.preset})', epochs=epochs,
               seed=args.seed)

    def row(part, step, seconds):
        scores = evaluate_model(averaged.module, batches[part])
        labels = round(step * len(split.train) / len(train))
        return dict(job, part=part, step=step, labels=labels,
                    seconds=seconds, mae=scores['mae'], rmse=scores['rmse'])

    seconds, step = 0., 0
    with progress(total=steps, description=f'{epochs} epochs', unit='batch') as bar:
        for _ in range(epochs):
            iterator, left = iter(train), len(train)
            while left:
                few = NextBatches(iterator, min(args.every, left))
                start = time.perf_counter()
                train_epoch(model, few, loss, optimizer, schedule, accelerator, config.clip, averaged)
                seconds += time.perf_counter() - start
                step += len(few)
                left -= len(few)
                bar.update(len(few))
                yield row('validation', step, seconds)
    yield row('test', step, seconds)

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m',
                        help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--preset', default='rating', help='which model (default: %(default)s)')
    parser.add_argument('--epochs', type=int, nargs='+', default=[1, 4],
                        help='lengths of the schedules (default: 1 and 4)')
    parser.add_argument('--every', type=int, default=100,
                        help='steps between measurements (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='of split, weights and order (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('results/learning_speed.csv'),
                        help='the result file (default: %(default)s)')
    args = parser.parse_args()
    data = load(args.data)
    source = dict(device=device_name('cpu', torch.get_num_threads()), commit=source_commit())
    rows = [row for epochs in args.epochs for row in curve(args, data, epochs)]
    table = pd.DataFrame(rows).assign(**source)
    with atomic_path(args.out) as scratch: table.to_csv(scratch, index=False, float_format='%.6g')
    for epochs, rows in table.groupby('epochs'):
        reached = rows[(rows.part == 'validation') & (rows.mae <= PUBLISHED)]
        when = f'after {reached.seconds.iloc[0]:.1f} s' if len(reached) else 'never'
        last = rows.iloc[-1]
        print(f'{epochs} epochs: MAE {PUBLISHED} on validation {when}; '
              f'at the end, after {last.seconds:.1f} s, MAE {last.mae:.4f} on test')

if __name__ == '__main__': main()
