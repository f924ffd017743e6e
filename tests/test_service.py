"""Nothing that can be sent to the service makes it fail: requests made up from its own OpenAPI document, and some that no client would send."""
import json
import socket
import subprocess
import sys
import time

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from bst_nbdev.core import show_progress
from bst_nbdev.explain import Recommender
from bst_nbdev.pipeline import Recipe, save_run, train
from bst_nbdev.service import MAX_BYTES, make_app

SERVE = 'import sys; from bst_nbdev.serve import bst_serve; sys.exit(bst_serve())'


@pytest.fixture(scope='module')
def run():
    "A small model of the sample"
    bars = show_progress(False)
    yield train(Recipe(protocol='leave-last-out', epochs=1), device='cpu')
    show_progress(bars)


@pytest.fixture(scope='module')
def document(run):
    "What the service says of itself"
    return schemathesis.openapi.from_asgi('/openapi.json', make_app(Recommender.from_run(run), ('*',)))


OPERATIONS = [('/health', 'GET'), ('/items', 'GET'), ('/predict', 'POST'), ('/recommend', 'POST'), ('/explain', 'POST')]


def test_all_operations_are_listed(document):
    assert sorted((one.ok().path, one.ok().method.upper()) for one in document.get_all_operations()) == sorted(OPERATIONS)


@pytest.mark.parametrize('path, method', OPERATIONS)
@pytest.mark.parametrize('mode', list(GenerationMode))
def test_no_request_makes_it_fail(document, path, method, mode):
    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(document[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call()
        assert answer.status_code < 500, f'{case.method} {case.path} {case.body!r}: {answer.status_code} {answer.text}'
        if answer.status_code >= 400: assert set(json.loads(answer.text)) == {'error'}

    try: ask()
    except Unsatisfiable: assert (path, mode) == ('/health', GenerationMode.NEGATIVE)  # it takes nothing that could be wrong


# --- As bytes over the wire

@pytest.fixture(scope='module')
def port(run, tmp_path_factory):
    "A service in a process of its own"
    folder = save_run(run, tmp_path_factory.mktemp('served')/'run')
    command = [sys.executable, '-c', SERVE, '--model', str(folder), '--port', '0', '--device', 'cpu', '--threads', '1']
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
    "What comes back for some bytes: the first line, or nothing"
    with socket.create_connection(('127.0.0.1', port), timeout=20) as there:
        answer = b''
        try:
            there.sendall(data)
            there.shutdown(socket.SHUT_WR)
            while part := there.recv(65536): answer += part
        except TimeoutError: raise
        except OSError: pass  # it hung up, which is an answer too
    return answer.split(b'\r\n')[0].decode()


POST = b'POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n'
STRANGE = {
    'garbage': b'\x00\xff\x13nonsense\r\n\r\n',
    'a length that lies': POST + b'Content-Length: 10\r\n\r\n{}',
    'a negative length': POST + b'Content-Length: -1\r\n\r\n',
    'a huge length and no body': POST + b'Content-Length: 99999999999\r\n\r\n',
    'a chunk that lies': POST + b'Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n{}',
    'a long header': b'GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ' + b'a' * 200_000 + b'\r\n\r\n',
    'a path upwards': b'GET /page/../../service.py HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n',
    'a path upwards, encoded': b'GET /page/%2e%2e%2fservice.py HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n',
    'another host': b'GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n',
    'a method of its own': b'BREW /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n',
    'too much': POST + b'Content-Length: %d\r\nConnection: close\r\n\r\n' % (MAX_BYTES + 1) + b' ' * (MAX_BYTES + 1),
}


@pytest.mark.parametrize('name', STRANGE)
def test_strange_bytes(port, name):
    line = raw(port, STRANGE[name])
    assert not line or line.split()[1].startswith('4'), line
    healthy = raw(port, b'GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n')
    assert healthy == 'HTTP/1.1 200 OK'
