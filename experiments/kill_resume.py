"""Kill trainings at random moments, resume them, and compare the weights with those of a whole run.

    python experiments/kill_resume.py                          # 20 times kill -9 -> results/kill_resume.csv
    python experiments/kill_resume.py --signal TERM --kills 5 --out kill_term.csv
    python experiments/kill_resume.py --quick --out quick.csv  # 2 kills of one epoch
    python experiments/kill_resume.py --update runs/before --data after --kills 10 --out results/kill_update.csv

Each row is one run: when it was killed, which checkpoint it had saved, and whether the weights at the
end are equal to the bit. The script fails if a checkpoint is damaged or the weights of a run differ. With
--update the runs are updates of a finished run with newer data (bst_update); its folder must not change.
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

from bst_nbdev.resume import Checkpoints, load_state
from bst_nbdev.core import atomic_path, device_name, file_digest, progress, source_commit

EXIT_CODES = dict(KILL=-signal.SIGKILL, TERM=128 + signal.SIGTERM, INT=128 + signal.SIGINT)

def start(*options, module='cli'):
    "Start a training in a process of its own"
    command = [sys.executable, '-m', f'bst_nbdev.{module}', *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

def finish(process):
    "Wait until a training has ended, and fail if it did not succeed"
    errors = process.communicate()[1]
    if process.returncode: sys.exit(f'a training ended with {process.returncode}: {errors}')

def digests(folder):
    "Checksum of each file of a run; none without a run"
    return {path: file_digest(path) for path in sorted(folder.rglob('*')) if path.is_file()} if folder else {}

def kill_and_resume(folder, options, module, seconds, signal_name):
    "Kill a run after some seconds and finish it; return a row of the table"
    process, ended = start(*options, '--out', folder, module=module), True
    try:
        errors = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(getattr(signal, f'SIG{signal_name}'))
        errors, ended = process.communicate()[1], False
    states = Checkpoints(folder/'checkpoints').states()
    for state in states: load_state(state)  # fails if it is damaged
    code = process.returncode
    no_handler_yet = 'nothing was written' in errors or 'KeyboardInterrupt' in errors
    too_early = code == -signal.SIGTERM or no_handler_yet
    if not ended and not too_early and code not in (EXIT_CODES[signal_name],
                                                    0): sys.exit(f'ended with {code}: {errors}')
    begun = (folder/'run.json').exists() or (folder/'config.json').exists()
    finish(start('--resume', folder) if begun else start(*options, '--out', folder, module=module))
    saved = states[-1].name if states else ''
    return dict(signal=signal_name, seconds=round(seconds, 2), exit=code, begun=begun, saved=saved)

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', default='sample', help='data to train on (default: %(default)s)')
    parser.add_argument('--update', type=Path, help='a finished run that is updated with the data')
    parser.add_argument('--epochs', type=int, default=2, help='of each run (default: %(default)s)')
    parser.add_argument('--kills', type=int, default=20,
                        help='number of runs to kill (default: %(default)s)')
    parser.add_argument('--signal', default='KILL', choices=EXIT_CODES,
                        help='signal to send (default: %(default)s)')
    parser.add_argument('--every', type=float, default=.5,
                        help='seconds between checkpoints (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='2 kills of one epoch')
    parser.add_argument('--out', type=Path, default=Path('results/kill_resume.csv'),
                        help='the result file (default: %(default)s)')
    args = parser.parse_args()
    if args.quick: args.epochs, args.kills = 1, 2
    options = ['--data', args.data, '--epochs', args.epochs, '--device', 'cpu', '--checkpoint-every',
               args.every]
    module, untouched = 'update_command' if args.update else 'cli', digests(args.update)
    if args.update: options = [args.update, *options]
    source = dict(device=device_name('cpu', torch.get_num_threads()), commit=source_commit())
    draw, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch)/'reference'
        began = time.monotonic()
        finish(start(*options, '--out', reference, module=module))
        duration = time.monotonic() - began
        expected = file_digest(reference/'model.safetensors')
        for number in progress(range(args.kills), 'kills'):
            folder = Path(scratch)/f'{number}'
            row = kill_and_resume(folder, options, module, draw.uniform(0, duration), args.signal)
            equal = file_digest(folder/'model.safetensors') == expected
            rows.append(dict(data=args.data, epochs=args.epochs, kill=number + 1, **row, equal=equal,
                             **source))
            if not equal: sys.exit(f'{rows[-1]}: the weights differ')
            if digests(args.update) != untouched: sys.exit(f'{rows[-1]}: the parent has changed')
    table = pd.DataFrame(rows)
    with atomic_path(args.out) as scratch: table.to_csv(scratch, index=False)
    saved = (table.saved != '').sum()
    print(f'{len(table)} runs stopped by SIG{args.signal}, {saved} of them with a checkpoint: '
          'the weights of all are equal to the bit')

if __name__ == '__main__': main()
