"""Bad input, as a user meets it: one clear line on standard error, an exit code, and nothing on disk that was not there before.

Each case calls a command in a folder of its own. `refused` looks at the exit code, at standard error, at warnings, and at every file and
folder, hidden ones too, before and after. Messages name the file and the row where there is one, and end in what to do.
"""
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import warnings
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from bst_nbdev import cli, movielens, prepared, train_command, update
from bst_nbdev.core import BSTError, DataError, file_digest, show_progress
from bst_nbdev.data import from_frame
from bst_nbdev.movielens import read_movielens
from bst_nbdev.prepared import ARRAYS, PREPARED_FILES, load_vocabularies, save_prepared, save_vocabularies
from bst_nbdev.names import OBJECTIVES, PROTOCOLS
from bst_nbdev.presets import PRESETS
from bst_nbdev.options import read_csv_file
from bst_nbdev.pipeline import Recipe, train
from bst_nbdev.runs import create_run_folder, load_run, save_run

# --- A small world in three formats: six users, twelve films, eight ratings each

USERS, FILMS, EACH = 6, 12, 8
ROWS = [[user, (user + 5 * position) % FILMS + 1, (user * position) % 5 + 1, 1000 * position + user]
        for user in range(1, USERS + 1) for position in range(EACH)]

def lines(rows, separator): return ''.join(separator.join(map(str, row)) + '\n' for row in rows)

ML1M = {'ratings.dat': lines(ROWS, '::'),
        'users.dat': lines([[user, 'FM'[user % 2], 25, user, '01234'] for user in range(1, USERS + 1)], '::'),
        'movies.dat': lines([[film, f'Film {film} ({1980 + film})', 'Comedy|Drama' if film % 2 else 'Drama'] for film in range(1,
                                                                                                                               FILMS + 1)],
                            '::')}
ML100K = {'u.data': lines(ROWS, '\t'),
          'u.user': lines([[user, 25, 'FM'[user % 2], 'artist', '01234'] for user in range(1, USERS + 1)], '|'),
          'u.item': lines([[film, f'Film {film} (1981)', '01-Jan-1981', '', 'http://x', *('01'[flag == film % 4] for flag in range(19))]
                           for film in range(1, FILMS + 1)], '|')}
CSV = {'ratings.csv': 'userId,movieId,rating,timestamp\n' + lines(ROWS, ','),
       'movies.csv': 'movieId,title,genres\n' + lines([[film, f'"Film {film}, The (1981)"', 'Comedy'] for film in range(1, FILMS + 1)],
                                                      ',')}
FORMATS = {'ml-1m': (ML1M, 'ratings.dat', '::', 0), 'u.data': (ML100K, 'u.data', '\t', 0), 'csv': (CSV, 'ratings.csv', ',', 1)}

def write(files, folder='there'):
    "Put `files` (name to text or bytes) into a new folder"
    Path(folder).mkdir(parents=True)
    for name, content in files.items(): (Path(folder)/name).write_bytes(content if isinstance(content,
                                                                                              bytes) else content.encode('latin-1'))
    return folder

def archive(files=ML1M, path='ml-1m.zip', method=zipfile.ZIP_DEFLATED):
    "Put `files` into a zip archive"
    with zipfile.ZipFile(path, 'w', method) as file:
        for name, content in files.items(): file.writestr(name, content)
    return path

# --- How a refusal is looked at

def listing(folder='.'):
    "Every file below, hidden ones too, with its content; folders with None"
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path(folder).rglob('*')}

def call(command, *argv):
    "Exit code, standard error, and the warnings that a user would see"
    err, before = io.StringIO(), show_progress(False)
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('default')
        warnings.simplefilter('ignore', DeprecationWarning)
        try: code = getattr(cli, command)([str(part) for part in argv])
        except SystemExit as stop: code = stop.code
        finally: show_progress(before)
    return code, err.getvalue(), [str(one.message) for one in warned if not issubclass(one.category, PendingDeprecationWarning)]

def refused(command, *argv, says=(), below='.'):
    "The line with which a command refuses its arguments; fails if it does anything but refuse, or says none of `says`"
    before = listing(below)
    code, err, warned = call(command, *argv)
    assert code, f'exit code {code}: {command} did not refuse'
    assert err.count('\n') == 1 and err.startswith(f'{command}: ') and err.endswith('\n'), f'not one line:\n{err}'
    for part in [says] if isinstance(says, str) else says: assert str(part) in err, f'{part!r} is not in: {err}'
    assert warned == [], warned
    after = listing(below)
    assert after == before, f'on disk: {sorted(after.keys() ^ before.keys()) or "files changed"}'
    return err

@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    "Every test runs in an empty folder of its own"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('BST_DATA', raising=False)
    monkeypatch.setenv('no_proxy', '127.0.0.1')

def table(names, rows):
    "Parametrize by rows whose first entry is the id"
    return pytest.mark.parametrize(names, [pytest.param(*row[1:], id=row[0]) for row in rows])

SHORT = ['--sequence-length', 4, '--epochs', 1, '--device', 'cpu']

def test_refused_sees_each_way_to_go_wrong(monkeypatch):
    "A command that says nothing, says too much, shows a traceback, warns, or leaves a file behind is not let through"
    def command(code=1, says='bst_train: no: do this\n', leaves=None, warns=None):
        def run(argv):
            print(says, end='', file=sys.stderr)
            if leaves: Path(leaves).touch()
            if warns: warnings.warn(warns)
            return code
        monkeypatch.setattr(cli, 'bst_train', run)
    command()
    assert refused('bst_train', says=['do this']) == 'bst_train: no: do this\n'
    for fault in [dict(code=0), dict(says=''), dict(says='bst_train: a\nb\n'), dict(says='no: do this\n'), dict(says='bst_train: no\n'),
                  dict(leaves='.hidden'), dict(warns='careful')]:
        command(**fault)
        with pytest.raises(AssertionError): refused('bst_train', says=['do this'])

def test_good_input_is_taken():
    "What the cases below spoil is right before"
    for name, (files, *_) in FORMATS.items():
        assert call('bst_prepare', '--data', write(files, f'a-{name}'), '--out', f'{name}-prepared') == (0, '', [])
    archive({f'ml-1m/{name}': text for name, text in ML1M.items()})
    assert call('bst_prepare', '--data', 'ml-1m.zip', '--out', 'from-zip') == (0, '', [])


# --- Ratings files

CELLS = [  # content of a column of the fifth rating, and part of the message
    ('NaN for a user', 0, 'NaN', "must be a whole number, got 'NaN'"),
    ('NaN for a film', 1, 'nan', "must be a whole number, got 'nan'"),
    ('NaN for a rating', 2, 'NaN', "rating must be a number, got 'NaN'"),
    ('NaN for a time', 3, 'NaN', "timestamp must be a whole number, got 'NaN'"),
    ('text for a user', 0, 'Ada', "must be a whole number, got 'Ada'"),
    ('text for a film', 1, 'Alien', "must be a whole number, got 'Alien'"),
    ('text for a rating', 2, 'good', "rating must be a number, got 'good'"),
    ('text for a time', 3, 'today', "timestamp must be a whole number, got 'today'"),
    ('nothing for a user', 0, '', "must be a whole number, got ''"),
    ('nothing for a rating', 2, '', "rating must be a number, got ''"),
    ('infinite rating', 2, 'inf', 'rating inf is out of range: it must be one of'),
    ('half a user', 0, '1.5', "must be a whole number, got '1.5'"),
    ('wrong separator in one line', 0, '1;2', "got '1;2'"),
    ('rating 0', 2, 0, 'rating 0 is out of range'), ('rating 6', 2, 6, 'rating 6 is out of range'),
    ('rating 3.3', 2, 3.3, 'rating 3.3 is out of range'), ('negative time', 3, -5, 'timestamp -5 is negative'),
    ('time in milliseconds', 3, 978300760000, 'divide milliseconds by 1000'),
    ('huge film', 1, '9' * 30, 'must be a whole number')]

@pytest.mark.parametrize('style', FORMATS)
@table('column, value, says', CELLS)
def test_one_bad_cell(style, column, value, says):
    files, name, separator, header = FORMATS[style]
    rows = [list(row) for row in ROWS]
    rows[4][column] = value
    text = files[name][:files[name].index('\n') + 1] * header + lines(rows, separator)
    refused('bst_train', '--data', write(files | {name: text}), says=[Path('there')/name, f'line {5 + header}: ', says])

WHOLE = [  # how all lines are spoilt, what is said of it for lines without and with a header
    ('wrong separator', lambda text, sep: text.replace(sep, ';'), "line 1: 4 fields separated by ",
     'line 1: column userId, movieId, rating, timestamp is missing'),
    ('spaces between', lambda text, sep: text.replace(sep, ' '), "line 1: 4 fields separated by ", 'line 1: column userId'),
    ('missing column', lambda text, sep: ''.join(line.rpartition(sep)[0] + '\n' for line in text.splitlines()), 'line 1: 4 fields',
     'line 1: column timestamp is missing'),
    ('a column too many', lambda text, sep: text.replace('\n', f'{sep}1\n').replace(f'timestamp{sep}1', 'timestamp'), 'line 1: 4 fields',
     'line 2: 4 fields'),
    ('empty', lambda text, sep: '', 'is empty', 'is empty'),
    ('blank lines', lambda text, sep: '\n \n', 'is empty', 'is empty'),
    ('zero bytes', lambda text, sep: '\0' * 999, 'line 1', 'line 1'),
    ('noise', lambda text, sep: bytes(np.random.default_rng(0).integers(0, 256, 9999, np.uint8)), 'line 1', 'line 1'),
    ('cut off', lambda text, sep: text[:-7], f'line {len(ROWS)}', f'line {len(ROWS) + 1}')]

@pytest.mark.parametrize('style', FORMATS)
@table('spoil, says, with_header', WHOLE)
def test_a_whole_file_is_wrong(style, spoil, says, with_header):
    files, name, separator, header = FORMATS[style]
    folder = write(files | {name: spoil(files[name], separator)})
    refused('bst_train', '--data', folder, says=[Path(folder)/name, with_header if header else says])

def test_only_a_header():
    refused('bst_train', '--data', write(CSV | {'ratings.csv': CSV['ratings.csv'].split('\n')[0] + '\n'}), says=['ratings.csv', 'is empty'])

@pytest.mark.parametrize('column', ['userId', 'movieId', 'rating', 'timestamp'])
def test_a_column_has_another_name(column):
    folder = write(CSV | {'ratings.csv': CSV['ratings.csv'].replace(column, 'other', 1)})
    refused('bst_train', '--data', folder, says=['ratings.csv, line 1', f'column {column} is missing',
                                                 'the line must be userId,movieId,rating,timestamp'])

@pytest.mark.parametrize('style', FORMATS)
def test_duplicate_rows(style):
    files, name, separator, header = FORMATS[style]
    folder = write(files | {name: files[name] + lines([[*ROWS[2][:2], 1, ROWS[2][3]]], separator)})
    refused('bst_train', '--data', folder, says=[f'{name}, line {len(ROWS) + 1 + header}', 'the same user, item and timestamp',
                                                 f'line {3 + header}', 'remove one'])

@pytest.mark.parametrize('style', FORMATS)
def test_a_file_is_missing(style):
    files, name, *_ = FORMATS[style]
    for missing in files.keys() - ({'users.dat'} if style == 'ml-1m' else ()):  # without users.dat it is MovieLens-10M
        folder = write({other: text for other, text in files.items() if other != missing}, f'without {missing}')
        refused('bst_train', '--data', folder, says=[folder, missing, 'it must hold' if missing == name else 'put it beside it'])

SIDE = [  # side file, how it is spoilt, where and what is said
    ('user without a row', 'users.dat', lambda t: t.split('\n', 1)[1], 'ratings.dat, line 1: user 1 has no row in there/users.dat',
     'add it there'),
    ('film without a row', 'movies.dat', lambda t: t.replace('7::Film 7', '99::Film 7'), 'item 7 has no row in there/movies.dat',
     'add it there'),
    ('user twice', 'users.dat', lambda t: t + t.split('\n')[0], 'users.dat, line 7: user 1 occurs twice', 'keep one'),
    ('film twice', 'movies.dat', lambda t: t + t.split('\n')[0], 'movies.dat, line 13: item 1 occurs twice', 'keep one'),
    ('text for a user', 'users.dat', lambda t: t.replace('3::', 'x::', 1), "users.dat, line 3: user must be a whole number, got 'x'", 'correct or remove'),
    ('text for an age', 'users.dat', lambda t: t.replace('::25::4', '::old::4'), "users.dat, line 4: age must be a whole number, got 'old'", 'correct or remove'),
    ('NaN for a film', 'movies.dat', lambda t: t.replace('3::', 'NaN::', 1), "movies.dat, line 3: item must be a whole number, got 'NaN'", 'correct or remove'),
    ('wrong separator for users', 'users.dat', lambda t: t.replace('::', ';'), 'users.dat, line 1: 5 fields', 'correct or remove'),
    ('wrong separator for films', 'movies.dat', lambda t: t.replace('::', ';'), 'movies.dat, line 1: 3 fields', 'correct or remove'),
    ('no users', 'users.dat', lambda t: '', 'users.dat is empty', 'get the data again'),
    ('no films', 'movies.dat', lambda t: '', 'movies.dat is empty', 'get the data again')]

@table('name, spoil, says, remedy', SIDE)
def test_side_files(name, spoil, says, remedy):
    refused('bst_train', '--data', write(ML1M | {name: spoil(ML1M[name])}), says=[says, remedy])

CSV_FILMS = [  # how movies.csv is spoilt, and what is said of it
    ('another column', lambda t: t.replace('title', 'name'), 'movies.csv, line 1: column title is missing'),
    ('a field too few', lambda t: t.replace(',Comedy', '', 1), "movies.csv, line 2: 3 fields separated by ',' are expected, got 2"),
    ('only a header', lambda t: t.split('\n')[0], 'movies.csv holds no films')]

@table('spoil, says', CSV_FILMS)
def test_films_in_csv(spoil, says):
    refused('bst_train', '--data', write(CSV | {'movies.csv': spoil(CSV['movies.csv'])}), says=says)

def test_films_of_ml_100k():
    folder = write(ML100K | {'u.item': ML100K['u.item'].replace('|0|0', '', 1)})
    refused('bst_train', '--data', folder, says=["u.item, line 1: 24 fields separated by '|' are expected, got"])

def test_release_date_without_a_year():
    for date in '²²²²', 'soon', '01-Jan-19811':
        folder = write({name: text.replace('01-Jan-1981', date, 1).encode() for name, text in ML100K.items()} |
                       {'u.item': ML100K['u.item'].replace(' (1981)|01-Jan-1981', f'|{date}', 1).encode()}, f'dated {date}')
        refused('bst_train', '--data', folder, says=[f"u.item, line 1: a release date must end in a year of four digits, got '{date}'",
                                                     'correct it'])

def test_two_data_sets_in_one_place():
    for other, name in (CSV, 'ratings.csv'), (ML100K, 'u.data'):
        folder = write(ML1M | other, f'with {name}')
        refused('bst_train', '--data', folder, says=[f'{folder} holds two data sets', 'ratings.dat', name, 'of its own'])
    both = {f'{folder}/{name}': text for folder in ('old', 'new') for name, text in ML1M.items()}
    refused('bst_train', '--data', archive(both, 'both.zip'), says='both.zip holds two data sets, in old and in new: unpack it')
    assert call('bst_prepare', '--data', write(ML1M, 'one'), '--out', 'prepared') == (0, '', [])
    shutil.copy('one/ratings.dat', 'prepared/ratings.dat')
    refused('bst_train', '--data', 'prepared', says=['prepared holds two data sets', 'ratings.dat', 'metadata.json'])

@pytest.mark.parametrize('column', range(4))
def test_a_field_of_any_length_is_not_repeated(column):
    row = ['1', '1', '1', '1']
    row[column] = 'x' * 5_000_000
    for style, (files, name, separator, _) in FORMATS.items():
        folder = write(files | {name: files[name] + separator.join(row) + '\n'}, style)
        assert len(refused('bst_train', '--data', folder, says=[name, 'correct or remove'])) < 1200
    folder = write(ML1M | {'users.dat': ML1M['users.dat'].replace('1', 'y' * 5_000_000, 1)}, 'users')
    assert len(refused('bst_train', '--data', folder, says=['users.dat, line 1', 'correct or remove'])) < 1200

def test_what_a_terminal_obeys_is_not_printed_raw():
    folder = write(ML1M | {'ratings.dat': '1::1::\x1b[2J\x9b31m::1\n'})
    assert '\x1b' not in (said := refused('bst_train', '--data', folder, says='rating must be a number')) and '\x9b' not in said

def test_film_without_a_row_in_csv():
    folder = write(CSV | {'movies.csv': CSV['movies.csv'].replace('\n7,', '\n99,')})
    refused('bst_prepare', '--data', folder, '--out', 'new', says=['ratings.csv, line ', 'item 7 has no row in there/movies.csv',
                                                                   'add it there'])

@pytest.mark.parametrize('path', ['nowhere', 'nowhere/ml-1m.zip', 'ml-2m', 'n' * 300])
def test_no_such_data(path):
    refused('bst_train', '--data', path, says=['choose one of sample, sample-shop, ml-100k', 'give the path'])
    refused('bst_prepare', '--data', path, '--out', 'new', says=['choose one of sample, sample-shop, ml-100k', 'give the path'])

def test_empty_folder(): refused('bst_train', '--data', write({}), says=['there: no ratings found', 'ml-1m: ratings.dat'])

@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_too_few_ratings(protocol):
    folder = write(ML1M | {'ratings.dat': lines(ROWS[:1], '::')})
    refused('bst_train', '--data', folder, '--protocol', protocol, *SHORT, says=[protocol, 'leaves nothing for', 'use more ratings'])

def test_a_batch_of_one_example():
    "Batch norm cannot learn from one example: a batch size of 1 is refused, and a last batch of one example does no harm"
    folder = write(ML1M)
    refused('bst_train', '--data', folder, '--preset', 'keras', '--batch-size', 1, *SHORT, says=['batch', '2 or more'])
    for n in [len(ROWS) - 2 * USERS - 1, 3]:  # leave-last-out trains on all ratings but two of each user
        assert (len(ROWS) - 2 * USERS) % n in (0, 1)
        assert call('bst_train', '--data', folder, '--preset', 'keras', '--protocol', 'leave-last-out', '--batch-size', n,
                    *SHORT)[:2] == (0, '')


def test_nothing_to_tell_apart():
    "All ratings alike, or all on one side of the threshold of a click"
    folder = write(ML1M | {'ratings.dat': lines([[user, film, 5, time] for user, film, _, time in ROWS], '::')})
    refused('bst_train', '--data', folder, '--objective', 'click', *SHORT, says=['AUC', 'objective rating'])
    save_prepared(from_frame(pd.DataFrame(ROWS, columns=['user', 'item', 'rating', 'timestamp']).assign(rating=4)), 'alike')
    refused('bst_train', '--data', 'alike', '--preset', 'rating', *SHORT, says=['these data have no ratings, or all are the same', 'preset both or next'])


# --- Archives

def tampered(path, name='ratings.dat', at=10):
    "Change one byte of a member's packed data"
    with zipfile.ZipFile(path) as file: info = file.getinfo(name)
    content = bytearray(Path(path).read_bytes())
    content[info.header_offset + 30 + len(name) + at] ^= 0xFF
    Path(path).write_bytes(content)
    return path

METHODS = dict(stored=zipfile.ZIP_STORED, deflated=zipfile.ZIP_DEFLATED, bzip2=zipfile.ZIP_BZIP2, lzma=zipfile.ZIP_LZMA)

@pytest.mark.parametrize('member', ML1M)
@pytest.mark.parametrize('method', METHODS)
def test_tampered_archive(method, member):
    path = tampered(archive(method=METHODS[method]), member, at=20)
    refused('bst_train', '--data', path, says=['ml-1m.zip', member, 'get the data again'])

@pytest.mark.parametrize('share', [.0, .3, .9, .99])
def test_truncated_archive(share):
    content = Path(archive()).read_bytes()
    Path('ml-1m.zip').write_bytes(content[:int(share * len(content))])
    refused('bst_train', '--data', 'ml-1m.zip', says=['ml-1m.zip is not a whole zip archive', 'download it again'])

def test_archive_that_is_too_large(monkeypatch):
    monkeypatch.setattr(movielens, 'MAX_UNPACKED', 1000)
    refused('bst_train', '--data', archive(), says=['ml-1m.zip would unpack to', 'more than 1,000', 'get the archive from its publisher'])

def test_not_an_archive():
    Path('text.zip').write_text('no zip at all')
    refused('bst_train', '--data', 'text.zip', says=['text.zip is not a whole zip archive', 'download it again'])
    Path('ratings.dat').write_text(ML1M['ratings.dat'])
    refused('bst_train', '--data', 'ratings.dat', says=['ratings.dat is neither a folder nor a .zip archive', 'give the folder that holds it', 'from_frame'])

def test_a_run_on_a_table_knows_that_it_has_no_file():
    "And never takes the sample's users for its own, whose ids are numbers as well"
    n = np.arange(600)
    table = pd.DataFrame(dict(user=n % 20, item=n % 37, rating=n % 5 + 1, timestamp=n * 1000)).drop_duplicates(['user', 'item'])
    data = from_frame(table, name='books', words=('book', 'books'))
    run = save_run(train(Recipe(epochs=1), data, device='cpu', baselines=()), 'books')
    refused('bst_recommend', run, '--user', 1, says=['were given as tables', 'save_prepared', '--data'])
    refused('bst_evaluate', run, says=['were given as tables', 'save_prepared', '--data'])
    refused('bst_recommend', run, '--user', 1, '--predict', 'no such', '--data', save_prepared(data, 'data'), says=["no book is called 'no such'"])
    assert call('bst_recommend', run, '--user', 1, '--data', 'data', '--device', 'cpu', '--quiet', '--out', 'list.csv') == (0, '', [])
    assert call('bst_evaluate', run, '--data', 'data', '--device', 'cpu', '--baselines', '', '--out', 'table.csv')[0] == 0
    assert len(pd.read_csv('list.csv')) >= 5                        # although few books have 20 ratings
    assert load_run(run, 'data', 'cpu').recipe.data is None and load_vocabularies(run).words == ('book', 'books')

def test_runs_in_a_folder_are_named():
    for name in 'b', 'a':
        Path('runs', name).mkdir(parents=True)
        Path('runs', name, 'config.json').touch()
    refused('bst_recommend', 'runs', '--user', 1, says=['runs has no config.json: give one of the runs in it, such as runs/a, runs/b'])

def test_what_the_system_says_is_cut_to_its_words():
    with pytest.raises(DataError, match=r'none.csv cannot be read as a table of ratings \(No such file or directory\)'):
        read_csv_file('none.csv', 'ratings', 'title and rating')

def test_archive_without_ratings():
    refused('bst_train', '--data', archive({'README': 'x'}, 'other.zip'), says=['other.zip', 'no ratings found', 'it must hold'])
    refused('bst_train', '--data', archive({}, 'empty.zip'), says=['empty.zip', 'no ratings found', 'it must hold'])

def test_bad_row_in_an_archive():
    path = archive({f'ml-1m/{name}': text.replace('::1000\n', '::x\n') for name,
                    text in ML1M.items()} | {'ml-1m/ratings.dat': '1::1::x::5\n'})
    refused('bst_train', '--data', path, says=["ml-1m.zip: ml-1m/ratings.dat, line 1: rating must be a number, got 'x'", 'correct or remove'])

def test_any_byte_of_the_tables_of_an_archive_may_be_wrong():
    "It is read, or refused in one line"
    content, problems = Path(archive({'ratings.dat': 'x'})).read_bytes(), []
    for position in range(content.index(b'PK\1\2'), len(content)):
        for value in 0, 99, 255:
            Path('odd.zip').write_bytes(content[:position] + bytes([value]) + content[position + 1:])
            try: read_movielens('odd.zip')
            except BSTError as error: problems += [f'{position}: {error}'] if '\n' in str(error) else []
            except Exception as error: problems.append(f'byte {position} is {value}: {error!r}')
    assert not problems, '\n' + '\n'.join(problems)


# --- Downloads

class Server(BaseHTTPRequestHandler):
    "Sends what is in `files`; `short` promises more than it sends"
    files = {}
    def log_message(self, *args): pass
    def do_GET(self):
        name = self.path.rsplit('/', 1)[-1]
        self.send_response(200 if name in self.files else 404)
        content = self.files.get(name, b'')
        self.send_header('Content-Length', str(len(content) + 1000 * ('/short/' in self.path)))
        self.end_headers()
        self.wfile.write(content)

@pytest.fixture(scope='module')
def url():
    "A server on this machine"
    server = ThreadingHTTPServer(('127.0.0.1', 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()
    server.server_close()

@pytest.fixture
def fetch_from(monkeypatch):
    "Let `--data ml-1m` download from another server"
    original = prepared.download
    return lambda base_url: monkeypatch.setattr(prepared, 'download', partial(original, base_url=base_url, timeout=5))

HERE = str(Path('data/ml-1m.zip'))  # where the message says to put the archive

@pytest.mark.parametrize('command', ['bst_train', 'bst_prepare'])
def test_download_with_another_checksum(command, url, fetch_from, monkeypatch):
    monkeypatch.setattr(Server, 'files', {'ml-1m.zip': Path(archive(path='good.zip')).read_bytes()})
    fetch_from(url)
    refused(command, '--data', 'ml-1m', says=[f'{url}ml-1m.zip is not the published archive', 'md5', f'put it at {HERE}'])

@table('base, says', [('not on the server', 'none/', '404'), ('cut off', 'short/', 'the connection ended after')])
def test_download_that_fails(base, says, url, fetch_from, monkeypatch):
    monkeypatch.setattr(Server, 'files', {'ml-1m.zip': b'x' * 50} if 'short' in base else {})
    fetch_from(url + base)
    refused('bst_train', '--data', 'ml-1m', says=[f'cannot download {url}{base}ml-1m.zip', says, f'put it at {HERE}'])

@table('text, says', [('no checksum', 'nothing here', 'holds no checksum'),
                      ('another checksum', 'MD5 (ml-latest-small.zip) = ' + 'f' * 32, f"instead of {'f' * 32}")])
def test_checksum_from_the_server(text, says, url, fetch_from, monkeypatch):
    monkeypatch.setattr(Server, 'files', {'ml-latest-small.zip': b'x' * 50, 'ml-latest-small.zip.md5': text.encode()})
    fetch_from(url)
    refused('bst_train', '--data', 'latest-small', says=[f'{url}ml-latest-small.zip', says, 'put it at'])

def test_no_network(fetch_from):
    fetch_from('http://127.0.0.1:1/')
    refused('bst_train', '--data', 'ml-1m', says=['cannot download http://127.0.0.1:1/ml-1m.zip', f'put it at {HERE}'])
    refused('bst_prepare', '--data', '25m', '--out', 'new', says=['http://127.0.0.1:1/ml-25m.zip', f"put it at {Path('data/ml-25m.zip')}"])

def test_download_where_nothing_can_be_written(fetch_from, monkeypatch):
    fetch_from('http://127.0.0.1:1/')
    Path('file').touch()
    monkeypatch.setenv('BST_DATA', 'file/data')
    refused('bst_train', '--data', 'ml-1m', says=['cannot write to file/data', 'choose a folder'])


# --- Options

OPTIONS = [
    ('unknown preset', '--preset papper', 'choose one of ' + ', '.join(PRESETS)),
           ('unknown protocol', '--protocol last', 'choose one of ' + ', '.join(PROTOCOLS)),
    ('unknown objective', '--objective rank', 'choose one of ' + ', '.join(OBJECTIVES)),
    ('sequence length 0', '--sequence-length 0', 'give 2 or more'), ('sequence length 1', '--sequence-length 1', 'give 2 or more'),
    ('sequence length -3', '--sequence-length -3', 'give 2 or more'), ('sequence length abc', '--sequence-length abc', 'sequence-length'),
    ('epochs 0', '--epochs 0', 'give 1 or more'), ('epochs 1.5', '--epochs 1.5', 'epochs'),
           ('batch size 0', '--batch-size 0', 'give 1 or more'),
    ('batch size -1', '--batch-size -1', 'give 1 or more'), ('step 0', '--step 0 --protocol random-windows', 'give 1 or more'),
    ('step 0 where it is not used', '--step 0', 'give 1 or more'), ('step -2', '--step -2', 'give 1 or more'),
    ('min history 0', '--min-history 0', 'give 1 or more'),
    ('accumulation 0', '--accumulation 0', 'give 1 or more'),
    ('unknown precision', '--mixed-precision half', 'choose one of no, bf16, fp16'),
    ('history for windows', '--preset keras --min-history 9', 'preset keras has no setting min_history'),
    ('next item by windows', '--preset keras --objective next', 'use preset both or next'),
    ('users for windows', '--preset keras --user-table', 'preset keras has no setting user_table'),
    ('later ratings', '--visibility bidirectional', 'temporal is a prediction task'),
    ('imputation of the future', '--preset fill-in', 'temporal is a prediction task'),
    ('negative seed', '--seed -1', 'give an integer from 0'), ('huge seed', f'--seed {10**30}', 'give an integer from 0'),
    ('learning rate 0', '--learning-rate 0', 'learning'), ('negative learning rate', '--learning-rate -0.1', 'learning'),
    ('learning rate nan', '--learning-rate nan', 'learning'), ('learning rate inf', '--learning-rate inf', 'learning'),
    ('learning rate 1e30', '--learning-rate 1e30', 'learning-rate'),
    ('learning rate high', '--learning-rate high', 'learning-rate'),
    ('unknown device', '--device abacus', 'choose cpu or auto'), ('device without a number', '--device cuda:x', 'choose cpu or auto'),
    ('device with no memory', '--device meta', 'choose cpu or auto'), ('no device', '--device=', 'choose cpu or auto'),
    ('unknown option', '--colour red', '--colour'), ('option without a value', '--epochs', 'epochs'), ('stray argument', 'ml-1m', 'ml-1m')]

@table('options, says', OPTIONS)
def test_options(options, says):
    refused('bst_train', '--data', write(ML1M), *SHORT, *options.split(), says=says)

@pytest.mark.parametrize('command', ['bst_train', 'bst_prepare', 'bst_evaluate'])
def test_unknown_option(command): refused(command, '--colour', 'red', says='')

def test_evaluate_without_a_run(): refused('bst_evaluate', says='run')


# --- Where results go

UNWRITABLE = ['file', 'file/run', 'file/a/b', 'full', '/proc/run', '/proc/self/a/run', 'n' * 300]

@pytest.mark.parametrize('command', ['bst_train', 'bst_prepare'])
@pytest.mark.parametrize('out', UNWRITABLE, ids=lambda out: out[:20])
def test_out_that_cannot_be_written(command, out):
    "Said before the work begins: the data, which are bad too, have not been looked at"
    if out.startswith('/proc') and not Path('/proc/self').exists(): pytest.skip('no /proc here')
    Path('file').touch()
    write({'other': 'x'}, 'full')
    refused(command, '--data', 'nowhere', '--out', out, says=['is not overwritten' if out in ('file', 'full') else 'cannot write to',
                                                              '--out'])

def test_no_folder_for_runs():
    Path('runs').touch()
    refused('bst_train', '--data', 'nowhere', says=['cannot write to runs', '--out'])

@contextlib.contextmanager
def small_disk(limit):
    "No file may grow beyond `limit` bytes, as on a full disk"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)

@pytest.mark.parametrize('command', ['bst_train', 'bst_prepare'])
@pytest.mark.parametrize('limit', [100, 600])
def test_full_disk(command, limit):
    folder = write(ML1M)
    with small_disk(limit): refused(command, '--data', folder, '--out', 'new', *(SHORT if command == 'bst_train' else []),
                                    says='cannot write to')

def test_stopped_by_hand(monkeypatch):
    "After Ctrl-C a message says how to resume, and that works"
    folder, run = write(ML1M), 'runs/there-both-temporal'
    for module, step in (update, 'train'), (train_command, 'finish_run'):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, lambda *args, **kwargs: signal.raise_signal(signal.SIGINT))
            code, err, warned = call('bst_train', '--data', folder, '--out', f'{run}-{step}', *SHORT)
        assert (code, warned) == (130, []) and err == f'bst_train: stopped; resume with: bst_train --resume {run}-{step}\n'
        assert call('bst_train', '--resume', f'{run}-{step}') == (0, '', [])
        assert (Path(f'{run}-{step}')/'model.safetensors').is_file()


# --- Saved runs

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "A folder with data, a run trained on them, and the same data prepared"
    home = tmp_path_factory.mktemp('made')
    with contextlib.chdir(home):
        assert call('bst_prepare', '--data', write(ML1M), '--out', 'prepared') == (0, '', [])
        assert call('bst_train', '--data', 'there', '--out', 'run', *SHORT) == (0, '', [])
    return home

@pytest.fixture
def run(made, tmp_path):
    "A copy of all that, in the folder of the test"
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Path('run')

def test_whole_runs_and_prepared_data_are_taken(run):
    assert call('bst_evaluate', run, '--device', 'cpu') == (0, '', [])
    assert call('bst_train', '--data', 'prepared', *SHORT) == (0, '', [])

def edit(path, change):
    "Rewrite a JSON file after `change` has been applied to what it holds"
    content = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps(change(content) or content))

def put(*keys, value=None):
    "A change that sets `content[key][key]…`"
    def change(content):
        for key in keys[:-1]: content = content[key]
        content[keys[-1]] = value
    return change

def drop(*keys):
    "A change that removes `content[key][key]…`"
    def change(content):
        for key in keys[:-1]: content = content[key]
        del content[keys[-1]]
    return change

CONFIG = [
    ('another version', put('version', value=99), ['model format version 99', 'reads 1', 'train again']),
          ('no version', drop('version'), ['version None', 'train again']),
    ('a list', lambda c: [c], ['version None', 'train again']), ('a number', lambda c: 3, ['version None', 'train again']),
    ('no model', drop('model'), ['config.json']), ('no checksum', drop('sha256'), ['checksum']),
          ('model is a list', put('model', value=[1]), ['config.json']),
    ('model is a text', put('model', value='BST'), ['config.json']), ('model is nothing', put('model'), ['config.json']),
    ('no users', drop('model', 'users'), ['config.json', 'users']), ('no items', drop('model', 'items'), ['config.json', 'items']),
    ('unknown field', put('model', 'colour', value=1), ['config.json', 'colour']),
          ('text for a size', put('model', 'users', value='many'), ['config.json']),
    ('negative size', put('model', 'users', value=-5), ['config.json']), ('no heads', put('model', 'heads', value=0), ['config.json']),
    ('text for the threshold', put('model', 'threshold', value='x'), ['config.json']),
          ('no scale', put('model', 'rating_values', value=[]), ['config.json']),
    ('number for widths', put('model', 'mlp', value=64), ['config.json']),
          ('another size', put('model', 'items', value=9), ['does not fit', 'streams.item.id.table.weight']),
    ('unknown choice', put('model', 'visibility', value='clock'), ['config.json', 'choose one of']),
          ('unknown kind', put('model', 'kind', value='clock'), ['config.json', 'choose one of'])]

@table('change, says', CONFIG)
def test_damaged_config(run, change, says):
    edit(run/'config.json', change)
    refused('bst_evaluate', run, says=[run, *says])

FILES = [('removed', lambda path: path.unlink()), ('emptied', lambda path: path.write_bytes(b'')),
         ('cut off', lambda path: path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])),
         ('overwritten', lambda path: path.write_bytes(path.read_bytes()[:(n := path.stat().st_size) // 2] + b'\xff' * (n - n // 2))),
         ('a folder', lambda path: (path.unlink(), path.mkdir()))]

@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'metrics.json', 'training_log.csv'])
@table('damage', FILES)
def test_damaged_file_of_a_run(run, name, damage):
    damage(run/name)
    refused('bst_evaluate', run, says=[run, name])

def weights(folder, change):
    "Rewrite the weights, with a checksum that fits"
    found = load_file(folder/'model.safetensors')
    found = {name: value.clone() for name, value in found.items()}
    change(found)
    save_file(found, folder/'model.safetensors')
    edit(folder/'config.json', put('sha256', value=file_digest(folder/'model.safetensors')))

def test_weights_that_do_not_fit(run):
    weights(run, lambda w: w.pop('streams.item.id.table.weight'))
    refused('bst_evaluate', run, says=[run, 'missing streams.item.id.table.weight'])

def test_unexpected_weights(run):
    weights(run, lambda w: w.update(other=w['streams.item.id.table.weight'].clone()))
    refused('bst_evaluate', run, says=[run, 'unexpected other'])

def test_weights_of_another_shape(run):
    weights(run, lambda w: w.update({'streams.item.id.table.weight': w['streams.item.id.table.weight'][1:].contiguous()}))
    refused('bst_evaluate', run, says=[run, f'streams.item.id.table.weight is ({FILMS}, 64) instead of ({FILMS + 1}, 64)'])

def test_weights_that_are_no_weights(run):
    (run/'model.safetensors').write_bytes(b'no weights at all')
    edit(run/'config.json', put('sha256', value=file_digest(run/'model.safetensors')))
    refused('bst_evaluate', run, says=['model.safetensors is damaged', 'train again'])

METRICS = [('a list', lambda c: [c]), ('no recipe', drop('recipe')), ('unknown field', put('recipe', 'colour', value='red')),
           ('recipe is a text', put('recipe', value='x')),
           ('unknown preset', put('recipe', 'preset', value='papper')),
           ('text for the length', put('recipe', 'sequence_length', value='ten')),
           ('text for the step', put('recipe', 'step', value='two')), ('text for the seed', put('recipe', 'seed', value='x')),
           ('no data', drop('data')), ('no source', drop('data', 'source')), ('source is nothing', put('data', 'source')),
           ('no scores', drop('scores')), ('scores are a number', put('scores', value=3)), ('no seconds', drop('train_seconds')),
           ('no device', drop('device'))]

@table('change', METRICS)
def test_damaged_metrics(run, change):
    edit(run/'metrics.json', change)
    refused('bst_evaluate', run, says=[run/'metrics.json', 'train again'])

CHANGES = [('a rating', 'ratings.dat', lambda t: t.replace('1::2::1::1\n', '1::2::5::1\n')),
           ('a user more', 'users.dat', lambda t: '0::F::25::1::01234\n' + t),
           ('a film more', 'movies.dat', lambda t: '0::Film 0 (1980)::Drama\n' + t),
           ('an age', 'users.dat', lambda t: t.replace('::25::', '::56::', 1)),
           ('a genre', 'movies.dat', lambda t: t.replace('::Drama', '::Horror', 1))]

def test_the_same_data_in_other_wrappings(made, tmp_path):
    "Archive by name or path, folder, other line ends, prepared: a run takes them all for the data that it was trained on"
    Path('data').mkdir()
    archive({f'ml-1m/{name}': text for name, text in ML1M.items()}, 'data/ml-1m.zip')
    assert call('bst_train', '--data', 'ml-1m', '--out', 'run', *SHORT) == (0, '', [])
    archive(path='flat.zip', method=zipfile.ZIP_STORED)
    write({name: text.replace('\n', '\r\n') for name, text in ML1M.items()}, 'windows')
    assert call('bst_prepare', '--data', 'flat.zip', '--out', 'prepared') == (0, '', [])
    write(ML1M, 'data/ml-1m')                                          # from now on "ml-1m" is this folder
    for options in [], *(['--data', there] for there in ('data/ml-1m.zip', 'data/ml-1m', 'flat.zip', 'windows', 'prepared')):
        assert call('bst_evaluate', 'run', *options, '--device', 'cpu') == (0, '', []), options

def test_data_of_that_name_in_the_current_folder():
    write(ML1M, 'ml-1m')
    assert call('bst_train', '--data', 'ml-1m', '--out', 'run', *SHORT) == (0, '', [])

@table('name, change', CHANGES)
def test_data_changed_since_training(run, name, change):
    "The weights belong to rows of the vocabularies: other users, films, features or genres would give other figures"
    before = Path('there', name).read_text()
    assert change(before) != before
    Path('there', name).write_text(change(before))
    refused('bst_evaluate', run, says=[f'not the data that {run} was trained on', '--data'])

def test_data_gone(run):
    shutil.rmtree('there')
    refused('bst_evaluate', run, says=['there', '--data'])
    refused('bst_evaluate', run, '--data', 'nowhere', says=['nowhere'])
    assert call('bst_evaluate', run, '--data', 'prepared', '--device', 'cpu') == (0, '', [])

@table('options, says', [('unknown baseline', '--baselines median', 'choose one of global mean'),
                         ('batch size 0', '--batch-size 0', 'give 1 or more'),
                         ('unknown device', '--device abacus', 'choose cpu or auto'),
                         ('a file in the way', '--out there/users.dat/t.csv', 'cannot write to'),
                         ('a folder in the way', '--out there', 'is not overwritten'),
                         ('the run itself', '--out run', 'is not overwritten'), ('here', '--out .', 'is not overwritten')])
def test_options_of_evaluate(run, options, says): refused('bst_evaluate', run, *options.split(), says=says)

RECOMMEND = [
    ('no user', '', 'give either --user (an id in the data) or --ratings'),
    ('user and ratings', '--user 1 --ratings mine.csv', 'give either --user (an id in the data) or --ratings'),
    ('unknown user', '--user 99', "no user has the id '99'"),
    ('no items', '--user 1 --k 0', 'k is 0'),
    ('unknown order', '--user 1 --by best', "unknown --by 'best': choose one of liked, next, rating"),
    ('order of another model', '--user 1 --by click', "unknown --by 'click': choose one of liked, next, rating"),
    ('unknown order of reasons', '--user 1 --why 3 --by best', "unknown --by 'best': choose one of"),
    ('a word for the moment', '--user 1 --at tomorrow', "--at must be seconds since 1970, a date such as '2003-01-31'"),
    ('no such day', '--user 1 --at 2003-02-31', "got '2003-02-31'"),
    ('a year alone', '--user 1 --at 2003', "got '2003'"),
    ('before 1970', '--user 1 --at=-5', '--at: timestamp -5 is negative'),
    ('milliseconds', '--user 1 --at 978300760000', 'divide milliseconds by 1000'),
    ('huge moment', f'--user 1 --at {10**400}', '--at'),
    ('infinite moment', '--user 1 --at inf', '--at'),
    ('a moment for an item', '--user 1 --predict 3 --at soon', "--at must be seconds since 1970"),
    ('unknown item', '--user 1 --predict 99', 'no film is called'),
    ('unknown genre', '--user 1 --genres Opera', "unknown genre 'Opera'"),
    ('a word for years', '--user 1 --years old', "got 'old'")]

@table('options, says', RECOMMEND)
def test_options_of_recommend(run, options, says):
    Path('mine.csv').write_text('item,rating\n3,5\n')
    refused('bst_recommend', run, '--device', 'cpu', *options.split(), says=says)

@pytest.mark.parametrize('preset, order', [('rating', 'rating'), ('next', 'next'), ('keras', 'rating')])
def test_a_model_with_one_answer_has_one_order(made, preset, order):
    "It is the default, may be named, and is the only one"
    assert call('bst_train', '--data', made/'prepared', '--preset', preset, '--out', 'run', *SHORT) == (0, '', [])
    quietly = ['run', '--user', 1, '--device', 'cpu', '--min-ratings', 0]
    lists = []
    for n, options in enumerate([[], ['--by', order], ['--exact'], ['--at', '2003-01-31']]):
        assert call('bst_recommend', *quietly, *options, '--out', f'{n}.csv') == (0, '', [])
        lists.append(pd.read_csv(f'{n}.csv'))
    assert lists[0].equals(lists[1]) and lists[0].item.equals(lists[2].item) and len(lists[0])
    assert ('next' in lists[0]) == (preset == 'next') and ('expected' in lists[0]) == (preset != 'next')
    assert call('bst_recommend', *quietly, '--why', 3, '--by', order) == (0, '', [])
    other = 'next' if order == 'rating' else 'rating'
    refused('bst_recommend', *quietly, '--by', other, says=f"unknown --by '{other}': choose one of {order}")

@table('folder, says', [('missing', 'nowhere', 'nowhere does not exist'),
                        ('of data', 'there', ['config.json', 'give the folder that a run has written']),
                        ('a file', 'there/users.dat', 'is a file'),
                        ('a name too long for the disk', 'n' * 300, 'does not exist')])
def test_not_a_run(run, folder, says): refused('bst_evaluate', folder, says=says)


@table('record, says', [('damaged', '{}', ['run.json is damaged', 'start a new run']),
                        ('not JSON', 'epochs', ['run.json is damaged', 'start a new run']),
                        ('of other data', None, ['is not the data that begun was started with', '--data'])])
def test_unfinished_run(run, record, says):
    "It is not resumed from a bad record, or on other data"
    options = dict(data='there', device='cpu', track=None, checkpoint_every=0, keep_checkpoints=False)
    folder = create_run_folder(Recipe(data='there', epochs=1), read_movielens('there'), 'begun', options)
    if record is None: edit(folder/'run.json', put('data', 'sha256', value='0' * 64))
    else: (folder/'run.json').write_text(record)
    refused('bst_train', '--resume', folder, says=says)

def test_no_unfinished_run(run):
    refused('bst_train', '--resume', 'there', says=['there is not a run of bst_train', 'give the folder that bst_train named'])


# --- Prepared folders

@pytest.mark.parametrize('name', sorted(PREPARED_FILES - {'event_values.npy'}))  # these data have none
@table('damage', FILES)
def test_damaged_prepared_file(run, name, damage):
    damage(Path('prepared', name))
    whole = name != 'metadata.json'  # without it, it is no prepared folder
    refused('bst_train', '--data', 'prepared', *SHORT, says=[Path('prepared', name), 'again'] if whole else 'prepared')

@pytest.mark.parametrize('name', sorted(ARRAYS))
def test_prepared_array_of_another_shape(run, name):
    np.save(f'prepared/{name}.npy', np.load(f'prepared/{name}.npy')[:-1])
    refused('bst_train', '--data', 'prepared', says=[f'prepared/{name}.npy', 'prepare the data again'])

def test_prepared_by_another_version(run):
    edit('prepared/metadata.json', put('format', value=99))
    refused('bst_train', '--data', 'prepared', says=['prepared/metadata.json has format 99', 'again'])


FOLDERS = [  # file of a folder of vocabularies, how it is spoilt, and what is said of it
    ('no features', 'vocabularies.json', lambda t: t.replace('"features"', '"stuff"'), 'vocabularies.json is damaged'),
    ('another column', 'items.csv', lambda t: t.replace('title', 'name'), 'items.csv, line 1: column title is missing'),
    ('text for an id', 'users.csv', lambda t: t.replace('\n1,', '\nx,'), 'users.csv: '),
    ('an id twice', 'users.csv', lambda t: t.replace('\n1,', '\n2,'), 'the ids are not distinct'),
    ('a row too few', 'users.csv', lambda t: t[:t.rindex('\n', 0, -1) + 1], 'users.csv has 5 rows instead of 6'),
    ('text for a year', 'items.csv', lambda t: t.replace('"1981"', '"old"'), 'items.csv: '),
    ('a genre too few', 'vocabularies.json', lambda t: t.replace('"Drama"', '"Opera"'), 'genres holds values that vocabularies.json lacks')]

@table('name, spoil, says', FOLDERS)
def test_damaged_vocabularies(name, spoil, says):
    folder = save_vocabularies(read_movielens(write(ML1M)), 'words')
    before = (folder/name).read_text()
    (folder/name).write_text(spoil(before))
    assert (folder/name).read_text() != before
    with pytest.raises(DataError, match='make it again') as error: load_vocabularies(folder)
    assert says in str(error.value)

def test_no_vocabularies():
    with pytest.raises(DataError, match='vocabularies.json is missing, so there is not a folder with vocabularies'):
        load_vocabularies(write({}))

def test_prepared_without_the_list_of_arrays(run):
    edit('prepared/metadata.json', drop('arrays'))
    refused('bst_train', '--data', 'prepared', says=['prepared/metadata.json is damaged', 'prepare the data again'])

@pytest.mark.parametrize('array, change, says', [('rating', lambda a: a.astype(float), 'rating.npy holds float64'),
                                                 ('offsets', lambda a: a[::-1], 'offsets.npy does not rise to')])
def test_arrays_with_good_checksums(run, array, change, says):
    "Wrong all the same, as another program may write them"
    np.save(f'prepared/{array}.npy', change(np.load(f'prepared/{array}.npy')))
    edit('prepared/metadata.json', put('sha256', f'{array}.npy', value=file_digest(f'prepared/{array}.npy')))
    refused('bst_train', '--data', 'prepared', says=[says, 'prepare the data again'])


# --- Tables

BOOKS = pd.DataFrame(dict(user=['eve', 'ann', 'eve'], item=['X2', 'X1', 'X1'], rating=[4, 5, 1], timestamp=[30, 10, 20]))
READERS = pd.DataFrame(dict(user=['ann', 'eve', 'zoe'], country=['NO', None, 'PE']))
SHELF = pd.DataFrame(dict(item=['X1', 'X2', 'X3'], title=['One', None, 'Three'], year=[1999, None, 2001]))
NUMBERS = pd.DataFrame(dict(user=[1, 1, 2], item=[1, 2, 1], rating=[3., 4., 5.], timestamp=[10, 20, 30]))

def cell(column, value):
    "The books with `value` in their second row"
    changed = BOOKS.astype(object)
    changed.loc[1, column] = value
    return changed

FRAMES = [  # arguments of `from_frame`, and parts of the message
    ('no rating', dict(ratings=cell('rating', None)), ['ratings, row 2: rating must be a number, got None', 'correct or remove']),
    ('text for a rating', dict(ratings=cell('rating', 'many')), ["ratings, row 2: rating must be a number, got 'many'"]),
    ('rating off the scale', dict(ratings=cell('rating', 6), rating_values=(1, 2, 3, 4, 5)), ['row 2: rating 6 is out of range']),
    ('rating above the scale', dict(ratings=cell('rating', 6.5), rating_values=(1, 5)), ['row 2', 'a number from 1 to 5']),
    ('no user', dict(ratings=cell('user', None)), ['ratings, row 2: user is missing', 'give every row an id']),
    ('unknown user', dict(ratings=cell('user', 'bob')), ['ratings, row 2: user bob has no row in users']),
    ('unknown item', dict(ratings=cell('item', 'X9')), ['ratings, row 2: item X9 has no row in items']),
    ('no time', dict(ratings=cell('timestamp', None)), ['ratings, row 2: timestamp']),
    ('a date of 1950', dict(ratings=BOOKS.assign(timestamp=pd.Timestamp('1950-01-01'))), ['row 1: timestamp', 'is negative']),
    ('no date', dict(ratings=BOOKS.assign(timestamp=[pd.Timestamp(0), pd.NaT, pd.Timestamp(1)])), ['row 2: timestamp is missing']),
    ('a date that is none', dict(ratings=BOOKS.assign(timestamp=['2024-01-31', 'May', '2024-02-01'])),
     ["row 2: timestamp must be a date such as 2024-01-31, got 'May'", 'give every rating a time']),
    ('no date at all', dict(ratings=BOOKS.assign(timestamp=['31/1/24', 'May', 'x'])),
     ["row 1: timestamp must be seconds since 1970 or a date such as 2024-01-31, got '31/1/24'", 'pd.to_datetime']),
    ('compact dates', dict(ratings=BOOKS.assign(timestamp=[20240131, 20240201, 20240202])), ['timestamps such as 20240131 look like dates']),
    ('compact dates as text', dict(ratings=BOOKS.assign(timestamp=['20240131', '20240201', '20240131'])), ['20240131 look like dates']),
    ('milliseconds', dict(ratings=BOOKS.assign(timestamp=1.7e12)), ['divide milliseconds by 1000']),
    ('other names', dict(ratings=BOOKS.rename(columns={'user': 'reader'})),
     ['ratings: column user is missing (there are reader, item', "columns={'user': …}"]),
    ('no rows', dict(ratings=BOOKS.iloc[:0]), ['ratings is empty']),
    ('a rating twice', dict(ratings=pd.concat([BOOKS, BOOKS.iloc[:1]])), ['ratings, row 4', 'as in ratings, row 1: remove']),
    ('a user twice', dict(users=pd.concat([READERS, READERS])), ['users, row 4: user ann occurs twice', 'keep one']),
    ('text for a year', dict(items=SHELF.assign(year='old')), ["items, row 1: year holds 'old': give a finite number"]),
    ('year 20000', dict(items=SHELF.assign(year=20000)), ['items, row 1: year holds 20000: give a year of four digits']),
    ('a bar in a genre', dict(items=SHELF.assign(genres=[['a|b']] * 3)), ["items, row 1: genres holds 'a|b' in a list: give plain values"]),
    ('a feature called user', dict(users=READERS.rename(columns={'user': 'reader', 'country': 'user'}), columns={'user': 'reader'},
                                   ratings=BOOKS.rename(columns={'user': 'reader'})), ["a feature must not be called 'user'"]),
    ('half a user', dict(ratings=NUMBERS.assign(user=1.5), users=None, items=None), ['row 1: user 1.5 is not a whole number']),
    ('a scale of one value', dict(rating_values=[5]), ['rating_values must hold the lowest and the highest rating, got (5.0,)']),
    ('unknown name of ours', dict(columns={'stars': 'rating'}), ["unknown key of columns 'stars'", 'choose one of user'])]

@table('changes, says', FRAMES)
def test_from_frame(changes, says):
    with pytest.raises(BSTError) as error: from_frame(**dict(ratings=BOOKS, users=READERS, items=SHELF) | changes)
    assert all(part in str(error.value) for part in says) and '\n' not in str(error.value), error.value


# --- The installed commands

def test_installed_command():
    "As a user meets it, in a process of its own"
    command, argv = 'bst_train', ['--data', 'there']
    says = 'there/ratings.dat, line 1: rating 9 is out of range'
    script = shutil.which(command, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not script: pytest.skip(f'{command} is not installed')
    write(ML1M | {'ratings.dat': '1::2::9::5\n'})
    before = listing()
    done = subprocess.run([script, *argv], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count('\n') == 1 and done.stderr.startswith(f'{command}: {says}'), done.stderr
    assert listing() == before
