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
from contextlib import contextmanager
from dataclasses import replace

import httpx
import numpy as np
import pandas as pd
import pytest
import schemathesis
from fastapi.testclient import TestClient
from helpers import refuses
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from bst_nbdev.core import BSTError, ConfigError, show_progress
from bst_nbdev.data import from_frame
from bst_nbdev.pipeline import Recipe, train
from bst_nbdev.runs import save_run
from bst_nbdev.recommender import Recommender
from bst_nbdev.cli import bst_serve
from bst_nbdev.batcher import Overloaded
from bst_nbdev.server import MAX_BYTES, listen
from bst_nbdev.service import Question, make_app

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
    ('unknown title', one('no such film'), 404, "no film is called 'no such film'"),
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
    check_refused(client.post('/explain', json=more(item=10**9)), [404], 'no film has the id')
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
    for name in 'evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', '':
        check_refused(client.get('/health', headers={'host': name}), [400], 'this service is not called')
    for name in '127.0.0.1:8000', 'LocalHost', '[::1]:1', '[0:0:0:0:0:0:0:1]': assert client.get('/health', headers={'host': name}).status_code == 200

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

def test_items_of_no_interest(client):
    listed = [row['item'] for row in ask(client, 'recommend', **more(k=5))['items']]
    others = [row['item'] for row in ask(client, 'recommend', **more(k=3, exclude=listed[:2]))['items']]
    assert others == listed[2:]
    check_refused(client.post('/recommend', json=more(exclude=[10**9])), [404], 'no film has the id')

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
            while len(app.state.service.batcher.waiting) < len(requests): time.sleep(.01)
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
    with pytest.raises(error, match=message): listen(host, port)

def test_serve_refuses(folder, tmp_path):
    refuses(bst_serve, [], 'give one run: bst_serve runs/…')
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


# --- Ids, titles and numbers that are not plain

def small_shop(ids, **columns):
    "A recommender of a few items with any ids"
    n = np.arange(400)
    ratings = pd.DataFrame(dict(user=n % 20, item=[ids[k] for k in n * 7 % len(ids)], rating=n % 5 + 1., timestamp=n * 50_000))
    data = from_frame(ratings, items=pd.DataFrame(dict(item=ids, **columns)), name='shop')
    return Recommender.from_run(train(Recipe(protocol='leave-last-out', epochs=1), data, device='cpu', baselines=()))

def test_ids_beyond_what_json_holds_travel_as_text():
    "Ten ids of which browsers would make two: they go out as text, and come back as text or as numbers"
    ids = [1610521604143693801 + n for n in range(10)]
    found = small_shop(ids, title=[f'thing {n}' for n in range(10)])
    assert found.predict([('thing 1', 5)], str(ids[3])).item.tolist() == [ids[3]]
    with TestClient(make_app(found), base_url=HERE) as client:
        assert {row['item'] for row in client.get('/items').json()['items']} == set(map(str, ids))
        assert [row['item'] for row in client.get('/items', params=dict(query=str(ids[3]))).json()['items']] == [str(ids[3])]
        for item in str(ids[3]), ids[3]:
            body = dict(ratings=[dict(item=item, rating=5)])
            listed = ask(client, 'recommend', **body)['items']
            assert len(listed) == 9 and str(ids[3]) not in {row['item'] for row in listed} <= set(map(str, ids))
            assert ask(client, 'predict', **body, items=[item])['items'][0]['item'] == str(ids[3])
            answer = ask(client, 'explain', **body, item=ids[4])
            assert answer['about']['item'] == str(ids[4]) and answer['items'][0]['item'] == str(ids[3])

def test_a_body_without_its_header_is_explained(client):
    "What curl -d sends; and other things that are no object"
    for kwargs in dict(content=json.dumps(one(3))), dict(json=[1]), dict(json='x'), dict(content='', headers={'content-type': 'application/json'}):
        check_refused(client.post('/recommend', **kwargs), [422], "the body must be a JSON object: send it with the header 'content-type: application/json'")

def test_the_words_of_the_data_are_spoken():
    shop = small_shop(range(12))
    shop.catalogue = replace(shop.catalogue, words=('tool', 'tools'))
    for words, found in (None, ['tool', 'tools']), (('Teil', 'Teile'), ['Teil', 'Teile']):
        with TestClient(make_app(shop, words=words), base_url=HERE) as client:
            health = client.get('/health').json()
            assert (health['item_word'], health['min_ratings']) == (found, shop.items.usual_min_ratings)

def test_items_without_titles_are_found_by_id():
    with TestClient(make_app(small_shop([f'X-{n}' for n in range(12)])), base_url=HERE) as client:
        assert client.get('/items', params=dict(query='x-11')).json() == dict(
            items=[dict(item='X-11', title='X-11')], guessed=False)
        assert all(row['title'] == row['item'] for row in ask(client, 'recommend', ratings=[dict(item='X-3', rating=5)])['items'])
        assert client.get('/health').json()['item_word'] == ['item', 'items']

def test_guesses_are_marked(client):
    title = client.get('/items').json()['items'][0]['title'].split(' (')[0]
    wrong = title[:2] + title[3] + title[2] + title[4:]
    assert client.get('/items', params=dict(query=title)).json()['guessed'] is False
    found = client.get('/items', params=dict(query=wrong)).json()
    assert found['guessed'] is True and title in found['items'][0]['title']

def test_an_answer_that_is_no_number_is_no_null(recommender, monkeypatch):
    monkeypatch.setattr('bst_nbdev.service.interpret_scores', lambda *_: dict(expected=np.full((1, 1), np.nan)))
    with TestClient(make_app(recommender), base_url=HERE, raise_server_exceptions=False) as client:
        check_refused(client.post('/predict', json=more(items=[3])), [500], 'see the log')


# --- Known users, and explanations beside other requests

def test_no_request_downloads_or_loads_the_data(run, monkeypatch):
    "The data of known users are read at the start; where they are not on this machine, requests are told so"
    monkeypatch.setattr('bst_nbdev.prepared.download', lambda *_: pytest.fail('downloads'))
    found = Recommender(run.model, run.interactions, np.ones(len(run.interactions.items), int), dict(recipe=dict(preset='both', data='ml-32m')))
    assert 'ml-32m is not on this machine' in str(found.users.load_now())
    with TestClient(make_app(found), base_url=HERE, raise_server_exceptions=False) as client:
        assert client.get('/health').json()['known_users'] is False
        check_refused(client.post('/recommend', json=dict(user=1)), [422], 'or ratings instead of an id')
        assert ask(client, 'recommend', **more())['items']

def test_explanations_let_others_pass(recommender):
    release, app = threading.Event(), make_app(recommender)
    with TestClient(app, base_url=HERE) as client, ThreadPoolExecutor(8) as pool:
        batcher, order = app.state.service.batcher, []
        hold_up(batcher, release)
        kept = batcher.answer
        def answer(questions):
            order.append([question.kind.__name__ for question in questions])
            return kept(questions)
        batcher.answer = answer
        asked = [pool.submit(ask, client, 'explain', **more(item=10)) for _ in range(4)]
        while len(batcher.waiting) < 4: time.sleep(.01)
        asked += [pool.submit(ask, client, 'recommend', **more()) for _ in range(2)]
        while len(batcher.waiting) < 6: time.sleep(.01)
        release.set()
        assert all(future.result() for future in asked)
    assert sorted(map(len, order)) == [1, 1, 1, 1, 2] and order.index(['list_items'] * 2) <= 1


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


def test_after_too_many_bytes_nothing_more_is_read(port):
    "The length is refused before the body is sent; a body without a length ends with the limit"
    with socket.create_connection(('127.0.0.1', port), timeout=20) as there:
        there.sendall(POST + b'Content-Length: 2000000000\r\n\r\n')
        answer = b''
        while part := there.recv(65536): answer += part  # until the service closes
    assert answer.startswith(b'HTTP/1.1 413') and b'connection: close' in answer.lower() and b'send less' in answer
    sent = 0
    with socket.create_connection(('127.0.0.1', port), timeout=20) as there, pytest.raises(OSError):
        there.sendall(POST + b'Transfer-Encoding: chunked\r\n\r\n')
        for _ in range(4000):
            there.sendall(b'10000\r\n' + b' ' * 65536 + b'\r\n')
            sent += 65536
    assert sent < 50 * MAX_BYTES

def test_half_a_request_shuts_nobody_out(port):
    half = [socket.create_connection(('127.0.0.1', port)) for _ in range(260)]
    try:
        for there in half: there.sendall(b'GET /health HTTP/1.1\r\nHost: 127')
        for _ in range(3): assert raw(port, b'GET /health' + CLOSE) == 'HTTP/1.1 200 OK'
    finally:
        for there in half: there.close()

def test_a_second_service_on_the_port_ends(port, folder, capsys):
    refuses(bst_serve, ['--model', folder, '--port', port, '--host', 'LOCALHOST'], 'cannot listen', 'choose another --port')
    assert 'look at' not in capsys.readouterr().out

@contextmanager
def serving(folder, *options):
    "A process that serves, and the address that it prints"
    command = [sys.executable, '-c', SERVE, '--model', str(folder), '--port', '0', '--device', 'cpu', '--threads', '1', *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = ''
        while 'look at' not in line: line = process.stdout.readline() or pytest.fail(process.stderr.read())
        yield process, line.split('look at ')[1].split('/ ')[0]
    finally:
        process.kill()
        process.communicate()

@pytest.mark.parametrize('host', ['127.0.0.2', '0:0:0:0:0:0:0:1', 'LOCALHOST'])
def test_the_address_that_is_printed_answers(folder, host):
    with serving(folder, '--host', host) as (_, address), httpx.Client(trust_env=False, timeout=60) as client:
        assert client.get(f'{address}/health').json()['status'] == 'ok'
        check_refused(client.get(f'{address}/health', headers={'host': 'evil.example'}), [400], 'this service is not called')

def test_ends_soon_while_it_explains(folder):
    with serving(folder) as (process, address), httpx.Client(trust_env=False, timeout=60) as client, ThreadPoolExecutor(16) as pool:
        def explain(_): return client.post(f'{address}/explain', json=dict(user=1, item=3))
        asked = [pool.submit(explain, n) for n in range(16)]
        while client.get(f'{address}/health').json()['waiting'] < 8: time.sleep(.01)
        process.terminate()
        began = time.monotonic()
        assert process.wait(timeout=20) in (0, -15) and time.monotonic() - began < 12
        answers = [future.result() for future in asked]
        assert {answer.status_code for answer in answers} == {200, 503}
        for answer in answers:
            if answer.status_code == 503: check_refused(answer, [503], 'the service is stopping')
        assert 'Traceback' not in process.stderr.read()
