"""Test runs in processes of their own: killed and resumed, on a full disk, and in two processes at once.

nbs/07b_resume.ipynb and nbs/11_cli.ipynb test one process. `experiments/kill_resume.py` kills more often.
"""
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from bst_nbdev.core import DataError, file_digest
from bst_nbdev.sample import make_sample
from bst_nbdev.prepared import ARRAYS, load, save_prepared
from bst_nbdev.windows import RatingTensors
from bst_nbdev.resume import Checkpoints, load_state

ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'BST_PROGRESS': '0',
       'CUDA_VISIBLE_DEVICES': ''}
TRAIN = [sys.executable, '-m', 'bst_nbdev.cli']
TWO = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
ACCELERATE = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2']  # `--cpu` would start one process

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "Make a small synthetic data set of forty users"
    return make_sample(tmp_path_factory.mktemp('tiny')/'ratings', n_users=40, n_movies=150)

@pytest.fixture(scope='module')
def options(tiny):
    "Options of a short run that saves after each step"
    return ['--data', str(tiny), '--epochs', '2', '--device', 'cpu', '--checkpoint-every', '0']

@pytest.fixture(scope='module')
def whole(options, tmp_path_factory):
    "A run that was never stopped"
    folder = tmp_path_factory.mktemp('whole')/'run'
    done = run(*options, '--out', folder)
    assert done.returncode == 0, done.stderr
    return folder

def run(*arguments, command=TRAIN, env=None, **kwargs):
    "Run a command to its end"
    command = [*command, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV | (env or {}), **kwargs)

def interrupted(folder, options, number, states=3, command=TRAIN, env=None, target=lambda process: process):
    "Send a signal to a run, or its process `target`, after a few checkpoints; return exit code and stderr"
    process = subprocess.Popen([*command, *options, '--out', str(folder)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=ENV | (env or {}))
    seen, end = set(), time.monotonic() + 120
    while len(seen) < states and process.poll() is None and time.monotonic() < end:
        seen |= {path.name for path in Checkpoints(folder/'checkpoints').states()}
        time.sleep(.01)
    target(process).send_signal(number)
    errors = process.communicate()[1]
    return process.returncode, errors

def same(a, b):
    "Whether the models of two runs are equal to the bit"
    return file_digest(a/'model.safetensors') == file_digest(b/'model.safetensors')

@pytest.mark.parametrize('name, code', [('SIGKILL', -9), ('SIGTERM', 143), ('SIGINT', 130)])
def test_stopped_and_resumed(name, code, options, whole, tmp_path):
    "A resumed run has the weights and the log of the run that was never stopped, to the bit"
    folder = tmp_path/'run'
    found, errors = interrupted(folder, options, getattr(signal, name))
    assert found == code, errors
    advice = f'bst_train: stopped; .*: bst_train --resume {re.escape(str(folder))}\n'
    if code > 0: assert re.fullmatch(advice, errors), errors
    assert [load_state(path) for path in Checkpoints(folder/'checkpoints').states()]
    done = run('--resume', folder)
    assert done.returncode == 0 and same(folder, whole), done.stderr
    logs = [pd.read_csv(one/'training_log.csv').drop(columns='seconds') for one in (folder, whole)]
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}

def test_other_data_are_refused(tiny, options, tmp_path):
    "A run is not resumed with other data, and nothing is lost"
    folder = tmp_path/'run'
    interrupted(folder, options, signal.SIGKILL)
    other = make_sample(tmp_path/'other', n_users=41, n_movies=150)
    done = run('--resume', folder, '--data', other)
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    assert 'its checksum differs' in done.stderr, done.stderr
    assert Checkpoints(folder/'checkpoints').states() and (folder/'run.json').exists()

def limit(size):
    "Limit the size of this process's files in bytes: a larger one fails, as on a full disk"
    def apply():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    return apply

def test_full_disk_stops_with_one_line(options, whole, tmp_path):
    "A full disk (a limit on file sizes) leaves the last good checkpoint, from which the run is resumed"
    folder = tmp_path/'run'
    interrupted(folder, options, signal.SIGKILL)
    before = [path.name for path in Checkpoints(folder/'checkpoints').states()]
    done = run('--resume', folder, preexec_fn=limit(100_000))
    assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
    for text in 'cannot save the state', f'bst_train --resume {folder}':
        assert text in done.stderr, done.stderr
    assert [path.name for path in Checkpoints(folder/'checkpoints').states()][-1] == before[-1]
    assert run('--resume', folder).returncode == 0 and same(folder, whole)

def test_clock_and_locale(options, whole, tmp_path):
    "Time zone, language and a clock that was set back between two checkpoints do not change the weights"
    folder, abroad = tmp_path/'run', dict(TZ='Asia/Kathmandu', LC_ALL='tr_TR.UTF-8', LANG='tr_TR.UTF-8')
    interrupted(folder, options, signal.SIGKILL, env=abroad)
    states = Checkpoints(folder/'checkpoints').states()
    for age, path in enumerate(sorted(states)):
        for one in [path, *path.rglob('*')]: os.utime(one, (10**9 - 1000 * age,) * 2)  # the last one looks the oldest
    home = dict(TZ='America/St_Johns', LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    done = run('--resume', folder, env=home)
    assert done.returncode == 0 and len(states) > 1 and same(folder, whole), done.stderr

def read_only(folder, *arguments):
    "Run the command in a name space of its own, in which `folder` is a read-only file system"
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    name_space = ['unshare', '--map-root-user', '--mount', 'sh', '-c', script]
    return run(*arguments, command=[*name_space, str(folder), *TRAIN])

def test_a_read_only_file_system(tiny, options, tmp_path):
    "Data can be read from it; a run that would write to it ends with one line and changes nothing"
    if run(command=['unshare', '--map-root-user', '--mount', 'true']).returncode:
        pytest.skip('needs Linux and its name spaces')
    disk = tmp_path/'disk'
    save_prepared(load(tiny), disk/'prepared')
    interrupted(disk/'run', options, signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in disk.rglob('*')}
    done = read_only(disk, '--data', disk/'prepared', *options[2:], '--out', tmp_path/'elsewhere')
    assert done.returncode == 0 and (tmp_path/'elsewhere'/'metrics.json').exists(), done.stderr
    for wrong in ['--resume', disk/'run'], [*options, '--out', disk/'new']:
        done = read_only(disk, *wrong)
        assert done.returncode == 1 and done.stderr.count('\n') == 1, done.stderr
        assert 'Read-only file system' in done.stderr, done.stderr
    assert {path: path.stat().st_mtime_ns for path in disk.rglob('*')} == before

REPLACE = """
import itertools, sys
from bst_nbdev.prepared import ARRAYS, load, save_prepared
both = [load(path) for path in sys.argv[2:]]
for data in itertools.cycle(both):
    save_prepared(data, sys.argv[1])
    print('.', flush=True)
"""

def content(data):
    "All arrays of a data set as bytes"
    arrays = [getattr(data, name).tobytes() for name in ARRAYS]
    return [*arrays, data.users.ids.tobytes(), data.items.ids.tobytes()]

def test_prepared_data_are_replaced_while_they_are_read(tiny, tmp_path):
    "A reader gets one data set or the other, whole and unchanging, or a one-line error"
    paths = [tiny, make_sample(tmp_path/'other', n_users=41, n_movies=150)]
    expected, seen = [content(load(path)) for path in paths], []
    (tmp_path/'replace.py').write_text(REPLACE)
    command = [sys.executable, tmp_path/'replace.py', tmp_path/'prepared', *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV) as writer:
        writer.stdout.readline()
        try:
            end = time.monotonic() + 60
            while len(seen) < 20 or not all(one in [found for _, found in seen] for one in expected):
                assert time.monotonic() < end, len(seen)
                try: data = load(tmp_path/'prepared')
                except DataError as error: assert '\n' not in str(error)
                else: seen.append((data, content(data)))
        finally: writer.kill()
    assert all(found in expected and content(data) == found for data, found in seen)


# --- Several processes

TRAIN_AND_PREDICT = """
import json, sys
from pathlib import Path
import torch
from bst_nbdev import pipeline
from bst_nbdev.core import show_progress
from bst_nbdev.prepared import load
from bst_nbdev.training import predict, processes
from bst_nbdev.evaluation import evaluate_model, fit_model

show_progress(False)
data, out, dropout, preset = sys.argv[1:]
recipe = pipeline.Recipe(data, preset=preset, epochs=2, batch_size=128,
                         learning_rate=.002 if preset == 'both' else None)
own = pipeline.build_model
if dropout == '0':
    hidden = 'history_dropout', 'start_dropout', 'profile_dropout', 'moment_dropout', 'item_id_dropout', 'cold_start'
    off = dict(dropout=0., embedding_dropout=0., next_every=1, **dict.fromkeys(hidden, 0.))
    if preset not in ('both', 'fill-in'): off = dict(dropout=0., id_dropout=0.)
    pipeline.build_model = lambda *a, **k: own(*a, **k, **off)
split, batches, model = pipeline.build(recipe, load(data), 'cpu')
before = evaluate_model(model, batches['test'])
log = fit_model(model, batches, recipe.training(len(split.train)))
predictions, labels = predict(model, batches['test'])
group = processes()
targets = batches['train'].chunks.targets if hasattr(batches['train'], 'chunks') else []
found = dict(before=before, after=evaluate_model(model, batches['test']),
             log=log.drop(columns='seconds').to_dict('list'),
             labels=labels.tolist(), predictions=[x.tolist() for x in model.config.by_answer(predictions).values()],
             targets=len(targets), weights=[p.double().sum().item() for p in model.parameters()])
Path(f'{out}-{group.process_index}').write_text(json.dumps(found))
"""

def trained_by(command, tiny, folder, dropout, preset='both'):
    "Train with a command; return the result of each process"
    folder.mkdir()
    (folder/'train.py').write_text(TRAIN_AND_PREDICT)
    done = run(folder/'train.py', tiny, folder/'found', dropout, preset, command=command)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(path.read_text()) for path in sorted(folder.glob('found-*'))]

@pytest.mark.parametrize('preset, data', [('both', 'sample'), ('single-sequence', 'tiny')])
def test_two_processes_are_one_run(tiny, tmp_path, preset, data):
    "Without dropout, two processes give the predictions, the losses, the metrics and the weights of one"
    data = ROOT/'data'/'sample' if data == 'sample' else tiny
    [alone] = trained_by([sys.executable], data, tmp_path/'1', 0, preset)
    both = trained_by(TWO, data, tmp_path/'2', 0, preset)
    targets = [one['targets'] for one in both]
    assert len(both) == 2 and sum(targets) == alone['targets'] and max(targets) <= .6 * alone['targets']
    for one in both:
        assert one['labels'] == alone['labels']
        for found, expected in zip(one['predictions'], alone['predictions'], strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-3)
        for when in 'before', 'after': assert one[when] == pytest.approx(alone[when], abs=1e-4)
        for name, values in alone['log'].items():
            assert one['log'][name] == pytest.approx(values, abs=1e-4), name
    assert both[0]['weights'] == both[1]['weights']

def test_two_processes_with_dropout(tiny, tmp_path):
    "Each process draws its own random numbers: the run differs as with another seed; at first scores agree"
    [alone] = trained_by([sys.executable], tiny, tmp_path/'1', 1)
    both = trained_by(TWO, tiny, tmp_path/'2', 1)
    for one in both:
        assert one['before'] == pytest.approx(alone['before'], abs=1e-4)
        assert one['log']['loss'] == pytest.approx(alone['log']['loss'], abs=.1)
        assert one['after']['mae_mean'] == pytest.approx(alone['after']['mae_mean'], abs=.1)

def test_the_command_in_two_processes(options, tmp_path):
    "Under torchrun one process writes and prints, and a stopped run is resumed; batch norm is refused"
    folder, two = tmp_path/'run', [*TWO, '-m', 'bst_nbdev.cli']
    code, errors = interrupted(folder, options, signal.SIGTERM, command=two)
    assert code != 0 and f'bst_train --resume {folder}' in errors, errors[-2000:]
    assert Checkpoints(folder/'checkpoints').states()
    done = run('--resume', folder, command=two)
    assert done.returncode == 0 and done.stdout.count('saved to') == 1, done.stderr[-2000:]
    assert json.loads((folder/'metrics.json').read_text())['device'] == 'cpu, 2 processes'
    done = run(*options, '--preset', 'keras', '--out', tmp_path/'keras', command=two)
    assert done.returncode != 0 and 'batch norm needs the whole batch' in done.stderr, done.stderr[-2000:]
    assert not (tmp_path/'keras').exists()

def test_a_process_that_is_killed_ends_all(options, tmp_path):
    "The launch ends with an error, nothing hangs, and the run can be resumed from its checkpoints"
    folder, two = tmp_path/'run', [*TWO, '-m', 'bst_nbdev.cli']
    def worker(launcher):
        children = psutil.Process(launcher.pid).children()
        return next(one for one in children if 'bst_nbdev.cli' in one.cmdline())
    code, _ = interrupted(folder, options, signal.SIGKILL, command=two, target=worker)
    assert code == 1 and [load_state(path) for path in Checkpoints(folder/'checkpoints').states()]
    assert run('--resume', folder, command=two).returncode == 0

def test_accelerate_launch(options, tmp_path):
    "Accelerate's own launcher starts the command as torchrun does"
    done = run('-m', 'bst_nbdev.cli', *options, '--out', tmp_path/'run', command=ACCELERATE)
    assert done.returncode == 0 and done.stdout.count('saved to') == 1, done.stderr[-2000:]
    assert json.loads((tmp_path/'run'/'metrics.json').read_text())['device'] == 'cpu, 2 processes'

def test_mapped_arrays_are_not_copied(tiny, tmp_path):
    "Tensors on the CPU use the memory-mapped files of the prepared folder, which processes share"
    data = load(save_prepared(load(tiny), tmp_path/'prepared'))
    assert isinstance(data.rating, np.memmap)
    tensors = RatingTensors(data)
    assert tensors.rating.data_ptr() == data.rating.ctypes.data
    assert tensors.timestamp.data_ptr() == data.timestamp.ctypes.data

def test_runs_beside_each_other_keep_their_results(tiny, tmp_path):
    "Three seeds at once, into folders named by the command: three folders, one for each"
    command = [*TRAIN, '--data', str(tiny), '--epochs', '1', '--device', 'cpu']
    started = [subprocess.Popen([*command, '--seed', str(seed)], cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, text=True)
               for seed in range(3)]
    texts = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 3
    folders = {re.search(r'saved to (\S+)', text)[1] for text in texts}
    seeds = {json.loads((tmp_path/folder/'metrics.json').read_text())['recipe']['seed'] for folder in folders}
    assert len(folders) == 3 and seeds == {0, 1, 2}

def test_a_run_is_not_resumed_twice_at_once(options, tmp_path):
    folder = tmp_path/'run'
    interrupted(folder, options, signal.SIGKILL)
    (folder/'.lock').unlink(missing_ok=True)  # of the dead process; whose lock has ended with it
    first = subprocess.Popen([*TRAIN, '--resume', str(folder), '--checkpoint-every', '0'], env=ENV, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (folder/'.lock').exists() and time.monotonic() < end: time.sleep(.01)
    first.send_signal(signal.SIGSTOP)  # so that it cannot finish before the second looks
    second = run('--resume', folder)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1 and 'is being trained by another process' in second.stderr
    assert first.wait(timeout=120) == 0 and not (folder/'.lock').exists()
