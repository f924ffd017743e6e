"""The service refuses what it cannot answer, and never fails.

It gets chosen requests, requests made from its own OpenAPI document, and raw bytes over the wire.
"""
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import schemathesis
from fastapi.testclient import TestClient
from helpers import refuses
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from bst_nbdev.core import BSTError, ConfigError, show_progress
from bst_nbdev.pipeline import Recipe, train
from bst_nbdev.runs import save_run
from bst_nbdev.recommender import Recommender
from bst_nbdev.cli import bst_serve
from bst_nbdev.batcher import Overloaded
from bst_nbdev.service import MAX_BYTES, Question, check_address, make_app

SERVE = 'import sys; from bst_nbdev.cli import bst_serve; sys.exit(bst_serve())'
HERE = 'http://127.0.0.1'


@pytest.fixture(scope='module')
def run():
    "A small model of the sample"
    bars = show_progress(False)
    yield train(Recipe(protocol='leave-last-out', epochs=1), device='cpu')
    show_progress(bars)


@pytest.fixture(scope='module')
def recommender(run): return Recommender.from_run(run)


@pytest.fixture(scope='module')
def client(recommender):
    "A client of the service in this process"
    app = make_app(recommender)
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as found: yield found


@pytest.fixture(scope='module')
def folder(run, tmp_path_factory):
    "The folder of the saved run"
    return save_run(run, tmp_path_factory.mktemp('served')/'run')


# --- Requests that are refused

RATINGS = [dict(item=3, rating=5), dict(item=8, rating=5), dict(item=20, rating=1)]

def one(item, rating=3): return dict(ratings=[dict(item=item, rating=rating)])

def more(**fields): return dict(ratings=RATINGS, **fields)

REFUSED = [
    ('no user', {}, 422, 'give either user or ratings'),
    ('user and ratings', more(user=1), 422, 'give either user or ratings'),
    ('unknown user', dict(user=10**6), 404, 'no user has the id 1000000'),
    ('unknown title', one('no such film'), 404, "no item is called 'no such film'"),
    ('ambiguous title', one('Lighthouse'), 404, 'may be'),
    ('empty title', one(''), 422, 'at least 1 character'),
    ('fractional item', one(1.5), 422, 'ratings.0.item'),
    ('huge item', one(10**400), 422, 'ratings.0.item'),
    ('rating outside the scale', one(1, 9), 422, 'give 1 to 5'),
    ('rating as text', one(1, '5'), 422, 'ratings.0.rating'),
    ('rating as truth value', one(1, True), 422, 'ratings.0.rating'),
    ('ratings as text', dict(ratings='all'), 422, 'ratings'),
    ('too many ratings', dict(ratings=RATINGS * 200), 422, 'at most 500'),
    ('k of 0', more(k=0), 422, 'k: '),
    ('huge k', more(k=10**6), 422, 'k: '),
    ('k as text', more(k='3'), 422, 'k: '),
    ('unknown order', more(by='best'), 422, "unknown by 'best': choose one of liked, next, rating"),
    ('order of another model', more(by='click'), 422, "unknown by 'click'"),
    ('empty order', more(by=''), 422, 'by: String should have at least 1 character'),
    ('order as number', more(by=1), 422, 'by: '),
    ('exact as text', more(exact='yes'), 422, 'exact: '),
    ('a word for the moment', more(at='tomorrow'), 422, "at must be seconds since 1970, a date such as '2003-01-31'"),
    ('empty moment', more(at=''), 422, 'at: '),
    ('a year alone', more(at='2003'), 422, "got '2003'"),
    ('no such day', more(at='2003-02-31'), 422, "got '2003-02-31'"),
    ('before 1970', more(at=-5), 422, 'at: timestamp -5 is negative'),
    ('milliseconds', more(at=978300760000), 422, 'divide milliseconds by 1000'),
    ('huge moment', more(at=10**400), 422, 'at'),
    ('moment as truth value', more(at=True), 422, 'at: '),
    ('moments', more(at=[1, 2]), 422, 'at: '),
    ('unknown genre', more(genres=['Opera']), 422, "unknown genre 'Opera'"),
    ('one year', more(years=[1990]), 422, 'years'),
    ('unknown field', more(depth=3), 422, 'depth'),
    ('unknown feature', more(profile=dict(shoe_size=43)), 422, 'shoe_size'),
    ('unknown value of a feature', more(profile=dict(sex='Q')), 422, "unknown sex 'Q'"),
    ('profile of a known user', dict(user=1, profile=dict(sex='F')), 422, 'the profile of a known user'),
    ('list', [], 422, ''),
    ('number', 7, 422, ''),
]

def check_refused(response, statuses, message=''):
    "Check the status and the one line of an error"
    assert response.status_code in statuses, (response.status_code, response.text)
    assert set(response.json()) == {'error'} and message in response.json()['error'], response.text

@pytest.mark.parametrize('body, status, message', [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_refused(client, body, status, message):
    check_refused(client.post('/recommend', json=body), [status], message)

BODIES = [b'{', b'', b'\xff\xfe', b'{"user": NaN}', b'{"ratings": [{"item": 1, "rating": NaN}]}',
          b'{"ratings": [{"item": 1, "rating": Infinity}]}', b'[' * 5000]

@pytest.mark.parametrize('body', BODIES, ids=lambda body: repr(body[:20]))
def test_refused_bodies(client, body):
    response = client.post('/recommend', content=body, headers={'content-type': 'application/json'})
    check_refused(response, [400, 422])

def test_too_many_bytes_are_refused(client):
    check_refused(client.post('/recommend', content=b' ' * (MAX_BYTES + 1)), [413], 'send less')
    without_a_length = (b' ' * 1000 for _ in range(1000))
    check_refused(client.post('/recommend', content=without_a_length), [413], 'send less')

def test_refused_on_other_routes(client):
    check_refused(client.get('/recommend'), [405], 'Method Not Allowed')
    check_refused(client.post('/predict', json=more(items=[])), [422], 'items')
    check_refused(client.post('/explain', json=more(item=10**9)), [404], 'no item has the id')
    check_refused(client.post('/explain', json=more(item=3, by='best')), [422], "unknown by 'best'")
    for path, fields in dict(predict=dict(items=[3]), explain=dict(item=3)).items():
        check_refused(client.post(f'/{path}', json=more(at='soon', **fields)), [422], 'at must be seconds since 1970')
    check_refused(client.post('/predict', json=more(items=[3], by='next')), [422], 'by: ')  # all answers, in no order
    check_refused(client.get('/items', params=dict(limit=0)), [422], 'limit')

@pytest.mark.parametrize('path', [
    '/../../etc/passwd', '/page/../service.py', '/page/%2e%2e/service.py', '/page/..%2fservice.py',
    '/static-offline-docs/../__init__.py', '/nothing'])
def test_no_other_files_are_served(client, path): assert client.get(path).status_code == 404

def test_other_host_names_are_refused(client):
    assert client.get('/health', headers={'host': 'evil.example'}).status_code == 400

def test_an_empty_history_is_answered(client):
    assert len(client.post('/recommend', json=dict(ratings=[], k=2)).json()['items']) == 2


# --- Orders and moments

def ask(client, path, **body):
    "The answer to a request that is not refused"
    response = client.post(f'/{path}', json=body)
    assert response.status_code == 200, response.text
    return response.json()

def test_both_numbers_in_each_order(client, recommender):
    assert client.get('/health').json()['ranked_by'] == ['liked', 'next', 'rating']
    for by, column in dict(liked='liked', next='next', rating='expected').items():
        rows = ask(client, 'recommend', **more(by=by, k=20))['items']
        values = [row[column] for row in rows]
        assert values == sorted(values, reverse=True) and len(rows) == 20
        assert all(0 <= row['liked'] <= row['next'] <= 1 and 1 <= row['expected'] <= 5 for row in rows)
        assert [row['item'] for row in rows] == recommender.recommend([(r['item'], r['rating']) for r in RATINGS], 20, by).item.tolist()
    assert ask(client, 'recommend', **more()) == ask(client, 'recommend', **more(by='liked'))

def test_a_profile(client):
    known = client.get('/health').json()['profile']
    assert known['sex'] == ['F', 'M'] and 25 in known['age_group']
    def expected(**profile): return ask(client, 'predict', **more(items=[30], profile=profile))['items'][0]['expected']
    assert expected(sex='F') != expected(sex='M')
    assert expected(age_group='25') == expected(age_group=25) != expected()  # a page sends text

def test_new_items(recommender):
    table = pd.DataFrame(dict(item=[9001], title='Quiet Harbour (2004)', genres='Drama', year=2004))
    with TestClient(make_app(recommender.add_items(table)), base_url=HERE) as client:
        assert client.get('/health').json()['new_items'] == 1
        assert client.get('/items', params=dict(query='quiet harbour')).json()['items'][0]['new'] is True
        assert not client.get('/items').json()['items'][0]['new']
        listed = ask(client, 'recommend', **more(k=100, years=(2004, 2004), min_ratings=20))['items']
        assert [film['item'] for film in listed if film['new']] == [9001]
        assert ask(client, 'predict', **more(items=['Quiet Harbour']))['items'][0]['new']
        reasons = ask(client, 'explain', ratings=[*RATINGS, dict(item=9001, rating=5)], item=30)
        assert [film['new'] for film in reasons['items'] if film['item'] == 9001] == [True]

def test_the_moment_of_a_question(client):
    "Seconds and dates are the same, and not the same as none"
    fields = dict(predict=dict(items=[3, 10]), recommend=dict(by='next'), explain=dict(item=10, by='next'))
    for path, more_fields in fields.items():
        by_date, by_seconds, unknown = [ask(client, path, **more(**more_fields, **at))['items'] for at in
                                        (dict(at='1970-06-01 12:00'), dict(at=13089600), dict())]
        assert by_date == by_seconds != unknown

def test_an_exact_list(client, recommender):
    rows = ask(client, 'recommend', **more(exact=True))['items']
    pairs = [(rated['item'], rated['rating']) for rated in RATINGS]
    assert [row['item'] for row in rows] == recommender.recommend(pairs, exact=True).item.tolist()

def test_reasons_for_both_answers(client):
    found = {by: ask(client, 'explain', **more(item=10, by=by)) for by in ('liked', 'next', 'rating')}
    assert [one['by'] for one in found.values()] == list(found)
    effects = [[row['effect'] for row in one['items']] for one in found.values()]
    assert all(len(each) == 3 for each in effects) and effects[0] != effects[1] != effects[2]
    assert ask(client, 'explain', **more(item=10)) == found['liked']
    assert all({'liked', 'next', 'expected'} <= set(one['about']) for one in found.values())

def hold_up(batcher, release):
    "Keep the batcher busy until an event is set; return when it has begun, so that its batch takes in nothing else"
    begun = threading.Event()
    def wait(*_):
        begun.set()
        return [release.wait()]
    batcher.submit(Question(wait))
    assert begun.wait(timeout=30)

def test_requests_of_all_kinds_share_batches(recommender):
    "Whatever stands beside a request in a batch, its answer is the one it gets alone"
    users = recommender.users.interactions.users.ids[:4].tolist()
    requests = [('recommend', more(by=by, at=at, k=k, exact=exact)) for by, at, k, exact in [
        ('liked', None, 3, False), ('next', 10**9, 12, False), ('liked', '1999-12-31', 5, True), ('liked', 10**8, 7, False)]]
    requests += [('recommend', dict(user=user, genres=['Drama'], exclude_seen=False)) for user in users]
    requests += [('predict', more(items=[10, 3, 10])), ('predict', dict(user=users[0], items=[40], at=10**9)), ('explain', more(item=10))]
    release, app = threading.Event(), make_app(recommender)
    def numbers(answer): return [{name: value for name, value in row.items() if name != 'distribution'} for row in answer['items']]
    with TestClient(app, base_url=HERE) as client:
        alone = [numbers(ask(client, path, **body)) for path, body in requests]
        hold_up(app.state.service.batcher, release)
        with ThreadPoolExecutor(len(requests)) as pool:
            asked = [pool.submit(ask, client, path, **body) for path, body in requests]
            while app.state.service.batcher.waiting.qsize() < len(requests): time.sleep(.01)
            release.set()
            together = [numbers(future.result()) for future in asked]
    for one, other in zip(alone, together):
        assert len(one) == len(other) > 0
        for a, b in zip(one, other): assert a == pytest.approx(b, abs=1e-5)

@pytest.mark.parametrize('preset, by, columns', [('rating', 'rating', {'expected', 'median', 'distribution'}), ('next', 'next', {'next'})])
def test_a_model_with_one_answer(preset, by, columns):
    "It is asked by the same routes; its order is the default, and any other is refused"
    found = Recommender.from_run(train(Recipe(preset=preset, protocol='leave-last-out', epochs=1), device='cpu'))
    with TestClient(make_app(found), base_url=HERE, raise_server_exceptions=False) as client:
        assert client.get('/health').json()['ranked_by'] == [by]
        rows = ask(client, 'recommend', **more(k=5))['items']
        assert set(rows[0]) == {'item', 'title', 'year', 'genres'} | columns
        assert rows == ask(client, 'recommend', **more(k=5, by=by))['items'] == ask(client, 'recommend', **more(k=5, exact=True))['items']
        assert [row['item'] for row in ask(client, 'predict', **more(items=[10, 3]))['items']] == [10, 3]
        assert ask(client, 'explain', **more(item=10))['by'] == by
        other = 'next' if by == 'rating' else 'rating'
        for path, fields in dict(recommend={}, explain=dict(item=10)).items():
            refusal = client.post(f'/{path}', json=more(by=other, **fields))
            check_refused(refusal, [422], f"unknown by '{other}': choose one of {by}")


# --- Too many requests, and the end of the service

def test_overload(recommender):
    release, app = threading.Event(), make_app(recommender, max_waiting=2)
    batcher = lambda: app.state.service.batcher
    with TestClient(app, base_url=HERE) as client:
        ask = lambda: client.post('/recommend', json=dict(user=1))
        hold_up(batcher(), release)
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask) for _ in range(8)]
            while sum(future.done() for future in asked) < 6: time.sleep(.01)  # six are refused at once, two wait
            release.set()
            responses = [future.result() for future in asked]
        assert sorted(response.status_code for response in responses) == [200] * 2 + [503] * 6
        refusal = next(response for response in responses if response.status_code == 503)
        assert refusal.headers['retry-after'] == '1' and 'try again' in refusal.json()['error']
        assert ask().status_code == 200
    with pytest.raises(Overloaded, match='stopping'): batcher().submit(Question(lambda *_: [release.wait()]))
    with TestClient(app, base_url=HERE) as client:  # started again
        assert client.post('/recommend', json=dict(user=1)).status_code == 200

def test_a_request_does_not_wait_for_ever(recommender):
    release, app = threading.Event(), make_app(recommender)
    app.state.service.timeout = .1
    with TestClient(app, base_url=HERE) as client:
        hold_up(app.state.service.batcher, release)
        check_refused(client.post('/recommend', json=dict(user=1)), [503], 'no answer within 0.1 seconds')
        release.set()


# --- The command

@pytest.mark.parametrize('host, port, error, message', [
    ('127.0.0.1', 70000, ConfigError, 'port must be 1 to 65535, or 0 for any free port, got 70000'),
    ('no.such.host.invalid', 0, BSTError, 'cannot listen on no.such.host.invalid'),
    ('é' * 70, 0, BSTError, 'choose another --port, or --host')], ids=['port', 'host', 'no name'])
def test_addresses_that_are_refused(host, port, error, message):
    with pytest.raises(error, match=message): check_address(host, port)

def test_serve_refuses(folder, tmp_path):
    refuses(bst_serve, [], 'no model given: use --model')
    refuses(bst_serve, ['--model', tmp_path/'none', '--port', 0], 'does not exist: give the folder of a run')
    refuses(bst_serve, ['--model', folder, '--port', 99999], 'port must be 1 to 65535')
    refuses(bst_serve, ['--model', folder, '--port', 0, '--threads', 0], 'threads')
    refuses(bst_serve, ['--model', folder, '--port', 0, '--waiting', 0], 'waiting')
    refuses(bst_serve, ['--model', folder, '--port', 0, '--data', 'no/such'], 'no/such')
    refuses(bst_serve, ['--model', folder, '--port', 0, '--items', 'none.csv'], 'none.csv cannot be read as a table of items')
    with socket.create_server(('127.0.0.1', 0)) as taken:
        refuses(bst_serve, ['--model', folder, '--port', taken.getsockname()[1]], 'choose another --port')

def test_serve_refuses_a_changed_file(run, tmp_path):
    folder = save_run(run, tmp_path/'run')
    (folder/'items.csv').write_text((folder/'items.csv').read_text() + '\n')
    refuses(bst_serve, ['--model', folder, '--port', 0], 'items.csv is not what was saved')


# --- Requests made from the OpenAPI document

@pytest.fixture(scope='module')
def document(recommender):
    "The service's own description"
    return schemathesis.openapi.from_asgi('/openapi.json', make_app(recommender, ('*',)))


OPERATIONS = [('/health', 'GET'), ('/items', 'GET'), ('/predict', 'POST'), ('/recommend', 'POST'),
              ('/explain', 'POST')]


def test_all_operations_are_listed(document):
    listed = [operation.ok() for operation in document.get_all_operations()]
    assert sorted((one.path, one.method.upper()) for one in listed) == sorted(OPERATIONS)


@pytest.mark.parametrize('path, method', OPERATIONS)
@pytest.mark.parametrize('mode', list(GenerationMode))
def test_no_request_makes_it_fail(document, path, method, mode):
    @settings(max_examples=40, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))
    @given(document[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call()
        request = f'{case.method} {case.path} {case.body!r}'
        assert answer.status_code < 500, f'{request}: {answer.status_code} {answer.text}'
        if answer.status_code >= 400: assert set(json.loads(answer.text)) == {'error'}

    try: ask()
    except Unsatisfiable: assert (path, mode) == ('/health', GenerationMode.NEGATIVE)  # it has no parameter that could be wrong


# --- Raw bytes over the wire

@pytest.fixture(scope='module')
def port(folder):
    "A service in a process of its own"
    options = ['--model', str(folder), '--port', '0', '--device', 'cpu', '--threads', '1']
    command = [sys.executable, '-c', SERVE, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = ''
    while 'http://' not in line: line = process.stdout.readline() or pytest.fail('the service ended')
    number = int(line.split('://')[1].split(':')[1].split('/')[0])
    for _ in range(200):
        try: socket.create_connection(('127.0.0.1', number), timeout=1).close()
        except OSError: time.sleep(.05)
        else: break
    yield number
    process.terminate()
    assert process.wait(timeout=20) in (0, -15)


def raw(port, data):
    "The first line of the response to some bytes, or nothing"
    with socket.create_connection(('127.0.0.1', port), timeout=20) as there:
        answer = b''
        try:
            there.sendall(data)
            there.shutdown(socket.SHUT_WR)
            while part := there.recv(65536): answer += part
        except TimeoutError: raise
        except OSError: pass  # the service closed the connection, which is a refusal too
    return answer.split(b'\r\n')[0].decode()


POST = b'POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n'
CLOSE = b' HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n'
STRANGE = {
    'garbage': b'\x00\xff\x13nonsense\r\n\r\n',
    'a false length': POST + b'Content-Length: 10\r\n\r\n{}',
    'a negative length': POST + b'Content-Length: -1\r\n\r\n',
    'a huge length and no body': POST + b'Content-Length: 99999999999\r\n\r\n',
    'a false chunk': POST + b'Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n{}',
    'a long header': b'GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ' + b'a' * 200_000 + b'\r\n\r\n',
    'a path upwards': b'GET /page/../../service.py' + CLOSE,
    'a path upwards, encoded': b'GET /page/%2e%2e%2fservice.py' + CLOSE,
    'another host': b'GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n',
    'an unknown method': b'BREW /recommend' + CLOSE,
    'too many bytes': (POST + b'Content-Length: %d\r\nConnection: close\r\n\r\n' % (MAX_BYTES + 1)
                       + b' ' * (MAX_BYTES + 1)),
}


@pytest.mark.parametrize('name', STRANGE)
def test_strange_bytes(port, name):
    line = raw(port, STRANGE[name])
    assert not line or line.split()[1].startswith('4'), line
    healthy = raw(port, b'GET /health' + CLOSE)
    assert healthy == 'HTTP/1.1 200 OK'
