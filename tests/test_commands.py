"""Commands as their users meet them: in processes of their own, with pipes, signals and full disks.

What a single command prints is tested in nbs/11_cli.ipynb and nbs/11a_update_command.ipynb.
"""
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from bst_nbdev.core import IN_USE
from bst_nbdev.data import from_frame
from bst_nbdev.pipeline import Recipe, train
from bst_nbdev.prepared import load, sample_folder, save_prepared
from bst_nbdev.runs import save_run

COMMANDS = 'bst_prepare', 'bst_train', 'bst_update', 'bst_evaluate', 'bst_recommend', 'bst_items', 'bst_users', 'bst_serve'
HEAVY = 'torch', 'numpy', 'pandas', 'accelerate', 'matplotlib', 'torchmetrics', 'huggingface_hub'
ALONE = dict(os.environ, OMP_NUM_THREADS='1', BST_PROGRESS='1', COLUMNS='80')

def program(command, before='', after=''):
    "Arguments of a process that runs a command as its script does"
    code = f'import sys; from bst_nbdev.start import {command}\n{before}\ntry: code = {command}()\nfinally: {after or "pass"}\nsys.exit(code)'
    return [sys.executable, '-c', code]

def run(command, *arguments, after='', **options):
    "Run a command to its end"
    return subprocess.run([*program(command, after=after), *map(str, arguments)], capture_output=True, text=True, env=ALONE, **options)

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A trained run"
    return save_run(train(Recipe(epochs=1), device='cpu'), tmp_path_factory.mktemp('runs')/'run')


def equal(found, wanted): assert found == wanted


# --- At once

LOADED = f'print(sorted({{*{HEAVY!r}}} & {{*sys.modules}}), file=sys.stderr)'

@pytest.mark.parametrize('command', COMMANDS)
def test_help_and_what_is_typed_wrongly_load_nothing_heavy(command, tmp_path):
    wrong = {'bst_prepare': ['--memory'], 'bst_train': ['--preset', 'papper'], 'bst_evaluate': ['models/run1'],
             'bst_recommend': ['models/run1', '--user', '1'], 'bst_items': ['models/run1', 'x'], 'bst_serve': ['models/run1'],
             'bst_users': ['models/run1'], 'bst_update': ['models/run1', '--data', 'x']}[command]
    for arguments, code in (['--help'], 0), (['--version'], 0), (['--colour'], 2), (wrong, None):
        done = run(command, *arguments, after=LOADED, cwd=tmp_path)
        *said, loaded = done.stderr.splitlines()
        equal(loaded, '[]')
        if code == 0: equal((done.returncode, said), (0, []))
        else: assert done.returncode == (code or done.returncode) != 0 and len(said) == 1, done.stderr

@pytest.mark.parametrize('command', COMMANDS)
def test_help_has_groups_and_two_examples(command):
    text = run(command, '--help').stdout
    groups = re.findall(r'^([a-z ]+):$', text, flags=re.M)
    examples = re.findall(rf'^  ({command} .*|{command})$', text.split('examples:')[1], flags=re.M)
    assert len(groups) >= 4 and len(examples) == 2, text
    assert max(map(len, text.splitlines())) <= 100, text
    assert not re.search(r'\b(None|True|False)\b', text), text                                         # words of Python
    options = set(re.findall(r'--[\w-]+', text.split('examples:')[0]))
    for example in examples: assert set(re.findall(r'--[\w-]+', example)) <= options, example

def test_groups_of_bst_train():
    text = run('bst_train', '--help').stdout
    places = [text.index(f'\n{group}:\n') for group in ('data', 'model', 'training', 'output', 'examples')]
    equal(places, sorted(places))

def test_recommender_needs_no_pictures_metrics_or_hub(folder):
    code = ('import sys; from bst_nbdev.recommender import Recommender; '
            f'print(Recommender.load({str(folder)!r}, device="cpu").recommend([(1, 5)], k=1).item.tolist()); '
            'print({"matplotlib", "torchmetrics", "huggingface_hub"} & {*sys.modules})')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    equal(done.stdout.splitlines()[1:], ['set()'])

def test_package_keeps_its_threads_from_spinning_before_torch_is_loaded():
    code = 'import os, sys, bst_nbdev; print(os.environ["GOMP_SPINCOUNT"], "torch" in sys.modules)'
    env = {name: value for name, value in ALONE.items() if name not in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')}
    equal(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env).stdout, '1000 False\n')

@pytest.mark.parametrize('line, found', [('bst_train --pres', {'--preset '}), ('bst_train --preset s', {'single-sequence '}),
                                         ('bst_recommend run --format ', {'table', 'csv', 'json'}), ('bst_users --k', {'--k '})])
def test_a_shell_can_complete_options_and_values(line, found, tmp_path):
    "As argcomplete's function for bash asks"
    pytest.importorskip('argcomplete')
    answer = tmp_path/'answer'
    env = dict(ALONE, _ARGCOMPLETE='1', _ARGCOMPLETE_STDOUT_FILENAME=str(answer), _ARGCOMPLETE_IFS='|', COMP_LINE=line, COMP_POINT=str(len(line)),
               COMP_TYPE='9')
    subprocess.run(program(line.split()[0]), env=env, check=False, capture_output=True)
    equal(set(answer.read_text().split('|')), found)


# --- What is printed can be pasted

def pasted(line, folder):
    "Run a printed command as a shell would"
    command, *arguments = shlex.split(line)
    return run(command, *arguments, cwd=folder)

def test_printed_commands_work_when_pasted(tmp_path):
    "Ids that look like options, folders with spaces and quotes, or a hyphen in front"
    sample = load('sample')
    table = pd.DataFrame(dict(user=[f'-X{user}' for user in sample.user], item=[f'-{item}' for item in sample.item],
                              rating=sample.rating, timestamp=sample.timestamp)).head(2000)
    save_prepared(from_frame(table), tmp_path/"-my data's")
    done = run('bst_train', "--data=-my data's", '--out=-run', '--epochs', '1', '--device', 'cpu', cwd=tmp_path)
    equal((done.returncode, done.stderr), (0, ''))
    assert len(re.findall(r'^epoch 1 of 1: loss ', done.stdout, flags=re.M)) == 1, done.stdout
    assert max(len(line) for line in done.stdout[done.stdout.index('protocol'):].splitlines()) <= 80, done.stdout
    lines = re.findall(r'^(?:next:|     ) (bst_.*)$', done.stdout, flags=re.M)
    equal([line.split()[0] for line in lines], ['bst_evaluate', 'bst_recommend', 'bst_serve'])
    for line in lines[:2]: equal(pasted(line, tmp_path).stderr, '')
    assert pasted(f'{lines[2]} --port -1', tmp_path).stderr.startswith('bst_serve: port')         # it has read the run
    again = re.search('resume with: (.*)[)]', done.stdout)[1]
    equal(pasted(again, tmp_path).stdout, '-run is already finished; next: bst_evaluate ./-run\n')
    done = run('bst_prepare', "--data=-my data's", '--out=-a b', cwd=tmp_path)
    line = re.search('next: (.*)', done.stdout)[1]
    equal(pasted(f'{line} --epochs 1 --device cpu --out new', tmp_path).returncode, 0)

def test_data_of_a_known_name_in_this_folder_are_used(tmp_path):
    "`--data ml-1m` with ./ml-1m: no download, which would fail here"
    sample = sample_folder()
    for name in 'folder', 'archive': (tmp_path/name).mkdir()
    shutil.copytree(sample, tmp_path/'folder'/'ml-1m')
    with zipfile.ZipFile(tmp_path/'archive'/'ml-1m.zip', 'w') as file:
        for path in sample.iterdir(): file.write(path, f'ml-1m/{path.name}')
    for name in 'folder', 'archive':
        done = run('bst_prepare', '--data', 'ml-1m', '--out', 'prepared', cwd=tmp_path/name)
        equal((done.returncode, done.stderr), (0, ''))


# --- Pipes

def trained(folder): return sorted(path.name for path in Path(folder).iterdir() if path.name.startswith(('model', 'run.json')))

@pytest.mark.parametrize('both', [False, True], ids=['output', 'output and errors'])
def test_a_reader_that_ends_does_not_end_the_training(both, tmp_path):
    "bst_train | head -1"
    process = subprocess.Popen([*program('bst_train'), '--epochs', '1', '--device', 'cpu', '--out', 'run'], cwd=tmp_path, env=ALONE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT if both else subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith('Interactions(sample')
    process.stdout.close()
    errors = '' if both else process.stderr.read()
    equal((process.wait(timeout=300), errors, trained(tmp_path/'run')), (0, '', ['model.safetensors']))

@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no /dev/full here')
def test_full_disk_under_the_output(folder, tmp_path):
    with open('/dev/full', 'w') as full:
        for arguments in ['bst_items', folder, 'accordion 1990'], ['bst_train', '--epochs', '1', '--device', 'cpu', '--out', 'run']:
            command, *options = map(str, arguments)
            done = subprocess.run([*program(command), *options], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ALONE)
            equal((done.returncode, done.stderr), (1, f'{command}: the output cannot be written (No space left on device): '
                                                      'make room, or write it elsewhere\n'))
        done = subprocess.run([*program('bst_train'), '--help'], stdout=full, stderr=subprocess.PIPE, text=True, env=ALONE)
        assert done.returncode and done.stderr.count('\n') == 1, done.stderr
    equal(trained(tmp_path/'run'), ['model.safetensors'])


# --- Signals

@pytest.mark.parametrize('seconds', [0, .01, .03, .06, .1, .3, .6, 1., 1.5, 2., 2.5])
def test_ctrl_c_while_modules_load_is_one_line(seconds, tmp_path):
    "From the first line of the command on"
    process = subprocess.Popen([*program('bst_train', "print('begun', flush=True)"), '--epochs', '50', '--device', 'cpu'], cwd=tmp_path,
                               env=ALONE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    equal(process.stdout.readline(), 'begun\n')
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    text, errors = process.communicate(timeout=300)
    if 'Interactions' in text: return
    assert process.returncode == 130 and errors in ('bst_train: stopped\n', 'bst_train: stopped; nothing was written\n'), errors

def test_ctrl_c_ends_a_service_in_one_line(folder):
    process = subprocess.Popen([*program('bst_serve'), folder, '--port', '0', '--device', 'cpu'], env=ALONE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while 'look at' not in process.stdout.readline(): assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    equal((process.returncode, errors), (130, 'bst_serve: stopped\n'))

@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])
def test_a_terminal_that_is_closed_loses_nothing(name, tmp_path):
    process = subprocess.Popen([*program('bst_train'), '--epochs', '50', '--device', 'cpu', '--out', 'run'], cwd=tmp_path, env=ALONE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not process.stdout.readline().startswith('epoch 1 '): assert process.poll() is None
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=300)
    equal((process.returncode, errors), (128 + getattr(signal, name), 'bst_train: stopped; resume with: bst_train --resume run\n'))
    assert any((tmp_path/'run'/'checkpoints').iterdir())

def test_prepare_clears_what_a_killed_one_left(tmp_path):
    dead = tmp_path/'.prepared.abcdefg1'
    dead.mkdir()
    (dead/IN_USE).touch()
    (dead/'prepared').mkdir()
    os.utime(dead/IN_USE, (0, 0))
    equal(run('bst_prepare', '--out', 'other', cwd=tmp_path).returncode, 0)
    equal([path.name for path in tmp_path.iterdir()], ['other'])
