"""Measure the service under load, over loopback: python benchmarks/serving.py --data ml-1m

The service runs in a process of its own, with an untrained model (its answers take as long as those of a
trained one). First, clients request the top 10 of known users, each as soon as it has the answer to its
previous request. Then requests arrive at twice the rate that was sustained, whether or not earlier ones have
been answered. The rows go to the result file of the other benchmarks.
"""
import argparse
import http.client
import json
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from run import COLUMNS, OURS, locate, merge, untrained

from bst_nbdev.core import device_name, show_progress, source_commit
from bst_nbdev.prepared import load

SERVE = 'import sys; from bst_nbdev.cli import bst_serve; sys.exit(bst_serve())'

def start(folder, data, threads):
    "Start a service, wait until it listens, and return (process, port)"
    options = ['--model', folder, '--data', data, '--port', 0, '--device', 'cpu', '--threads', threads]
    command = [sys.executable, '-c', SERVE, *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = ''
    while 'http://' not in line:
        line = process.stdout.readline()
        if not line: raise SystemExit('the service ended before it could be reached')
    port = int(line.split('127.0.0.1:')[1].split('/')[0])
    while True:
        try: return socket.create_connection(('127.0.0.1', port), timeout=1).close() or (process, port)
        except OSError: time.sleep(.05)

def ask(connection, user):
    "Send one request, and return (status, milliseconds)"
    begin, body = time.perf_counter(), json.dumps(dict(user=int(user), k=10))
    connection.request('POST', '/recommend', body, {'Content-Type': 'application/json'})
    answer = connection.getresponse()
    answer.read()
    return answer.status, (time.perf_counter() - begin) * 1e3

def summarize(found, begin):
    "Summarize requests as (answers per second, milliseconds of each answer, count of each status)"
    taken = [took for status, took in found if status == 200]
    return len(taken) / (time.perf_counter() - begin), taken, Counter(status for status, _ in found)

def closed_loop(port, users, clients, length):
    "Measure clients that send the next request as soon as they have an answer"
    found, end = [], time.perf_counter() + length
    def client(seed):
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
        draw = np.random.default_rng(seed)
        while time.perf_counter() < end: found.append(ask(connection, draw.choice(users)))
        connection.close()
    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    begin = time.perf_counter()
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return summarize(found, begin)

def open_loop(port, users, rate, length, senders=256):
    "Measure requests that arrive at a fixed rate, whether or not earlier ones have been answered"
    found, due, draw = [], queue.Queue(), np.random.default_rng(0)
    def sender():
        while (user := due.get()) is not None:
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
            try: found.append(ask(connection, user))
            except OSError: found.append((0, 0.))                                  # no answer at all
            finally: connection.close()
    threads = [threading.Thread(target=sender) for _ in range(senders)]
    for thread in threads: thread.start()
    begin = time.perf_counter()
    for n in range(int(rate * length)):
        time.sleep(max(begin + n / rate - time.perf_counter(), 0))
        due.put(draw.choice(users))
    for _ in threads: due.put(None)
    for thread in threads: thread.join()
    return summarize(found, begin)

def resident(process):
    "Read the resident memory of a process, in MB (10**6 bytes)"
    lines = Path(f'/proc/{process.pid}/status').read_text().splitlines()
    line = next(line for line in lines if line.startswith('VmRSS'))
    return int(line.split()[1]) * 1024 / 1e6

def rows_of(who, rate, taken, statuses):
    "Yield the rows of one load"
    work = f'/recommend, {who}'
    yield dict(work=work, variant=OURS, value=rate, unit='requests/s')
    for share, name in (.5, 'half of the answers'), (.99, '99 % of the answers'):
        milliseconds = float(np.quantile(taken, share)) if taken else float('nan')
        yield dict(work=f'{work}: {name}', variant=OURS, value=milliseconds, unit='ms')
    refused = 100 * statuses[503] / sum(statuses.values())
    bad = sum(count for status, count in statuses.items() if status not in (200, 503))
    yield dict(work=f'{work}: refused with 503', variant=OURS, value=refused, unit='%')
    yield dict(work=f'{work}: errors', variant=OURS, value=bad, unit='requests')

def measure(process, port, users, length, clients):
    "Measure all loads, one after the other, and yield their rows"
    closed_loop(port, users, 1, min(length, 2))                                    # warm up
    before, best = resident(process), 0
    for count in clients:
        rate, *rest = closed_loop(port, users, count, length)
        best = max(best, rate)
        yield from rows_of('1 client' if count == 1 else f'{count} clients', rate, *rest)
    yield from rows_of('twice as many as it sustains', *open_loop(port, users, 2 * best, length))
    yield dict(work='memory of the service before', variant=OURS, value=before, unit='MB')
    yield dict(work='memory of the service after twice as many as it sustains', variant=OURS,
               value=resident(process), unit='MB')
    yield from rows_of('1 client, after that', *closed_loop(port, users, 1, length))

def main(arguments=None):
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    def option(name, text, **settings):
        parser.add_argument(name, help=f'{text} (default: %(default)s)', **settings)
    option('--data', 'ml-1m, sample, or a .zip or folder like that of ml-1m', default='ml-1m')
    option('--out', 'the result file', type=Path, default=Path('results/benchmark.csv'))
    option('--length', 'seconds of each load', type=float, default=8.)
    option('--clients', 'numbers of clients at the same time', type=int, nargs='+', default=[1, 8, 64])
    option('--threads', 'cores of the model', type=int, default=2)
    a = parser.parse_args(arguments)
    show_progress(False)
    path = locate(a.data)
    data = load(path)
    with tempfile.TemporaryDirectory() as folder:
        untrained(data, path).save_pretrained(folder)
        process, port = start(folder, path, a.threads)
        try: rows = pd.DataFrame(measure(process, port, data.users.ids, a.length, a.clients))
        finally:
            process.terminate()
            process.wait(timeout=30)
    rows['work'] = f'{data.name}: service, ' + rows['work']
    rows = rows.assign(device=device_name('cpu', a.threads), commit=source_commit()).reindex(columns=COLUMNS)
    merge(a.out, rows)
    print(rows[['work', 'value', 'unit']].to_string(index=False, header=False, float_format='{:.4g}'.format))

if __name__ == '__main__': main()
