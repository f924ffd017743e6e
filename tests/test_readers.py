"""Files of any layout: each bad input gives one line that names the file, the row and the remedy, and none a traceback."""
import gzip
import random
import zipfile

import numpy as np
import pandas as pd
import pytest

from bst_nbdev.core import BSTError, DataError, MissingExtraError
from bst_nbdev.checks import parse_times
from bst_nbdev.data import from_frame
from bst_nbdev.movielens import read_movielens
from bst_nbdev.readers import read_files
from bst_nbdev.shop import make_shop

HEADER = 'user,item,timestamp\n'
ROW = '1,2,1700000000\n'

def refused(path, *words, **arguments):
    with pytest.raises(BSTError) as failed: read_files(path, **arguments)
    message = str(failed.value)
    assert '\n' not in message and len(message) < 1000, message
    for word in words: assert word in message, message

BAD_TEXTS = {  # name of the case: content, and words that the message must hold
    'empty': (b'', 'is empty: give a file with a header and rows'),
    'blank': (b'\n \n\n', 'is empty'),
    'mark': (b'\xef\xbb\xbf', 'is empty'),
    'header': (HEADER, 'has a header and no rows'),
    'header-blank': (HEADER + '\n\n', 'has a header and no rows'),
    'short': (HEADER + ROW + '1,2\n', 'bad.csv, line 3: 3 fields'),
    'long': (HEADER + '\n' + ROW + '1,2,3,4\n', 'bad.csv, line 4: 3 fields'),
    'separators': (HEADER + ROW + '1;2;3\n', "(with ';' it would be 3: use one separator)"),
    'late': (HEADER + ROW * 100_000 + '1,2\n', 'line 100002'),
    'open': (HEADER + ROW + '1,"2,3\n' + ROW * 50_000, 'line 3: ', 'look for a double quote that is not closed'),
    'quote': (HEADER + ROW + '1,"2" 3,4\n', 'line 3: ', 'look for a double quote'),
    'twice': ('user,item,item,timestamp\n1,2,3,4\n', 'column item is there twice'),
    'missing': ('user,item\n1,2\n', 'column timestamp is missing (there are user, item): say which it is with columns, such as timestamp='),
    'two': ('uid,customer_id,sku,ts\n1,2,3,4\n', 'uid and customer_id could both be user: say which with columns, such as user=uid'),
    'nameless': ('1,2,1700000000\n' * 3, 'column user is missing'),
    'user': (HEADER + ROW + ',2,3\n', 'line 3: user is missing: give it'),
    'item': (HEADER + ROW + '1, ,3\n', 'line 3: item is missing'),
    'time': (HEADER + ROW + '1,2,\n', 'line 3: timestamp is missing'),
    'latin': (HEADER.encode() + 'José,2,3\n'.encode('latin-1'), "line 2: byte 0xe9 is not UTF-8", "'José,2,3'"),
    'utf-16': (HEADER.encode('utf-16'), 'is UTF-16 text, not a table of text: save it as UTF-8'),
    'nul': (HEADER + 'a\0b,2,3\n', 'line 2: a NUL character'),
    'header-quote': ('user,"item,timestamp\n1,2,3\n', 'has a double quote too many'),
    'no-names': (',,\n1,2,3\n', 'column user is missing (there are none)'),
    'parquet': (b'PAR1' + bytes(100), 'is Parquet, not a table of text: end its name in .parquet'),
    'gzip': (gzip.compress(HEADER.encode()), 'is packed with gzip'),
    'zip': (b'PK\x03\x04' + bytes(100), 'a zip archive or a workbook'),
    'json': ('{"user": 1}\n', 'is JSON'),
    'html': ('<!DOCTYPE html>\n<html>\n', 'is a web page'),
    'line': (HEADER + 'a' * 3_000_000, 'a line has more than 1,048,576 bytes'),
    'field': (HEADER + '"' + 'a' * 200_000 + '",2,3\n', 'field larger than field limit'),
}

@pytest.mark.parametrize('case', BAD_TEXTS)
def test_bad_text_is_refused_in_one_line(tmp_path, case):
    content, *words = BAD_TEXTS[case]
    (tmp_path/'bad.csv').write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(tmp_path/'bad.csv', 'bad.csv', *words)

def test_wrong_arguments_name_the_remedy(tmp_path):
    (tmp_path/'good.csv').write_text(HEADER + ROW)
    good = tmp_path/'good.csv'
    refused(good, 'column client (user) is missing', columns='user=client')
    refused(good, 'column cost (price) is missing: there are events: item, timestamp, user', columns='price=cost')
    refused(good, 'like user=customer,item=sku', columns='user')
    refused(good, 'choose one of csv, parquet, recbole', layout='json')
    refused(good, 'is no name of a column with its type', layout='recbole')
    refused(good, 'is given twice', columns=None, layout=None, users=[good, good])
    refused(tmp_path/'*.tsv', 'does not exist: give a file, a folder, or a pattern')
    refused(tmp_path/'good', 'does not exist')
    (tmp_path/'good.parquet').write_text(HEADER)
    with pytest.raises((DataError, MissingExtraError), match='is not Parquet|bst_nbdev.parquet'): read_files(tmp_path/'good.parquet')
    (tmp_path/'good.csv.gz').write_text(HEADER)
    refused(tmp_path/'good.csv.gz', 'is not packed with gzip')

def test_a_packed_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('bst_nbdev.layouts.SMALL', 2**20)
    (tmp_path/'bomb.csv.gz').write_bytes(gzip.compress(HEADER.encode() + ROW.encode() * 2**20))
    refused(tmp_path/'bomb.csv.gz', 'bomb.csv.gz unpacks to more than')

def test_parts_must_be_of_one_layout(tmp_path):
    (tmp_path/'a.csv').write_text(HEADER + ROW)
    (tmp_path/'b.csv').write_text('user,item,timestamp,price\n1,2,3,4\n')
    refused(tmp_path, 'b.csv is not of the layout of', 'a.csv: there are user, item, timestamp, price')

def test_whatever_the_bytes_there_is_no_traceback(tmp_path):
    "Good files with a few bytes changed, cut or doubled"
    folder, chance = make_shop(tmp_path/'shop', n_users=3), random.Random(0)
    good = {name: (folder/name).read_bytes() for name in ('events.csv', 'users.csv')}
    pieces = [b'"', b',', b'\n', b'\r', b'\0', b'\xff', b';', b'\t', b'|', b'', b'"\n', b'1e999', b'-', '٣'.encode(), b' ' * 9]
    for number in range(150):
        for name, content in good.items():
            data = bytearray(content)
            for _ in range(chance.randrange(1, 4)):
                place = chance.randrange(len(data) + 1)
                data[place:place + chance.randrange(3)] = chance.choice(pieces)
            if number % 10 == 0: del data[chance.randrange(len(data)):]
            (folder/name).write_bytes(data)
        try: found = read_files(folder)
        except BSTError as error: assert '\n' not in str(error) and 'csv' in str(error)
        else:
            for row in 0, len(found.events) - 1: assert found.where('events', row).startswith(str(folder/'events.csv'))

@pytest.mark.parametrize('ends', ['\n', '\r\n', '\r'])
def test_line_ends_do_not_matter(tmp_path, ends):
    path = tmp_path/'a.csv'
    path.write_bytes(ends.join(['user,item,timestamp,title', '1,2,3,a', '', '2,3,4,"b ""c"""']).encode())
    found = read_files(path)
    assert found.events.values.tolist() == [[1, 2, 3, 'a'], [2, 3, 4, 'b "c"']]
    assert [found.where('events', row) for row in (0, 1)] == [f'{path}, line 2', f'{path}, line 4']

def test_ids_come_through_unharmed(tmp_path):
    "Also where one part has numbers only, and where users stand in a table of their own"
    for name, user in ('a', '9007199254740993'), ('b', '0012'), ('c', '1e5'):
        (tmp_path/f'part-{name}.csv').write_text(HEADER + f'{user},2,3\n')
    (tmp_path/'users.csv').write_text('id,age\n9007199254740993,20\n0012,\n1e5,30\n')
    found = read_files(tmp_path)
    assert found.events['user'].tolist() == found.users['user'].tolist() == ['9007199254740993', '0012', '1e5']
    assert np.isnan(found.users['age'][1]) and found.events['item'].tolist() == [2, 2, 2]

def test_times_are_parsed_with_the_line_to_blame(tmp_path):
    (tmp_path/'a.csv').write_text(HEADER + '1,2,2024-01-31\n1,3,yesterday\n')
    found = read_files(tmp_path/'a.csv')
    with pytest.raises(DataError, match=r"a.csv, line 3: timestamp must be a date such as 2024-01-31, got 'yesterday'"):
        parse_times(found.events['timestamp'], found.where)

def test_recbole_and_grouplens_give_the_same_ratings(tmp_path):
    "An invented ml-100k in both layouts"
    chance = np.random.default_rng(0)
    pairs = chance.permutation(20 * 30)[:300]
    rows = [(1 + pair // 30, 1 + pair % 30, chance.integers(1, 6), 881250949 + chance.integers(10**6)) for pair in pairs]
    lines = ['\t'.join(map(str, row)) for row in rows]
    for name in 'recbole', 'grouplens': (tmp_path/name).mkdir()
    header = 'user_id:token\titem_id:token\trating:float\ttimestamp:float'
    (tmp_path/'recbole'/'ml-100k.inter').write_text('\n'.join([header, *lines]))
    (tmp_path/'grouplens'/'u.data').write_text('\n'.join(lines) + '\n')
    (tmp_path/'grouplens'/'u.user').write_text(''.join(f'{user}|24|M|writer|00000\n' for user in {row[0] for row in rows}))
    (tmp_path/'grouplens'/'u.item').write_text(''.join(f'{item}|Film {item}|01-Jan-1995|||' + '|'.join('0' * 19) + '\n' for item in {row[1] for row in rows}))
    ours, theirs = from_frame(read_files(tmp_path/'recbole').events), read_movielens(tmp_path/'grouplens')
    assert len(ours) == 300 and ours.source['sha256'] == theirs.source['sha256']
    assert ours.users == theirs.users and ours.items == theirs.items

def test_parquet_and_csv_give_the_same(tmp_path):
    pytest.importorskip('pyarrow')
    folder = make_shop(tmp_path/'shop', n_users=20)
    (tmp_path/'parquet').mkdir()
    for path in folder.glob('*.csv'): pd.read_csv(path).to_parquet(tmp_path/'parquet'/f'{path.stem}.parquet')
    one, other = read_files(folder), read_files(tmp_path/'parquet')
    for name in 'events', 'items': pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))
    pd.testing.assert_frame_equal(one.users, other.users, check_dtype=False)

def test_a_zip_archive_is_no_table(tmp_path):
    with zipfile.ZipFile(tmp_path/'a.csv', 'w') as file: file.writestr('events.csv', HEADER + ROW)
    refused(tmp_path/'a.csv', 'a zip archive or a workbook', 'unpack it')
