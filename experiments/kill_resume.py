"""Kill a training at random moments, go on with it, and compare its weights with those of a run that was never stopped.

    python experiments/kill_resume.py                                  # 20 times kill -9 on the sample, into results/kill_resume.csv
    python experiments/kill_resume.py --signal TERM --kills 5 --out kill_term.csv
    python experiments/kill_resume.py --quick --out quick.csv          # 2 kills of one epoch

Each row is one run: when it was killed, what it had saved, whether all of that could be read, and whether the finished weights are equal
to the bit. The script fails if any of them is not.
"""
import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from bst_nbdev.core import atomic_path, device_name, file_digest, progress, source_commit
from bst_nbdev.resume import Checkpoints, load_state

CODES = dict(KILL=-signal.SIGKILL, TERM=128 + signal.SIGTERM, INT=128 + signal.SIGINT)

def start(*options):
    "A training in a process of its own"
    command = [sys.executable, '-m', 'bst_nbdev.cli', *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

def finish(process):
    "Wait for the end of a training, which must be a good one"
    errors = process.communicate()[1]
    if process.returncode: sys.exit(f'a training ended with {process.returncode}: {errors}')

def one(folder, options, seconds, name):
    "Kill a run after some seconds and finish it; a row of the table"
    process = start(*options, '--out', folder)
    try: errors, ended = process.communicate(timeout=seconds)[1], True
    except subprocess.TimeoutExpired:
        process.send_signal(getattr(signal, f'SIG{name}'))
        errors, ended = process.communicate()[1], False
    states = Checkpoints(folder/'checkpoints').states()
    for state in states: load_state(state)  # fails if it is damaged
    early = process.returncode == -signal.SIGTERM or 'nothing was written' in errors or 'KeyboardInterrupt' in errors  # before it listens
    if not ended and not early and process.returncode not in (CODES[name], 0): sys.exit(f'ended with {process.returncode}: {errors}')
    begun = (folder/'run.json').exists() or (folder/'config.json').exists()
    finish(start('--resume', folder) if begun else start(*options, '--out', folder))
    return dict(signal=name, seconds=round(seconds, 2), exit=process.returncode, begun=begun, saved=states[-1].name if states else '')

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='sample', help='what to train on (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=2, help='of each run (default: %(default)s)')
    parser.add_argument('--kills', type=int, default=20, help='how many runs to kill (default: %(default)s)')
    parser.add_argument('--signal', default='KILL', choices=CODES, help='how (default: %(default)s)')
    parser.add_argument('--every', type=float, default=.5, help='seconds between checkpoints (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='2 kills of one epoch')
    parser.add_argument('--out', type=Path, default=Path('results/kill_resume.csv'), help='the result file (default: %(default)s)')
    a = parser.parse_args()
    if a.quick: a.epochs, a.kills = 1, 2
    options = ['--data', a.data, '--epochs', a.epochs, '--device', 'cpu', '--checkpoint-every', a.every]
    draw, rows, about = random.Random(a.seed), [], dict(device=device_name('cpu', torch.get_num_threads()), commit=source_commit())
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        finish(start(*options, '--out', whole := Path(place)/'whole'))
        span = time.monotonic() - began
        for number in progress(range(a.kills), 'kills'):
            row = one(folder := Path(place)/f'{number}', options, draw.uniform(0, span), a.signal)
            equal = file_digest(folder/'model.safetensors') == file_digest(whole/'model.safetensors')
            rows.append(dict(data=a.data, epochs=a.epochs, kill=number + 1, **row, equal=equal, **about))
            if not equal: sys.exit(f'{rows[-1]}: the weights differ')
    table = pd.DataFrame(rows)
    with atomic_path(a.out) as scratch: table.to_csv(scratch, index=False)
    print(f'{len(table)} runs stopped by SIG{a.signal}, {(table.saved != "").sum()} of them with something saved: the weights of all are equal to the bit')

if __name__ == '__main__': main()
