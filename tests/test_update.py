"""Test updates of trained runs: every form of data, ids of any type, and processes that are killed.

nbs/09b_update.ipynb and nbs/11a_update_command.ipynb test one process and one form. `experiments/kill_resume.py --update` kills more often.
"""
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bst_nbdev.core import ConfigError, DataError, file_digest
from bst_nbdev.data import from_frame
from bst_nbdev.out_of_core import prepare_out_of_core
from bst_nbdev.pipeline import Recipe, train
from bst_nbdev.prepared import load, save_prepared
from bst_nbdev.resume import Checkpoints, load_state
from bst_nbdev.recommender import Recommender
from bst_nbdev.runs import load_run, save_run
from bst_nbdev.sample import make_sample
from bst_nbdev.update import load_parent, open_update, plan_update, read_newer
from bst_nbdev.users import UserError

ROOT = Path(__file__).resolve().parent.parent
ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'BST_PROGRESS': '0', 'CUDA_VISIBLE_DEVICES': ''}
FILES = 'ratings.dat', 'users.dat', 'movies.dat'

def write(folder, tables):
    "Write tables of fields as a MovieLens folder"
    folder.mkdir()
    for name, rows in tables.items(): (folder/name).write_text(''.join('::'.join(row) + '\n' for row in rows), 'latin-1')
    return folder

@pytest.fixture(scope='module')
def grows(tmp_path_factory):
    "Folders of data before a moment and after it, which brings three new users and two new items"
    folder = tmp_path_factory.mktemp('grows')
    whole = make_sample(folder/'whole', n_users=40, n_movies=150)
    tables = {name: [line.split('::') for line in (whole/name).read_text('latin-1').splitlines()] for name in FILES}
    ratings = tables['ratings.dat']
    since = sorted(int(row[3]) for row in ratings)[int(.85 * len(ratings))]
    new_users = {row[0] for row in tables['users.dat'][::15]}
    recent = [row[1] for row in ratings if int(row[3]) >= since and row[0] not in new_users]
    new_items = set(sorted(set(recent), key=lambda item: (-recent.count(item), item))[:2])
    is_old = {'ratings.dat': lambda row: int(row[3]) < since and row[0] not in new_users and row[1] not in new_items,
              'users.dat': lambda row: row[0] not in new_users, 'movies.dat': lambda row: row[0] not in new_items}
    tables['ratings.dat'] = [row for row in ratings if int(row[3]) >= since or row[1] not in new_items]
    earlier = write(folder/'earlier', {name: [row for row in rows if is_old[name](row)] for name, rows in tables.items()})
    assert len(new_users) == 3 and len(new_items) == 2
    return earlier, write(folder/'later', tables)

@pytest.fixture(scope='module')
def parent(grows, tmp_path_factory):
    "A run on the earlier data"
    return save_run(train(Recipe(str(grows[0]), epochs=1), device='cpu', baselines=()), tmp_path_factory.mktemp('runs')/'parent')

def digests(folder): return {path.name: file_digest(path) for path in sorted(folder.rglob('*')) if path.is_file()}

def test_every_form_of_data_is_read_into_the_same_rows(grows, parent, tmp_path):
    "A folder, a CSV, a prepared folder and one that was sorted on disk"
    _, later = grows
    loaded, expected = load_parent(parent), None
    csv = tmp_path/'csv'
    csv.mkdir()
    ratings = load(later)
    table = ratings.frame().assign(timestamp=ratings.timestamp)
    columns = dict(user='userId', item='movieId')
    table.rename(columns=columns)[['userId', 'movieId', 'rating', 'timestamp']].to_csv(csv/'ratings.csv', index=False)
    genres = ['|'.join(np.array(ratings.genre_names)[row > 0]) for row in ratings.genres[1:]]
    movies = pd.DataFrame(dict(movieId=ratings.items.ids, title=ratings.titles[1:], genres=genres))
    movies.to_csv(csv/'movies.csv', index=False)
    with pytest.raises(DataError, match='columns of the users in csv are none'): read_newer(loaded, csv)
    forms = [later, save_prepared(ratings, tmp_path/'prepared'), prepare_out_of_core(later, tmp_path/'sorted', '2GB')]
    for form in forms:
        data, before = read_newer(loaded, form)
        found = [getattr(data, name) for name in ('user', 'item', 'rating', 'timestamp', 'offsets', 'genres', 'year', 'titles')]
        expected = expected or [*found, before]
        for one, other in zip([*found, before], expected, strict=True): np.testing.assert_array_equal(one, other)
        pd.testing.assert_frame_equal(data.history(int(data.users.ids[-1])), ratings.history(int(data.users.ids[-1])))
    assert isinstance(data.item, np.memmap)

def test_what_the_parent_knew_counts_as_learnt(grows, parent, tmp_path):
    "Else a small update would leave next to nothing to recommend"
    update = open_update(plan_update(parent, grows[1], epochs=1, old_share=0.))
    run = update.train('cpu', baselines=())
    counts = [Recommender.from_run(run).items.popularity, Recommender.load(save_run(run, tmp_path/'updated'), device='cpu').items.popularity]
    np.testing.assert_array_equal(*counts)
    before = Recommender.load(parent, device='cpu').items.popularity
    assert counts[0].sum() == update.before.sum() + len(run.split.train)
    assert (counts[0][:len(before)] >= before).all()
    assert Recommender.load(tmp_path/'updated', device='cpu').catalogue.words == ('film', 'films')

def test_ids_that_are_text(tmp_path):
    "And data without profiles, titles, genres and years, on a scale of ten"
    rng = np.random.default_rng(0)
    n = 900
    table = pd.DataFrame(dict(user=[f'u{i}' for i in rng.integers(0, 30, n)], item=[f'b {i}' for i in rng.integers(0, 60, n)],
                              rating=rng.integers(1, 11, n), timestamp=np.arange(n) * 1000)).drop_duplicates(['user', 'item'])
    scale = range(1, 11)
    old = save_prepared(from_frame(table[:500], rating_values=scale, name='old'), tmp_path/'old')
    more = pd.concat([table, pd.DataFrame(dict(user=['a new one'] * 2, item=['b 1', 'a'], rating=[1, 9], timestamp=[10**6] * 2))])
    new = save_prepared(from_frame(more, rating_values=scale, name='new'), tmp_path/'new')
    run = save_run(train(Recipe(str(old), epochs=1), device='cpu', baselines=()), tmp_path/'run')
    updated = open_update(plan_update(run, new, epochs=1)).train('cpu', baselines=())
    assert updated.interactions.users.ids[-1] == 'a new one' and 'a' in updated.interactions.items.ids[-3:]
    again = load_run(save_run(updated, tmp_path/'updated'), device='cpu')
    np.testing.assert_array_equal(again.interactions.item, updated.interactions.item)
    numbers = from_frame(more.assign(user=np.arange(len(more))), rating_values=scale)
    with pytest.raises(DataError, match='the ids of the users in frame are whole numbers'):
        read_newer(load_parent(run), save_prepared(numbers, tmp_path/'numbers'))
    tens = from_frame(more.assign(rating=more.rating * 10), rating_values=(1, 100))
    with pytest.raises(DataError, match='is not on the scale of the model'):
        read_newer(load_parent(run), save_prepared(tens, tmp_path/'tens'))

def test_new_values_of_a_profile(grows, parent, tmp_path):
    "Are appended, and the model has a row for them"
    ratings = load(grows[1])
    sex = ratings.user_features['sex']
    other = replace(sex, values=type(sex.values)(np.array(['A', *sex.values.ids])),
                    rows=np.where(np.arange(len(sex.rows)) == 3, 1, sex.rows + (sex.rows > 0)).astype(np.int32))
    data = replace(ratings, user_features=ratings.user_features | dict(sex=other))
    update = open_update(plan_update(parent, save_prepared(data, tmp_path/'newer'), epochs=1))
    assert update.interactions.user_features['sex'].values.ids.tolist() == [*sex.values.ids, 'A']
    run = update.train('cpu', baselines=())
    assert run.model.config.feature_rows[0] == 4
    again = load_run(save_run(run, tmp_path/'run'), device='cpu')
    assert again.interactions.user_features['sex'].rows.max() == 3

@pytest.mark.parametrize('preset, settings', [('single-sequence', {}), ('rating', {}), ('next', dict(protocol='leave-last-out'))])
def test_other_presets(grows, tmp_path, preset, settings):
    "Are updated and loaded again, those with a table of users too"
    one = save_run(train(Recipe(str(grows[0]), preset, epochs=1, **settings), device='cpu', baselines=()), tmp_path/'one')
    result = open_update(plan_update(one, grows[1], epochs=1)).train('cpu', baselines=())
    again = load_run(save_run(result, tmp_path/'two'), device='cpu')
    np.testing.assert_array_equal(again.split.test, result.split.test)
    assert all(value.equal(again.model.state_dict()[name]) for name, value in result.model.state_dict().items())

def test_imputation_is_refused(grows, tmp_path):
    "A model that reads later ratings cannot be scored on what came since"
    run = train(Recipe(str(grows[0]), 'fill-in', protocol='random-ratings', epochs=1), device='cpu', baselines=())
    with pytest.raises(ConfigError, match='fills in ratings between known ones'): load_parent(save_run(run, tmp_path/'run'))

def test_known_users_move_on(grows, parent):
    "Histories hold what came since; users who joined are strangers with a profile; unknown items are left out"
    old, new = (Recommender.load(parent, data=data, device='cpu') for data in grows)
    ratings = load(grows[1])
    longer = [int(user) for user in old.users.interactions.users.ids if len(new.history(int(user))) > len(old.history(int(user)))]
    assert longer and (new.history(longer[0]).item != 0).all()
    joined = next(int(user) for user in ratings.users.ids if int(user) not in old.users.interactions.users.ids)
    assert new.history(joined).user == 0 and any(new.history(joined).profile) and len(new.recommend(joined, k=3)) == 3
    with pytest.raises(UserError, match='no user has the id'): old.history(joined)

def start(module, *options):
    "Start a command in a process of its own"
    command = [sys.executable, '-m', f'bst_nbdev.{module}', *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)

def test_killed_at_random_moments(grows, parent, tmp_path):
    "The parent stays as it is to the byte, and the update is resumed to the same bits"
    options = [parent, '--data', grows[1], '--epochs', 2, '--device', 'cpu', '--checkpoint-every', 0]
    untouched, expected = digests(parent), tmp_path/'whole'
    process = start('update_command', *options, '--out', expected)
    assert process.wait(300) == 0, process.stderr.read()
    draw = random.Random(0)
    for number in range(3):
        folder = tmp_path/f'{number}'
        process, states, end = start('update_command', *options, '--out', folder), [], time.monotonic() + 120
        wanted = draw.randrange(1, 5)
        seen = set()
        while len(seen) < wanted and process.poll() is None and time.monotonic() < end:
            seen |= {path.name for path in Checkpoints(folder/'checkpoints').states()}
            time.sleep(.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        states = Checkpoints(folder/'checkpoints').states()
        for path in states: load_state(path)
        assert digests(parent) == untouched
        resumed = start('cli', '--resume', folder)
        assert resumed.wait(300) == 0, resumed.stderr.read()
        assert file_digest(folder/'model.safetensors') == file_digest(expected/'model.safetensors')
        assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    assert digests(parent) == untouched
    again = start('cli', '--resume', expected)
    assert again.wait(60) == 0 and 'is already finished' in again.stdout.read()
