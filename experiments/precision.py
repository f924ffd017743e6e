"""What bf16, compilation and accumulation cost in accuracy and give in speed, against float32 in the same run, into results/precision.csv.

    python experiments/precision.py --data ml-1m                   # float32, bf16, compiled, both
    python experiments/precision.py --data sample --quick --out precision.csv

The bar: validation and test MAE within 0.001 of float32. `ratio` is float32's seconds of an epoch over the row's; the first epoch, in which a
model is compiled, is left out of it where there are two or more.
"""
import argparse
from pathlib import Path

import pandas as pd
import torch

from bst_nbdev.core import ConfigError, atomic_path, device_name, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.pipeline import Recipe, choose_device, train

VARIANTS = {'float32': {}, 'bf16': dict(mixed_precision='bf16'), 'compiled': dict(compile=True), 'bf16, compiled': dict(mixed_precision='bf16', compile=True)}

def row(a, data, name, settings):
    "Train once"
    run = train(Recipe(str(a.data), a.preset, a.protocol, epochs=a.epochs, seed=a.seed, **settings), data, a.device, baselines=())
    scores = run.table.set_index('part')
    seconds = run.history.seconds.iloc[1:] if len(run.history) > 1 else run.history.seconds
    return dict(dataset=data.name, protocol=a.protocol, model=f'BST ({a.preset})', variant=name, seed=a.seed, epochs=len(run.history),
                **{f'{part}_{name}': scores[name][part] for part in ('validation', 'test') for name in ('mae_mean', 'mae', 'rmse')},
                epoch_seconds=seconds.mean(), first_seconds=run.history.seconds.iloc[0])

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m', help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--preset', default='default', help='which model (default: %(default)s)')
    parser.add_argument('--protocol', default='temporal', help='how to split (default: %(default)s)')
    parser.add_argument('--epochs', type=int, help="at most; the preset's if not given")
    parser.add_argument('--variants', nargs='+', default=list(VARIANTS), choices=VARIANTS, help='which; float32 comes first in any case')
    parser.add_argument('--seed', type=int, default=0, help='of split, weights and order (default: %(default)s)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, … (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='one epoch of float32 and bf16')
    parser.add_argument('--out', type=Path, default=Path('results/precision.csv'), help='the result file (default: %(default)s)')
    a = parser.parse_args()
    if a.quick: a.epochs, a.variants = 1, ['bf16']
    data, rows = load(a.data), []
    for name in ['float32', *(name for name in a.variants if name != 'float32')]:
        try: rows.append(row(a, data, name, VARIANTS[name]))
        except ConfigError as error: print(f'{name}: {error}')
    table, threads = pd.DataFrame(rows), torch.get_num_threads()
    table['ratio'] = table.epoch_seconds[0] / table.epoch_seconds
    for part in 'validation', 'test':
        best = table[f'{part}_mae_median'].fillna(table[f'{part}_mae'])
        table[f'{part}_difference'] = best - best[0]
    table = table.assign(device=device_name(str(choose_device(a.device)), threads), commit=source_commit())
    with atomic_path(a.out) as scratch: table.to_csv(scratch, index=False, float_format='%.6g')
    print(table[['variant', 'validation_mae', 'test_mae', 'test_difference', 'epoch_seconds', 'ratio']].to_string(index=False))

if __name__ == '__main__': main()
