"""What each part of a preset contributes, on validation: one change at a time -> results/tried.csv.

    python experiments/tune_stream.py --data ml-1m --jobs 2
    python experiments/tune_stream.py --data ml-1m --preset rating
    python experiments/tune_stream.py --data ml-1m --preset fill-in
    python experiments/tune_stream.py --only history --list
    python experiments/tune_stream.py --data sample --every 1 --quick --out tried.csv

`both` by `leave-last-out`, `rating` by `random-windows` of length 10, `fill-in` by `random-ratings`. To save
time, models learn from every third user and are measured on them, so scores are worse than those of the
results page; what counts are the differences. The test part is never used. A result on a third of the users
need not hold for all of them; `--every 1` takes all users and writes a row of its own. What comes next is
looked for in the whole catalogue, for 2,000 of the targets at most, with and without their moment.
"""
import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bst_nbdev.core import atomic_path, device_name, progress, seed_everything, show_progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.splits import make_split
from bst_nbdev.presets import build_model, training_settings
from bst_nbdev.training import TrainingConfig
from bst_nbdev.evaluation import evaluate_model, fit_model, init_from_split
from bst_nbdev.ranking import ModelScores, rank_targets, ranking_scores

KEY = ['dataset', 'protocol', 'preset', 'every', 'tried']
PROTOCOL = {'both': 'leave-last-out', 'rating': 'random-windows', 'fill-in': 'random-ratings'}
MAX_RANKED = 2000  # targets whose next item is looked for in the catalogue

SHOWN = ('tried', 'mae', 'rmse', 'log_loss', 'next_log_loss', 'hit_rate', 'ndcg', 'hit_rate_unknown',
         'ndcg_unknown', 'train_loss', 'train_seconds')

# name: (settings of the model, settings of the training); the unchanged seeds show how much is noise
BOTH = {
    'as it is': ({}, {}),
    'as it is, seed 1': ({}, dict(seed=1)),
    'as it is, seed 2': ({}, dict(seed=2)),
    'ratings only': (dict(objective='rating'), {}),
    'next item only': (dict(objective='next'), {}),
    'weight 0.2 of the next item': (dict(next_weight=.2), {}),
    'weight 1 of the next item': (dict(next_weight=1.), {}),
    'next item at every position': (dict(next_every=1), {}),
    'next item at every third position': (dict(next_every=3), {}),
    'history dropout 0.1': (dict(history_dropout=.1), {}),
    'history dropout 0.3': (dict(history_dropout=.3), {}),
    'weight decay 0.1 of large tables': ({}, dict(embedding_decay=.1)),
    'weight decay 1 of large tables': ({}, dict(embedding_decay=1.)),
    'half the learning rate': ({}, dict(learning_rate=.003)),
    'batches of 1024': ({}, dict(batch_size=1024)),
    'batches of 4096': ({}, dict(batch_size=4096)),
    'no new items in training': (dict(item_id_dropout=0.), {}),
    'no question asked early': (dict(horizon=1), {}),
    'no history cut': (dict(start_dropout=0.), {}),
    'twice as many histories cut': (dict(start_dropout=.6), {}),
    'every question sees its history': (dict(cold_start=0.), {}),
    'biases decay like their tables': ({}, dict(bias_decay=None)),
    'a user table': (dict(user_table=True), {}),
    'moments always known': (dict(moment_dropout=0.), {}),
    'three layers': (dict(layers=3), {}),
}
RATING = {
    'as it is': ({}, {}),
    'as it is, seed 1': ({}, dict(seed=1)),
    'as it is, seed 2': ({}, dict(seed=2)),
    'no history dropout': (dict(history_dropout=0.), {}),
    'history dropout 0.5': (dict(history_dropout=.5), {}),
    'no factorisation': (dict(factors=0), {}),
    'no recency at the start': (dict(recency=0.), {}),
    'history of 32': (dict(min_history=32), {}),
    'history of 256': (dict(min_history=256), {}),
    'chunks of 256, history of 64': (dict(chunk=256, min_history=64), {}),
    'no genres, no years': (dict(item_features=(), item_kinds=(), item_sizes=()), {}),
    'no weight decay of large tables': ({}, dict(embedding_decay=None)),
    'weight decay 3 of large tables': ({}, dict(embedding_decay=3.)),
    'no averaged weights': ({}, dict(averaging=0.)),
    'beta2 0.999': ({}, dict(beta2=.999)),
    'batches of 512': ({}, dict(batch_size=512)),
    'batches of 2048': ({}, dict(batch_size=2048)),
    'two heads': (dict(heads=2), {}),
    'eight heads': (dict(heads=8), {}),
    'one layer': (dict(layers=1), {}),
    'three layers': (dict(layers=3), {}),
    'width 32': (dict(width=32, hidden=64), {}),
    'width 96': (dict(width=96, hidden=192), {}),
    'width 128': (dict(width=128, hidden=256), {}),
    'one layer, width 128': (dict(layers=1, width=128, hidden=256), {}),
    'dropout 0.2': (dict(dropout=.2), {}),
    'embedding dropout 0.3': (dict(embedding_dropout=.3), {}),
    'a fifth of user ids hidden': (dict(user_id_dropout=.2), {}),
    'all user ids hidden': (dict(user_id_dropout=.99, factors=0), {}),
    'six epochs': ({}, dict(epochs=6)),
    'half the learning rate': ({}, dict(learning_rate=.001)),
    'twice the learning rate': ({}, dict(learning_rate=.004)),
}
FILL_IN = {
    'as it is': ({}, {}),
    'as it is, seed 1': ({}, dict(seed=1)),
    'only the past': (dict(visibility='causal'), {}),
    'no history dropout': (dict(history_dropout=0.), {}),
    'history dropout 0.4': (dict(history_dropout=.4), {}),
    'history of 256': (dict(min_history=256), {}),
    'a factorisation': (dict(factors=32), {}),
    'recency at the start': (dict(recency=.8), {}),
    'three layers': (dict(layers=3), {}),
    'width 128': (dict(width=128, hidden=256), {}),
    'seven epochs': ({}, dict(epochs=7)),
}
TRIED = {'both': BOTH, 'rating': RATING, 'fill-in': FILL_IN}

def ranking_on(model, data, rows):
    "HR@10 and NDCG@10 of the next item, with and without the moment"
    rows, found = np.sort(np.random.default_rng(0).permutation(rows)[:MAX_RANKED]), {}
    for moment in model.config.moments:
        ranks, _ = rank_targets(ModelScores(model, data, moment=moment, ranked_by='next'), data, rows)
        suffix = '' if moment == 'known' else f'_{moment}'
        found |= {f'{name}{suffix}': value for name, value in ranking_scores(ranks).items() if name != 'mrr'}
    return found

def work(data, preset, name, every, threads, quick):
    "Train with one change; return a row of scores on validation"
    torch.set_num_threads(threads)
    show_progress(False)
    data, (model_settings, changes) = load(data), TRIED[preset][name]
    whole = make_split(data, PROTOCOL[preset], 10)

    def some(rows): return rows[data.user[rows] % every == 0]

    split = replace(whole, train=some(whole.train), validation=some(whole.validation))
    settings = training_settings(preset, len(whole.train))
    if quick: settings['epochs'] = 1
    config = TrainingConfig(**{**settings, **changes})
    seed_everything(config.seed)
    model = build_model(data, preset, **model_settings)
    batches = model.config.batches(data, split, config.batch_size, seed=config.seed)
    init_from_split(model, data, split)
    start = time.perf_counter()
    epochs = fit_model(model, batches, config)
    scores = evaluate_model(model.eval(), batches['validation'])
    seconds = round(time.perf_counter() - start, 1)
    if 'next' in model.config.answers: scores |= ranking_on(model, data, split.validation)
    return dict(dataset=data.name, protocol=whole.protocol, preset=preset, every=every, tried=name,
                part='validation', **scores, train_loss=epochs.loss.iloc[-1],
                best_epoch=int(epochs.epoch[epochs.best].iloc[-1]), epochs=len(epochs),
                parameters=int(model.summary().loc['total', 'parameters']),
                train_seconds=seconds, device=device_name('cpu', threads),
                commit=source_commit())

def merge(path, row):
    "Replace the row of the same change in a result file, and keep the others"
    rows = pd.DataFrame([row])
    if path.exists():
        old = pd.read_csv(path, dtype=dict(commit=str))
        rows = pd.concat([old[(old[KEY] != rows[KEY].iloc[0]).any(axis=1)], rows])
    with atomic_path(path) as scratch:
        rows.sort_values([*KEY[:4], 'mae']).to_csv(scratch, index=False, float_format='%.6g')

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m',
                        help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--preset', choices=TRIED, default='both',
                        help='which model (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('results/tried.csv'),
                        help='the result file (default: %(default)s)')
    parser.add_argument('--only', default='', help='run only changes whose name contains this')
    parser.add_argument('--every', type=int, default=3,
                        help='learn from one user in this many (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, help='jobs at a time (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='cores for each job (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='one epoch each, to try the command')
    parser.add_argument('--list', action='store_true', help='list the changes and stop')
    args = parser.parse_args()
    names = [name for name in TRIED[args.preset] if args.only in name]
    if args.list: return print(*names, sep='\n')
    if not names: parser.error(f'no change contains {args.only!r} in its name: see --list')
    failed = []
    with ProcessPoolExecutor(args.jobs) as pool:
        waiting = {pool.submit(work, args.data, args.preset, name, args.every, args.threads,
                               args.quick): name for name in names}
        for done in progress(as_completed(waiting), 'tried', total=len(waiting)):
            if error := done.exception():
                failed.append(f'{waiting[done]}: {error}')
                continue
            row = done.result()
            merge(args.out, row)
            print({name: row[name] for name in SHOWN if name in row}, flush=True)
    if failed: raise SystemExit('failed:\n' + '\n'.join(failed))

if __name__ == '__main__': main()
