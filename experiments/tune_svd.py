"""Choose the settings of the SVD baseline on validation -> results/svd_grid.csv.

    python experiments/tune_svd.py --data ml-1m

A baseline deserves as much care as a model: scikit-surprise's default settings are far from the best
that SVD can do. The grid is measured on the validation part of `random-ratings` (5 % of the training
ratings); the test part is not used. Needs the extra "bench".
"""
import argparse
import itertools
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

from bst_nbdev.core import atomic_path, progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.splits import make_split
from bst_nbdev.evaluation import Factorization, evaluate_baseline, training_rows

GRID = dict(n_factors=(50, 100, 200), n_epochs=(20, 40, 60), lr_all=(.005,), reg_all=(.02, .05, .08))

def measure(data, settings):
    "Score one setting on validation"
    interactions, start = load(data), time.perf_counter()
    split = make_split(interactions, 'random-ratings')
    fitted = Factorization('SVD', **settings).fit(interactions, training_rows(interactions, split))
    scores = evaluate_baseline(fitted, interactions, split.validation)
    return dict(dataset=interactions.name, protocol=split.protocol, model='SVD', sequence_length='', seed=0,
                part='validation', **settings, **scores, epochs=settings['n_epochs'],
                train_seconds=round(time.perf_counter() - start, 1), device='cpu, 1 thread',
                commit=source_commit())

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='ml-1m',
                        help='a MovieLens name, a .zip or a folder (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('results/svd_grid.csv'),
                        help='the result file (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, help='settings at a time (default: %(default)s)')
    args = parser.parse_args()
    settings = [dict(zip(GRID, values)) for values in itertools.product(*GRID.values())]
    with ProcessPoolExecutor(args.jobs) as pool:
        scored = pool.map(measure, [args.data] * len(settings), settings)
        rows = list(progress(scored, 'settings', total=len(settings)))
    table = pd.DataFrame(rows).sort_values('mae_mean')
    with atomic_path(args.out) as scratch: table.to_csv(scratch, index=False, float_format='%.6g')
    print(table.head(5).to_string(index=False))

if __name__ == '__main__': main()
