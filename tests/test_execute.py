"""Notebooks in a Jupyter kernel: what counts as another output, and that a notebook is left as it is."""
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
pytest.importorskip('nbclient')
execute = pytest.importorskip('execute')

def cell(source, *outputs): return dict(cell_type='code', metadata={}, execution_count=None, id=f'c{abs(hash(source)) % 10**6}', source=source, outputs=list(outputs))
def stream(text): return dict(output_type='stream', name='stdout', text=text)
def result(text): return dict(output_type='execute_result', metadata={}, execution_count=None, data={'text/plain': text})

def test_times_and_made_up_names_do_not_count():
    same = [('took 3.2 s', 'took 12 s'), ('1,200 examples/s', '900 examples/s'), ('<p id="T_a1b2c">1</p>', '<p id="T_9z8y7">1</p>'),
            ('at 2026-01-01 10:00:00', 'at 2027-01-01 11:11:11'), ('<f at 0x7f00aabbcc>', '<f at 0x7faabbccdd>')]
    for old, new in same: assert execute.outputs(cell('a', stream(old))) == execute.outputs(cell('a', stream(new)))
    assert execute.outputs(cell('a', stream('a\n'), stream('b\n'))) == execute.outputs(cell('a', stream('a\nb\n')))
    assert execute.outputs(cell('a', stream('a\n\n'), stream('b'), stream('c\n'))) == execute.outputs(cell('a', stream('a\n\nbc\n')))
    for old, new in [('0.6812', '0.6813'), ('3 users', '4 users'), ('a', '')]:
        assert execute.outputs(cell('a', result(old))) != execute.outputs(cell('a', result(new)))

def test_compare_names_the_cell():
    old, new = [cell('a', result('1')), cell('b', result('2'))], [cell('a', result('1')), cell('b', result('3'))]
    assert execute.compare(old, old, set()) == [] and execute.compare(old, new, {1}) == []
    assert execute.compare(old, new, set()) == ["cell 1: was '2', is '3'"]

def test_a_kernel_runs_a_notebook_and_leaves_it(tmp_path):
    path = tmp_path/'a.ipynb'
    def write(*cells): path.write_text(json.dumps(dict(cells=list(cells), metadata={}, nbformat=4, nbformat_minor=5)))
    write(cell('x = 3'), cell('x + 1', result('4')), cell('#| notest\n1 / 0'), cell('x + 2', result('6')))
    before = path.read_bytes()
    assert execute.run_in_kernel(path) == ["cell 3: was '6', is '5'"]
    write(cell('1 / 0'))
    assert execute.run_in_kernel(path) == ['failed: ZeroDivisionError: division by zero']
    write(cell('x = 3'), cell('x + 1', result('4')), cell('#| notest\n1 / 0'), cell('x + 2', result('6')))
    assert path.read_bytes() == before
