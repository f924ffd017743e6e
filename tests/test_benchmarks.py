"""The benchmark measures what it says: equal results first, ratios the right way round, one file with fixed columns.

Never how many seconds something takes: that depends on the machine.
"""
import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bst_nbdev.core import show_progress

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT/'benchmarks'/'run.py'

@pytest.fixture
def bench(monkeypatch):
    "The script as a module; it is named as a new process will find it"
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location('run', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'run', module)
    spec.loader.exec_module(module)
    bars, threads = show_progress(False), torch.get_num_threads()
    yield module
    show_progress(bars)
    torch.set_num_threads(threads)

@pytest.fixture
def setting(bench): return bench.Setting(bench.find_data(), repeat=1, windows=256, threads=1)

SMALL = ['--data', 'sample', '--quick', '--windows', '256', '--threads', '1']

def quick(bench, out, only): bench.main([*SMALL, '--only', only, '--out', str(out)])


# --- The command and its file

def test_writes_all_columns_and_replaces_rows_of_the_same_work(bench, tmp_path, capsys):
    out = tmp_path/'deep'/'benchmark.csv'
    for only in 'data', 'training, keras, length 4, batch 128', 'evaluation, keras', 'optimizer, Adagrad': quick(bench, out, only)
    first = pd.read_csv(out)
    assert list(first.columns) == bench.COLUMNS
    assert first.work.str.startswith('sample: ').all() and (first.device == 'cpu, 1 thread').all() and (first.value > 0).all()
    assert set(first.unit) == {'s', 'examples/s', '%'}
    assert (first.ratio.isna() == first.baseline.isna()).all() and (first.ratio.dropna() > 0).all()
    for work in 'file to all windows', 'file to first batch', 'batch 128', 'batches alone', 'evaluation':  # ours beside every other way
        rows = first[first.work.str.contains(work) & ~first.work.str.contains('optimizer|share')]
        assert set(rows[rows.variant == bench.OURS].baseline) >= set(rows.baseline.dropna()) != set(), work
    assert not first.duplicated(['work', 'variant', 'baseline']).any()
    quick(bench, out, 'evaluation, keras')
    again = pd.read_csv(out)
    assert again[['work', 'variant', 'baseline']].equals(first[['work', 'variant', 'baseline']])
    other = ~first.work.str.contains('evaluation')
    pd.testing.assert_frame_equal(again[other], first[other])
    assert [path.name for path in out.parent.iterdir()] == ['benchmark.csv']
    assert 'examples/s' in capsys.readouterr().out

def test_quick_writes_nothing_unless_asked(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bench.main([*SMALL, '--only', 'evaluation, keras'])
    assert not list(tmp_path.iterdir()) and 'evaluation, keras' in capsys.readouterr().out

def test_lists_its_jobs(bench, capsys):
    bench.main(['--list'])
    assert capsys.readouterr().out.splitlines() == list(bench.JOBS)

@pytest.mark.parametrize('arguments, part', [
    (['--only', 'nonsense'], "no job has 'nonsense' in its name"), (['--repeat', '0'], '--repeat is 0: give 1 or more'),
    (['--windows', '-1'], '--windows is -1'), (['--threads', '0'], '--threads is 0')])
def test_refuses_wrong_arguments(bench, capsys, arguments, part):
    with pytest.raises(SystemExit) as stopped: bench.main(['--data', 'sample', *arguments])
    assert stopped.value.code == 2 and part in capsys.readouterr().err

def test_refuses_data_that_cannot_be_measured(bench, tmp_path):
    def refuses(part, *arguments):
        with pytest.raises(SystemExit, match=f'error: .*{part}'): bench.main(['--quick', *map(str, arguments)])
    for name in 'ratings.csv', 'movies.csv': (tmp_path/name).touch()
    refuses('unknown data set .*nowhere', '--data', tmp_path/'nowhere')
    refuses('has the layout of csv, but the naive route reads that of ml-1m only', '--data', tmp_path)
    refuses('cannot write to', '--data', 'sample', '--out', tmp_path/'ratings.csv'/'a.csv')

def test_committed_figures_have_the_columns(bench):
    path = ROOT/'results'/'benchmark.csv'
    if not path.exists(): pytest.skip('not measured yet')
    found = pd.read_csv(path)
    assert list(found.columns) == bench.COLUMNS and (found.ratio.isna() == found.baseline.isna()).all()


# --- Measuring

def test_ratio_says_how_many_times_better_round_by_round(bench):
    rows = bench.table('w', 's', {'slow': [10., 40., 10.], 'middle': [5., 10., 10.], 'quick': [1., 2., 2.]}, ['slow', 'middle'])
    assert [(row['variant'], row['value'], row.get('baseline'), row.get('ratio')) for row in rows] == [
        ('slow', 10., None, None), ('middle', 10., 'slow', 2.), ('quick', 2., 'slow', 10.), ('quick', 2., 'middle', 5.)]
    rates = bench.table('w', 'examples/s', {'slow': [10.], 'quick': [30.]}, ['slow'])
    assert rates[1]['ratio'] == 3.
    assert bench.table('w', 'MB', {'large': [900.], 'small': [300.]}, ['large'])[1]['ratio'] == 3.

def test_variants_take_turns(bench):
    calls = []
    measures = {name: lambda name=name: calls.append(name) or len(calls) for name in 'ab'}
    assert bench.alternate(measures, 2) == dict(a=[1, 3], b=[2, 4]) and calls == list('abab')


# --- Equal before timed

def test_unequal_is_refused(bench):
    bench.must_equal('things', ([1, 2], np.array([1, 2])), (torch.ones(2), np.ones(2)))
    for theirs in [1, 3], [1, 2, 2], [[1, 2]]:
        with pytest.raises(SystemExit, match='nothing was measured: things differ'): bench.must_equal('things', ([1, 2], theirs))

def test_unequal_batches_are_not_timed(bench, setting, monkeypatch):
    data = bench.load(setting.path)
    monkeypatch.setattr(bench, 'alternate', lambda *a, **k: pytest.fail('it was timed'))
    right = bench.ArrayDataset.__getitem__
    def wrong(self, index):
        inputs, label = right(self, index)
        return inputs | {'rating': inputs['rating'] * (index != 260)}, label  # in one window, which is not in the first batch
    monkeypatch.setattr(bench.ArrayDataset, '__getitem__', wrong)
    for job in bench.training_job, bench.evaluation_job:
        with pytest.raises(SystemExit, match='the batches of bst_nbdev and per-example Dataset, arrays differ'):
            list(job(setting, data, 'keras', 4, batch_size=256))

def test_unequal_windows_are_not_timed(bench, setting, monkeypatch):
    naive = bench.naive_windows
    def wrong(folder, length, step):
        user, item, rating = naive(folder, length, step)
        rating[-1, -1] = 6 - rating[-1, -1] or 1
        item[-1, 0] += 1
        return user, item, rating
    monkeypatch.setattr(bench, 'naive_windows', wrong)
    monkeypatch.setattr(bench, 'alternate', lambda *a, **k: pytest.fail('it was timed'))
    with pytest.raises(SystemExit, match='the windows differ'): list(bench.data_job(setting, None))

def test_an_archive_gives_the_same_as_a_folder(bench, setting, tmp_path):
    archive = shutil.make_archive(str(tmp_path/'sample'), 'zip', setting.path.parent, setting.path.name)
    rows = list(bench.data_job(replace(setting, path=Path(archive)), None))  # checks for itself that the windows are equal
    assert {row['variant'] for row in rows} == {bench.NAIVE, bench.OURS, f'{bench.OURS}, prepared folder'}


# --- One network, two answers

def test_answers_are_compared_with_the_preset_that_only_rates(bench, setting):
    rows = list(bench.answers_job(setting, bench.load(setting.path), items=400))
    assert [row['unit'] for row in rows] == ['ms', 'ms', 'users/s', 'users/s', 'ms', 'ms', 'labels/s', 'labels/s']
    assert [row['variant'] for row in rows] == [*bench.ANSWERS.values()] * 4 and all(row['value'] > 0 for row in rows)
    assert [row.get('baseline') for row in rows] == [None, bench.ANSWERS['rating']] * 4

def test_a_made_up_catalogue_has_the_users_and_their_times(bench, setting):
    data = bench.load(setting.path)
    large = bench.made_up_catalogue(data, 1000)
    assert large.num_items == 1000 and (large.user == data.user).all() and (large.timestamp == data.timestamp).all()
    assert np.bincount(large.item)[1:].min() > 0 and not large.frame().duplicated(['user', 'item']).any()


# --- Memory

def test_peak_memory_is_that_of_its_own_process(bench, setting):
    "In a new process, because the peak of this one may be that of another test"
    code = 'import numpy, run; before = run.peak_memory(); ballast = numpy.ones(50_000_000); print(before, run.peak_memory())'
    done = subprocess.run([sys.executable, '-c', code], cwd=SCRIPT.parent, capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert after > before + 350  # 400 MB, every page touched
    ballast = np.ones(50_000_000)
    assert 50 < bench.fresh(bench.memory_of_nothing, setting) < bench.peak_memory() - 150  # nothing of the ballast
    del ballast

def test_memory_of_a_run_is_measured(bench, setting): assert bench.memory_of_run(setting, 'keras', length=4) > 50


# --- The service under load

def test_serving_measures_each_load(bench, tmp_path):
    serving = importlib.import_module('serving')
    out = tmp_path/'served.csv'
    serving.main(['--data', 'sample', '--length', '.5', '--clients', '2', '--threads', '1', '--out', str(out)])
    rows = pd.read_csv(out).set_index('work').value
    assert (rows[rows.index.str.endswith('errors')] == 0).all()
    assert rows['sample: service, /recommend, 2 clients'] > 0 and rows['sample: service, memory of the service before'] > 50
    assert rows['sample: service, /recommend, 1 client, after that'] > 0


# --- The cost of a rating

@pytest.fixture
def scale(monkeypatch):
    "benchmarks/scale.py and benchmarks/make_large.py as modules"
    monkeypatch.syspath_prepend(SCRIPT.parent)
    before = show_progress(False)
    yield importlib.import_module('scale'), importlib.import_module('make_large')
    show_progress(before)

def test_large_sets_have_the_shape_they_claim(scale, tmp_path, monkeypatch):
    make = scale[1]
    monkeypatch.setattr(make, 'BLOCK', 5000)
    folder = make.make_large(tmp_path/'a', 30_000, seed=3)
    ratings, films = pd.read_csv(folder/'ratings.csv'), pd.read_csv(folder/'movies.csv')
    assert list(ratings) == ['userId', 'movieId', 'rating', 'timestamp'] and list(films) == ['movieId', 'title', 'genres']
    assert len(ratings) == 30_000 and ratings.userId.nunique() == round(make.USERS * 30_000 / make.RATINGS)
    assert ratings.sort_values(['userId', 'movieId'], kind='stable').index.is_monotonic_increasing
    assert not ratings.duplicated(['userId', 'movieId']).any() and ratings.movieId.isin(films.movieId).all()
    assert set(ratings.rating * 2) == set(range(1, 11)) and ratings.timestamp.between(make.FIRST_DAY, make.LAST_DAY).all()
    counts = ratings.userId.value_counts()
    assert counts.min() >= make.LEAST and counts.max() > 3 * counts.median()                 # long-tailed
    assert films.title.str.contains(',').any() and films.title.str.fullmatch(r'.* \(\d{4}\)').all()
    again, other = make.make_large(tmp_path/'b', 30_000, seed=3), make.make_large(tmp_path/'c', 30_000, seed=4)
    for name in 'ratings.csv', 'movies.csv':
        assert (again/name).read_bytes() == (folder/name).read_bytes() != (other/name).read_bytes()

@pytest.mark.parametrize('numbers', [[7], [0, 5, 10, 99, 100], [1_697_164_147, 3]])
def test_lines_are_those_of_a_loop(scale, numbers):
    n, halves = np.array(numbers) + 1, np.arange(len(numbers)) + 1
    expected = ''.join(f'{u},{i},{h / 2:.1f},{t}\n' for u, i, h, t in zip(n, n[::-1], halves, n))
    assert scale[1].lines(n, n[::-1], halves, n).decode() == expected

def test_large_refuses(scale, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['make_large.py', str(tmp_path/'a'), '--ratings', '10'])
    with pytest.raises(SystemExit, match='make_large: 10 ratings are too few: ask for 40 or more'): scale[1].main()
    assert not list(tmp_path.iterdir())

def test_memory_is_limited_by_the_kernel(scale):
    "Not by counting what a process has reserved; the group is gone afterwards."
    with scale[0].limited(60_000_000) as within:
        if within is None: pytest.skip('no memory cgroup can be made here')
        codes = [subprocess.run([sys.executable, '-c', f'x = b"x" * {size}'], preexec_fn=within).returncode for size in (1_000, 200_000_000)]
    assert codes == [0, -9]
    with scale[0].limited('no number') as within: assert within is None

def test_scale_writes_its_columns_and_replaces_rows_of_the_same_size(scale, tmp_path, monkeypatch):
    bench, out = scale[0], tmp_path/'scale.csv'
    monkeypatch.setattr(bench, 'measure', lambda folder, ratings, a: [('load', 2., 's'), ('train', float(ratings), 'labels/s')])
    for sizes in (['200', '100'], ['100']): bench.main(['--sizes', *sizes, '--out', str(out)])
    found = pd.read_csv(out)
    assert list(found) == bench.COLUMNS and found.ratings.tolist() == [100, 100, 200, 200] and found.value.tolist() == [2, 100, 2, 200]

def test_scale_refuses_routes_that_differ(scale, tmp_path, monkeypatch):
    bench = scale[0]
    def job(name, data, *rest, before=None):
        folder = data/('out_of_core' if 'core' in name else 'prepared')
        folder.mkdir(parents=True)
        (folder/'user.npy').write_text(name)
        return []
    monkeypatch.setattr(bench, 'fresh', job)
    monkeypatch.setattr(bench, 'make_large', lambda folder, ratings: None)
    with pytest.raises(SystemExit, match='the two ways to prepare differ'): list(bench.measure(tmp_path, 100, None))

def test_scale_measures_a_small_set(scale, tmp_path):
    bench, data = scale[0], tmp_path/'set'
    scale[1].make_large(data/'csv', 4000)
    rows = [row for job in ('prepare', 'start') for row in bench.fresh(job, data)]
    assert [name for name, *_ in rows] == ['prepare', 'prepare: memory', 'load', 'split', 'seen rows', 'batches', 'plan of an epoch', 'start: memory']
    assert all(value > 0 for _, value, _ in rows)
# --- One device

def test_device_job_measures_rate_share_and_time(bench, setting):
    data = bench.load(setting.path)
    rows = {row['work'].removeprefix('device, '): row for row in bench.device_job(setting, data, size=512, goal=9., every=1)}
    work = 'training, rating, batch 512, float32'
    rate, share = rows[work], rows[f'{work}: share of the peak in float32']
    assert (rate['unit'], share['unit']) == ('examples/s', '%') and rate['value'] > 0 and 0 < share['value'] < 100
    assert rows['training time to MAE 9.0 on validation by random-windows']['value'] > 0 and rows['peak, product of matrices in float32']['value'] > 0

def test_operations_are_those_of_the_products(bench):
    layer = torch.nn.Linear(3, 5)
    assert bench.operations(layer, lambda found, label: found.sum(), dict(input=torch.ones(7, 3)), None) == 2 * 7 * 3 * 5 * 2  # forward, and the weight's gradient

def test_a_device_that_is_not_there_is_refused(bench):
    with pytest.raises(SystemExit, match="error: device 'nowhere' cannot be used here"): bench.main([*SMALL, '--device', 'nowhere'])

def test_a_planned_pass_is_the_beginning_of_a_whole_one(bench, setting):
    data = bench.load(setting.path)
    make = lambda: bench.PackedBatches(bench.Chunks(data, np.arange(len(data)), 32, 9), 512, shuffle=True)
    planned, whole = bench.Planned(make(), 1000), [label for _, label in make()]
    assert len(planned) == 2 and planned.labels == sum(map(len, whole[:2]))
    assert all(label.equal(other) for (_, label), other in zip(planned, whole))


# --- Other libraries, and what was tried

def test_others_get_the_windows_and_the_sizes(bench, setting, tmp_path):
    others, data = importlib.import_module('others'), bench.load(setting.path)
    windows = bench.some_windows(data, np.arange(len(data)), 10, 64)
    others.write_windows(tmp_path, windows, data, 1, 32)
    inputs, label = windows[torch.arange(64)]
    with np.load(tmp_path/'windows.npz') as found:
        assert (found['item'] == inputs['item'].numpy()).all() and (found['click'] == (label >= 4).numpy()).all()
        assert (found['age_group'] == inputs['user_features'][:, list(data.user_features).index('age_group')].numpy()).all()
    said = json.loads((tmp_path/'setting.json').read_text())
    assert said['rows']['item'] == len(data.items) > inputs['item'].max() and said['features'] == list(data.user_features)

def test_ours_has_the_layers_of_the_others(bench, setting):
    others, data = importlib.import_module('others'), bench.load(setting.path)
    windows = bench.some_windows(data, np.arange(len(data)), 10, 64)
    ours = others.same_sizes(data, windows, 256, False, 32)
    block = ours.model.encoder.blocks[0]
    assert len(ours.model.encoder.blocks) == 2 and block.network[0].out_features == 256 and block.attention.heads == 4 and len(ours.answer()) == 64
    assert len(others.packed(data, np.arange(500), 10, 128).answer()) == 500

def test_a_library_that_is_not_installed_is_named(bench, tmp_path, capsys):
    others = importlib.import_module('others')
    np.savez(tmp_path/'windows.npz', user=np.ones(1))
    (tmp_path/'setting.json').write_text('{}')
    with pytest.raises(others.BSTError, match="deepctr ended with: ModuleNotFoundError: No module named 'tensorflow'"): others.Worker(sys.executable, 'deepctr', tmp_path)
    for arguments, part in ([], 'no library to compare with'), (['--deepctr', 'nowhere/python'], '--deepctr: nowhere/python is no Python'):
        with pytest.raises(SystemExit): others.main(arguments)
        assert part in capsys.readouterr().err

def test_speed_compares_each_trial_with_what_is(bench, tmp_path, capsys):
    speed, out = importlib.import_module('speed'), tmp_path/'speed.csv'
    for only in 'profile', 'float32 products': speed.main(['--data', 'sample', '--quick', '--labels', '256', '--threads', '1', '--only', only, '--out', str(out)])
    rows = pd.read_csv(out)
    shares = rows[rows.unit == '%'].groupby('work').value.sum()
    assert len(shares) == 2 and np.allclose(shares, 100, atol=.1)
    trials = rows[rows.unit == 'labels/s'].set_index('variant')
    assert trials.loc['float32 products in medium precision', 'baseline'] == speed.AS_IT_IS and trials.value.gt(0).all()
    for arguments, part in (['--preload', 'jemalloc=nowhere.so'], "--preload jemalloc: there is no file 'nowhere.so'"), (['--labels', '0'], '--labels is 0'):
        with pytest.raises(SystemExit): speed.main(arguments)
        assert part in capsys.readouterr().err

# --- Beside busy processes

def test_threads_are_measured_with_nothing_set(bench, tmp_path, monkeypatch, capsys):
    threads, out = importlib.import_module('threads'), tmp_path/'threads.csv'
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    assert not [name for name in threads.environment() if name.startswith(threads.THREAD_VARIABLES)]
    assert threads.environment(GOMP_SPINCOUNT='9')['GOMP_SPINCOUNT'] == '9'
    figures = {False: (2., 'MAE 0.6'), True: (4., 'MAE 0.6')}
    monkeypatch.setattr(threads, 'train', lambda busy=False, **variables: figures[busy])
    threads.main(['--repeat', '1', '--out', str(out)])
    rows = pd.read_csv(out).set_index('variant')
    assert list(pd.read_csv(out)) == bench.COLUMNS and rows.loc[threads.BUSY, 'ratio'] == .5
    figures[True] = (4., 'MAE 0.7')
    with pytest.raises(SystemExit, match='the figures differ'): threads.main(['--repeat', '1', '--out', str(out)])

def test_a_busy_process_is_stopped_again(bench):
    threads = importlib.import_module('threads')
    with threads.busy_process() as process: assert process.poll() is None
    assert process.poll() is not None
