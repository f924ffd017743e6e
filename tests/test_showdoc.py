"How the reference is drawn: tables, code between its heading and its table, and every public method of a class"
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
pytest.importorskip('nbdev')
showdoc = pytest.importorskip('showdoc')
from execnb.nbio import mk_cell  # noqa: E402
from fastcore.basics import AttrDict  # noqa: E402
from nbdev.process import NBProcessor  # noqa: E402

from bst_nbdev import core, training  # noqa: E402

def example(
    width: int | None = 3,  # Width of the model
    name='a',  # What it is called
    other=None,  # Anything
) -> str:  # Both in one
    "Join the two"
    return f'{name}{width}{other}'

def counted() -> int:  # How many there are
    "Count"
    return 0

class Plain(Exception): "Nothing to set"

@dataclass
class Made:
    "A dataclass that no module holds"
    size: int = 1

def test_a_table_has_a_row_for_each_parameter():
    table = str(showdoc.ParameterTable(example))
    assert r'| width | int \| None | 3 | Width of the model |' in table
    assert '| other |  | None | Anything |' in table and 'Both in one' in table

def test_a_dataclass_made_in_a_notebook_is_read_from_the_package():
    here = type('TrainingConfig', (training.TrainingConfig,), {'__module__': '__main__'})  # as nbdev sees it while it makes a page
    assert showdoc.with_source(here, 'TrainingConfig') is training.TrainingConfig
    Made.__module__ = '__main__'
    assert showdoc.with_source(Made, 'Made') is Made and showdoc.with_source(example, 'example') is example
    fields = str(showdoc.ParameterTable(training.TrainingConfig))
    assert '| clip | float | 1.0 |' in fields and 'Returns' not in fields

def test_a_name_has_a_heading_a_sentence_and_a_table():
    shown = showdoc.TableRenderer(example)._repr_markdown_()
    assert "### example\n\n```python\nexample(width:int | None=3, name:str='a', other=None)->str\n```\n\n*Join the two*\n\n|" in shown
    above, below = showdoc.around_code(shown)
    assert above == '---\n\n### example\n\n*Join the two*' and below == str(showdoc.ParameterTable(example))
    plain = showdoc.TableRenderer(Plain)._repr_markdown_()
    assert '*Nothing to set*' in plain and '|' not in plain and showdoc.around_code(plain)[1] == ''
    assert 'Returns: How many there are' in showdoc.TableRenderer(counted)._repr_markdown_()

def test_a_cell_is_cut_after_each_name():
    two = 'width = 3\n\ndef f(): pass\n\nclass C:\n    "Holds"\n\n@patch\ndef g(self: C): pass\n\nlast = 1'
    assert showdoc.parts_of(two, ['g', 'C', 'f']) == [
        ('f', 'width = 3\n\ndef f(): pass'), ('C', 'class C:\n    "Holds"'), ('g', '@patch\ndef g(self: C): pass\n\nlast = 1')]
    assert showdoc.parts_of(two, ['C.g']) == [('C.g', two)] and showdoc.parts_of('width = 3', []) == []

METHODS = '''class JSONConfig:
    def __post_init__(self): pass
    def to_dict(self): pass
    def _hidden(self): pass
    @classmethod
    def from_dict(cls): pass'''

def test_each_public_method_is_documented():
    assert showdoc.methods_of(METHODS, 'JSONConfig') == ['to_dict', 'from_dict'] and showdoc.methods_of(METHODS, 'Other') == []

def test_inherited_methods_are_documented_under_the_name_of_the_class():
    from bst_nbdev.recommender import Predictor, Recommender
    assert {'predict', 'explain', 'history'} <= set(showdoc.inherited_of(Recommender))
    assert 'recommend' not in showdoc.inherited_of(Recommender) and showdoc.inherited_of(Predictor) == []
    to_dict, from_dict = (cell.source for cell in showdoc.method_cells(METHODS, 'JSONConfig'))
    assert to_dict.startswith('#### JSONConfig.to_dict\n\n[source](') and '```python\nJSONConfig.to_dict()->dict\n```\n' in to_dict
    assert 'Returns: ' in to_dict
    line = core.JSONConfig.from_dict.__func__.__code__.co_firstlineno + 1  # below the decorator
    assert f'core.py#L{line})' in from_dict and 'from_dict(values:dict)' in from_dict and '| values | dict | ' in from_dict
    assert showdoc.method_cells('class Nowhere:\n    def f(self): pass', 'Nowhere') == []

def test_types_and_patched_methods():
    assert showdoc.table_cell(list[core.JSONConfig]) == 'list[JSONConfig]' and showdoc.table_cell(dict[str, int]) == 'dict[str, int]'
    assert showdoc.table_cell(core.JSONConfig) == 'JSONConfig' and showdoc.table_cell('a.b | c') == r'a.b \| c'
    assert '### JSONConfig.to_dict\n' in showdoc.patched('JSONConfig.to_dict') and showdoc.patched('example') == ''
    assert showdoc.patched('JSONConfig.nothing') == showdoc.patched('Nowhere.nothing') == ''

def page(*cells):
    "What becomes of the cells of a notebook: kind and text"
    made = [mk_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    processor = NBProcessor(nb=AttrDict(cells=made, metadata=AttrDict()), procs=[showdoc.ShowSource])
    processor.process()
    return [(cell.cell_type, cell.source) for cell in processor.nb.cells]

def documented(name, text):
    "A cell as nbdev makes it for a documented name"
    cell = mk_cell(f'#| echo: false\nshow_doc({name})')
    cell.has_sd = True
    cell.outputs = [{'data': {'text/markdown': [text]}}]
    return cell

def test_code_stands_between_its_heading_and_its_table():
    assert page('1 + 1', '#| hide\n2', '#| default_exp core') == [('code', '1 + 1')]
    assert page('#| export\nimport os') == [('code', '#| code-fold: true\n#| code-summary: "Imports"\nimport os')]
    assert page('#| export\nwidth = 3') == [('code', 'width = 3')]
    pair = '#| export\ndef f(a): pass\n\ndef g(): pass'
    assert page(pair, documented('g', '### g'), documented('f', '### f\n\n|    | **Type** |\n| a | int |')) == [
        ('markdown', '### f'), ('code', 'def f(a): pass'), ('markdown', '|    | **Type** |\n| a | int |'),
        ('markdown', '### g'), ('code', 'def g(): pass')]
    kinds = page(f'#| export\n{METHODS}', documented('JSONConfig', '### JSONConfig'))
    assert [source.split('\n')[0] for kind, source in kinds if kind == 'markdown'] == [
        '### JSONConfig', '#### JSONConfig.to_dict', '#### JSONConfig.from_dict']
    assert [kind for kind, _ in kinds] == ['markdown', 'code', 'markdown', 'markdown']
