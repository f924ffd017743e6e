"""How the reference documentation is drawn: a heading, a sentence, the code itself, and a table of its parameters.

settings.ini names `TableRenderer` as the `renderer`, which nbdev calls for everything that is exported, and
`ShowSource` among the `procs`, to which it gives every page. nbdev imports both by name, so the project's root must
be on Python's path: tools/docs.py puts it there; with Quarto it is `PYTHONPATH=. nbdev_docs`.
"""
import ast
import copy
import dataclasses
import importlib
import inspect
import re
import typing

from execnb.nbio import mk_cell
from fastcore.docments import DocmentTbl, DocmentText
from nbdev.doclinks import NbdevLookup
from nbdev.process import Processor
from nbdev.showdoc import BasicMarkdownRenderer


# --- One name

def table_cell(value) -> str:
    "Write a type, a default or a docment into a cell: `|` would begin the next one, and the type of a default None says nothing"
    if value in (inspect.Parameter.empty, type(None)): return ''
    if isinstance(value, str): name = value
    elif inspect.isclass(value) and not typing.get_args(value): name = value.__name__
    else: name = re.sub(r'\b(?:[a-z_]+\.)+([A-Z])', r'\1', str(value))  # list[package.module.Name] is list[Name]
    return name.replace('|', '\\|')

class ParameterTable(DocmentTbl):
    "A table of the parameters of a function: name, type, default, and its docment"
    def _row(self, name, properties): return [name] + [table_cell(properties[column]) for column in self._columns]

def in_package(name: str):  # None if it is not exported
    "Find what the package exports under a name"
    found = NbdevLookup()[name]
    if not found or not isinstance(found, tuple): return None
    module = importlib.import_module(found[1].removesuffix('.py').replace('/', '.'))
    return getattr(module, name, None)

def with_source(symbol, name: str):
    "Find the class in the package for a dataclass made in a notebook: its docments are comments, which Python reads from a file"
    made_here = dataclasses.is_dataclass(symbol) and symbol.__module__ == '__main__'
    return in_package(name) or symbol if made_here else symbol

class TableRenderer(BasicMarkdownRenderer):
    "Signature, docstring and a table of the docments"
    def is_property(self) -> bool:
        "Say whether the name is that of a property of a class in the package"
        owner, _, name = self.nm.rpartition('.')
        return bool(owner) and isinstance(inspect.getattr_static(in_package(owner), name, None), property)

    def signature(self) -> str:
        "Write the name with its parameters and what comes back; a property has neither"
        if self.is_property(): return self.nm
        text = DocmentText(self.sym, docstring=False)
        returns = text._ret_str.split(':')[0].lstrip(')')
        parameters = [shown for shown, _ in text.params if shown.split(':')[0] not in ('self', 'cls')]
        return f"{self.nm}({', '.join(parameters)}){returns}".replace(':NoneType', '')

    def _repr_markdown_(self):
        address, heading = NbdevLookup().code(self.nm), f'{"#" * self.title_level} {self.nm}'
        source = f'[source]({address}){{target="_blank" style="float:right; font-size:smaller"}}' if address else ''
        parts = ['---', source, heading] if self.title_level < 4 else [heading, source]  # a method has no line above it
        parts.append(f'```python\n{self.signature()}\n```')
        first, _, rest = (self.docs or '').partition('\n')
        if first: parts += [f'*{first}*', rest]
        table = ParameterTable(with_source(self.sym, self.nm))
        if table.has_docment: parts.append(str(table))
        elif comment := table_cell(table.dm.get('return', {}).get('docment', '')): parts.append(f'Returns: {comment}')
        return '\n\n'.join(part for part in parts if part)


# --- A page

def parts_of(
    source: str,  # Of a cell
    names: list,  # Of what is documented in it
) -> list:  # Pairs of a name and the code up to its end, in the order of the code; what comes after the last goes with it
    "Cut a cell after each documented function or class"
    lines, found, start = source.splitlines(keepends=True), [], 0
    short = {name.rpartition('.')[2]: name for name in names}
    for node in ast.parse(source).body:
        name = short.get(getattr(node, 'name', None))
        if name is None: continue
        found.append([name, ''.join(lines[start:node.end_lineno])])
        start = node.end_lineno
    if found: found[-1][1] += ''.join(lines[start:])
    return [(name, code.strip('\n')) for name, code in found]

def methods_of(
    source: str,  # The code of a cell
    name: str,  # A class in it
) -> list:  # Names of its public methods and properties, in the order of the code
    "List what a class offers by itself"
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name]
    return [node.name for one in classes for node in one.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith('_')]

def inherited_of(
    owner: type,  # A class of the package
) -> list:  # Names
    "List the public methods that a class inherits from other classes of its module, under whose name people look for them"
    bases = [base for base in owner.__mro__[1:] if base.__module__ == owner.__module__]
    names = dict.fromkeys(name for base in bases for name in vars(base) if not name.startswith('_'))
    return [name for name in names if name not in vars(owner) and callable(getattr(owner, name))]

def method_cells(source: str, name: str) -> list:
    "Document each public method of a class: nbdev does so only for methods that are added with @patch"
    owner = in_package(name)
    if not inspect.isclass(owner): return []
    shown = []
    for method in methods_of(source, name) + inherited_of(owner):
        markdown = TableRenderer(getattr(owner, method), name=f'{name}.{method}', title_level=4)._repr_markdown_()
        shown.append(mk_cell(NbdevLookup().linkify(markdown), 'markdown'))
    return shown

def patched(name: str) -> str:  # Markdown; empty for other names
    "Document a method that is added with @patch from the package: in a notebook a decorator may hide its class"
    owner, _, method = name.rpartition('.')
    if not owner or not hasattr(in_package(owner), method): return ''
    return NbdevLookup().linkify(TableRenderer(getattr(in_package(owner), method), name=name)._repr_markdown_())

def around_code(
    shown: str,  # What the renderer wrote
) -> tuple:  # What stands above the code, and what stands below it
    "Part the documentation of one name from its signature, which the code says again"
    parts = [part for part in shown.split('\n\n') if not part.startswith('```python\n')]
    table = [part for part in parts if part.startswith('|  ')]
    return '\n\n'.join(part for part in parts if part not in table), '\n\n'.join(table)

def is_imports(source: str) -> bool:
    return all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(source).body)

def shown_cells(cell, docs: list) -> list:
    "Make the cells of the page for an exported cell and the cells that document it; few people read imports, so they are folded"
    def code(source):
        made = copy.deepcopy(cell)
        made.source, made.outputs = source, []
        return made

    text = {}
    for doc in docs:
        name = doc.source.rpartition('show_doc(')[2].strip(') \n')
        text[name] = patched(name) or ''.join(doc.outputs[0]['data']['text/markdown'])
    cells = []
    for name, source in parts_of(cell.source, list(text)):
        above, below = around_code(text.pop(name))
        cells += [mk_cell(above, 'markdown'), code(source)]
        if below: cells.append(mk_cell(below, 'markdown'))
        cells += method_cells(source, name)
    if cells: return cells
    return [code(f'#| code-fold: true\n#| code-summary: "Imports"\n{cell.source}' if is_imports(cell.source) else cell.source)]

class ShowSource(Processor):
    """Leaves exported code in the pages, each name under its heading and above its table.

    nbdev takes exported cells out of the pages and puts their documentation in their place, but people come to read the code.
    settings.ini skips its `rm_export`, and this lays the documentation of each exported cell around it."""
    def end(self):
        cells, kept = list(self.nb.cells), []
        while cells:
            cell = cells.pop(0)
            kinds = set(cell.directives_ or {})
            if cell.cell_type != 'code' or not kinds & {'export', 'exports', 'exporti'}:
                if not kinds & {'hide', 'default_exp'}: kept.append(cell)
                continue
            docs = []
            while cells and getattr(cells[0], 'has_sd', False): docs.append(cells.pop(0))
            kept += shown_cells(cell, docs) if cell.source.strip() else docs
        self.nb.cells = kept
