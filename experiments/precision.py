"""Compare bf16, compilation and both with float32: accuracy and speed -> results/precision.csv.

    python experiments/precision.py --data ml-1m                   # float32, bf16, compiled, both
    python experiments/precision.py --data sample --quick --out precision.csv

The limit: validation and test MAE within 0.001 of float32. `ratio` is float32's seconds for an epoch
divided by the row's. The first epoch, in which a model is compiled, is left out of it if there are two
or more.
"""
import argparse
from pathlib import Path

import pandas as pd
import torch

from bst_nbdev.core import ConfigError, atomic_path, device_name, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.pipeline import Recipe, choose_device, train

VARIANTS = {'float32': {}, 'bf16': dict(mixed_precision='bf16'), 'compiled': dict(compile=True),
            'bf16, compiled': dict(mixed_precision='bf16', compile=True)}

def measure(args, data, variant):
    "Train one variant; return a row of the table"
    recipe = Recipe(str(args.data), args.preset, args.protocol,
                    epochs=args.epochs, seed=args.seed, **VARIANTS[variant])
    run = train(recipe, data, args.device, baselines=())
    scores = run.table[run.table.moment != 'unknown'].set_index('part')
    epochs = run.training_log
    seconds = epochs.seconds.iloc[1:] if len(epochs) > 1 else epochs.seconds
    columns = {f'{part}_{metric}': scores[metric][part] for part in ('validation', 'test')
               for metric in ('mae_mean', 'mae', 'rmse')}
    return dict(dataset=data.name, protocol=args.protocol, model=f'BST ({args.preset})', variant=variant,
                seed=args.seed, epochs=len(epochs), **columns, epoch_seconds=seconds.mean(),
                first_seconds=epochs.seconds.iloc[0])

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m',
                        help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--preset', default='rating', help='which model (default: %(default)s)')
    parser.add_argument('--protocol', default='temporal', help='how to split (default: %(default)s)')
    parser.add_argument('--epochs', type=int, help="at most (default: the preset's)")
    parser.add_argument('--variants', nargs='+', default=list(VARIANTS), choices=VARIANTS,
                        help='which; float32 always comes first')
    parser.add_argument('--seed', type=int, default=0,
                        help='of split, weights and order (default: %(default)s)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, … (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='one epoch of float32 and bf16')
    parser.add_argument('--out', type=Path, default=Path('results/precision.csv'),
                        help='the result file (default: %(default)s)')
    args = parser.parse_args()
    if args.quick: args.epochs, args.variants = 1, ['bf16']
    data, rows = load(args.data), []
    for variant in ['float32', *(name for name in args.variants if name != 'float32')]:
        try: rows.append(measure(args, data, variant))
        except ConfigError as error: print(f'{variant}: {error}')
    table = pd.DataFrame(rows)
    table['ratio'] = table.epoch_seconds[0] / table.epoch_seconds
    for part in 'validation', 'test':
        table[f'{part}_difference'] = table[f'{part}_mae'] - table[f'{part}_mae'][0]
    device = device_name(str(choose_device(args.device)), torch.get_num_threads())
    table = table.assign(device=device, commit=source_commit())
    with atomic_path(args.out) as scratch: table.to_csv(scratch, index=False, float_format='%.6g')
    print(table[['variant', 'validation_mae', 'test_mae', 'test_difference',
          'epoch_seconds', 'ratio']].to_string(index=False))

if __name__ == '__main__': main()
