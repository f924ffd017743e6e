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
import ast
import gc
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from bst_nbdev.core import BSTError, atomic_path, check_writable, progress, seed_everything, show_progress, source_commit
from bst_nbdev.data import data_folder, download, find_layout, load, load_prepared, movielens_name, open_files, read_movielens, sample_folder, save_prepared
from bst_nbdev.evaluation import compare
from bst_nbdev.model import PRESETS, make_loss, make_model
from bst_nbdev.pipeline import Recipe, build
from bst_nbdev.sequences import Batches, RatingTensors, Windows, make_batches, make_split, window_targets
from bst_nbdev.training import TrainingConfig, fit, make_optimizer, make_schedule, predict, train_epoch
from torchmetrics import MeanAbsoluteError

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ['work', 'variant', 'value', 'unit', 'ratio', 'baseline', 'device', 'commit']
HIGHER_IS_BETTER = {'examples/s': True, 's': False, 'MB': False}  # other units have no ratio
OURS, NAIVE, FRAME, ARRAYS = 'bst_nbdev', 'naive route', 'per-example Dataset, DataFrame', 'per-example Dataset, arrays'

@dataclass(frozen=True)
class Setting:
    "What a measurement needs to know"
    path: Path  # Folder or archive in the layout of ml-1m
    repeat: int  # Rounds
    batches: int  # Batches in a timed pass
    threads: int  # Threads of torch


# --- Measuring

def seconds(function):
    "How long a call takes"
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start

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

def notebook_function(notebook, name):
    "A function that stands in a notebook without being exported, such as a naive version: so there is one copy of it only"
    for cell in json.loads((ROOT/'nbs'/notebook).read_text(encoding='utf-8'))['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or f'def {name}(' not in source: continue
        found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name]
        if not found: continue
        names = dict(np=np, pd=pd)
        exec(compile(ast.Module(found, []), notebook, 'exec'), names)
        return names[name]
    raise SystemExit(f'nbs/{notebook} defines no function {name}: say in benchmarks/run.py where it stands now')

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
    "The same windows in batches, by each variant"
    everything = windows[torch.arange(len(windows))]
    return {FRAME: DataLoader(FrameDataset(*everything), batch_size, shuffle), ARRAYS: DataLoader(ArrayDataset(*everything), batch_size, shuffle),
            OURS: Batches(windows, batch_size, shuffle)}

def same_batches(windows, batch_size):
    "Make sure that all variants hand out the same first and last batch when nothing is shuffled"
    few = Windows.__new__(Windows)
    found = {name: list(loader) for name, loader in loaders(windows, batch_size, shuffle=False).items()}
    for name in FRAME, ARRAYS:
        for at in 0, -1:
            (ours, label), (theirs, their_label) = found[OURS][at], found[name][at]
            must_equal(f'the batches of {OURS} and {name}', (list(ours), list(theirs)), (label, their_label), *((ours[k], theirs[k]) for k in ours))
