"""What each part of a preset is worth, on validation: one thing is changed at a time, into results/tried.csv.

    python experiments/tune_stream.py --data ml-1m --jobs 2
    python experiments/tune_stream.py --data ml-1m --preset fill-in
    python experiments/tune_stream.py --only history --list
    python experiments/tune_stream.py --data sample --every 1 --quick --out tried.csv

`default` by `random-windows` of length 10, `fill-in` by `random-ratings`; learning from (and measured on) every third user to save
time, so the figures are higher than those of the results page; what counts are the differences. The test part is never looked at.
What a third of the users suggests need not hold for all of them; `--every 1` asks them all, with a row of its own.
"""
import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from bst_nbdev.core import atomic_path, device_name, progress, seed_everything, show_progress, source_commit
from bst_nbdev.data import load
from bst_nbdev.evaluation import evaluate_model, validation_metrics
from bst_nbdev.presets import build_batches, build_loss, build_model, reach, training_settings
from bst_nbdev.sequences import make_split, seen_rows
from bst_nbdev.training import TrainingConfig, fit

KEY = ['dataset', 'protocol', 'every', 'tried']
PROTOCOL = {'default': 'random-windows', 'fill-in': 'random-ratings'}

# what is tried: (settings of the model, settings of the training); seeds of the unchanged model show what is noise
DEFAULT = {'as it is': ({}, {}), 'as it is, seed 1': ({}, dict(seed=1)), 'as it is, seed 2': ({}, dict(seed=2)),
         'no history dropout': (dict(history_dropout=0.), {}), 'history dropout 0.5': (dict(history_dropout=.5), {}),
         'no factorisation': (dict(factors=0), {}), 'no recency at the start': (dict(recency=0.), {}),
         'carry 32 ratings': (dict(min_history=32), {}), 'carry 256 ratings': (dict(min_history=256), {}),
         'chunks of 256 that carry 64': (dict(chunk=256, min_history=64), {}), 'no genres, no years': (dict(num_genres=0, num_periods=0), {}),
         'no weight decay of large tables': ({}, dict(embedding_decay=None)), 'weight decay 3 of large tables': ({}, dict(embedding_decay=3.)),
         'no averaged weights': ({}, dict(averaging=0.)), 'beta2 0.999': ({}, dict(beta2=.999)), 'batches of 512': ({}, dict(batch_size=512)),
         'batches of 2048': ({}, dict(batch_size=2048)),
         'two heads': (dict(heads=2), {}), 'eight heads': (dict(heads=8), {}), 'one layer': (dict(layers=1), {}),
         'three layers': (dict(layers=3), {}), 'width 32': (dict(width=32, hidden=64), {}),
         'width 96': (dict(width=96, hidden=192), {}), 'width 128': (dict(width=128, hidden=256), {}),
         'one layer, width 128': (dict(layers=1, width=128, hidden=256), {}), 'dropout 0.2': (dict(dropout=.2), {}), 'embedding dropout 0.3': (dict(embedding_dropout=.3), {}),
         'a fifth of user ids hidden': (dict(user_id_dropout=.2), {}), 'all user ids hidden': (dict(user_id_dropout=.99, factors=0), {}),
         'six epochs': ({}, dict(epochs=6)), 'half the learning rate': ({}, dict(learning_rate=.001)), 'twice the learning rate': ({}, dict(learning_rate=.004))}
FILL_IN = {'as it is': ({}, {}), 'as it is, seed 1': ({}, dict(seed=1)), 'only the past': (dict(context='causal'), {}),
           'no history dropout': (dict(history_dropout=0.), {}), 'history dropout 0.4': (dict(history_dropout=.4), {}),
           'carry 256 ratings': (dict(min_history=256), {}), 'a factorisation': (dict(factors=32), {}), 'recency at the start': (dict(recency=.8), {}),
           'three layers': (dict(layers=3), {}), 'width 128': (dict(width=128, hidden=256), {}), 'seven epochs': ({}, dict(epochs=7))}
TRIED = {'default': DEFAULT, 'fill-in': FILL_IN}

def work(data, preset, name, every, threads, quick):
    "One change as a row: scores on validation"
    torch.set_num_threads(threads)
    show_progress(False)
    data, (model_settings, changes) = load(data), TRIED[preset][name]
    whole = make_split(data, PROTOCOL[preset], 10)
    some = lambda rows: rows[data.user[rows] % every == 0]
    split = replace(whole, train=some(whole.train), validation=some(whole.validation))
    config = TrainingConfig(**{**training_settings(preset, len(whole.train)), **(dict(epochs=1) if quick else {}), **changes})
    seed_everything(config.seed)
    model = build_model(data, preset, **model_settings)
    batches = build_batches(data, split, model.config, config.batch_size, seed=config.seed)
    model.init_from_training(*seen_rows(data, split, reach(model.config) - 1), labels=torch.as_tensor(data.rating[split.train]))
    start, metrics = time.perf_counter(), validation_metrics(model.config)
    history = fit(model, batches['train'], batches['validation'], build_loss(model.config), metrics, config, monitor=next(iter(metrics)))
    return dict(dataset=data.name, protocol=whole.protocol, every=every, tried=name, part='validation', **evaluate_model(model, batches['validation']),
                train_loss=history.loss.iloc[-1], best_epoch=int(history.epoch[history.best].iloc[-1]), epochs=len(history),
                parameters=int(model.summary().loc['total', 'parameters']), train_seconds=round(time.perf_counter() - start, 1),
                device=device_name('cpu', threads), commit=source_commit())

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m', help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--preset', choices=TRIED, default='default', help='whose parts (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('results/tried.csv'), help='the result file; other rows stay (default: %(default)s)')
    parser.add_argument('--only', default='', help='only what has this in its name')
    parser.add_argument('--every', type=int, default=3, help='learn from every so manyth user (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, help='jobs side by side (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='cores for each job (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='one epoch each, to try the command')
    parser.add_argument('--list', action='store_true', help='name what is tried and stop')
    a = parser.parse_args()
    names = [name for name in TRIED[a.preset] if a.only in name]
    if a.list: return print(*names, sep='\n')
    if not names: parser.error(f'nothing has {a.only!r} in its name: see --list')
    failed = []
    with ProcessPoolExecutor(a.jobs) as pool:
        waiting = {pool.submit(work, a.data, a.preset, name, a.every, a.threads, a.quick): name for name in names}
        for done in progress(as_completed(waiting), 'tried', total=len(waiting)):
            if error := done.exception():
                failed.append(f'{waiting[done]}: {error}')
                continue
            rows = pd.DataFrame([done.result()])
            if a.out.exists():
                old = pd.read_csv(a.out)
                rows = pd.concat([old[(old[KEY] != rows[KEY].iloc[0]).any(axis=1)], rows])
            with atomic_path(a.out) as scratch: rows.sort_values([*KEY[:3], 'mae']).to_csv(scratch, index=False, float_format='%.6g')
            print(rows.iloc[-1][['tried', 'mae', 'rmse', 'log_loss', 'train_loss', 'train_seconds']].to_dict(), flush=True)
    if failed: raise SystemExit('failed:\n' + '\n'.join(failed))

if __name__ == '__main__': main()
