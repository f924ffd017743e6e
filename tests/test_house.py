"""The rules of the house: what must hold for all notebooks and modules at once.

What a single function does is tested in its notebook, right below it. Each failure here names the file and, for a notebook, the cell.
"""
import ast
import configparser
import contextlib
import io
import json
import re
import subprocess
import sys
import tokenize
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT/'bst_nbdev'
# A module imports only modules that stand before it
ORDER = ['core', 'sample', 'data', 'out_of_core', 'sequences', 'packing', 'embedding', 'transformer', 'mlp', 'model', 'stream', 'presets', 'training',
         'saving', 'resume', 'tracking', 'evaluation', 'ranking', 'pipeline', 'titles', 'recommender', 'explain', 'onnx_export', 'cli', 'service', 'serve']
APART = ['showdoc']  # draws the documentation, needs nbdev, and is imported by nothing
DEVELOPMENT = ['nbdev', 'execnb', 'IPython', 'ipykernel', 'ipywidgets', 'jupyter', 'jupyter_core', 'jupyterlab', 'notebook', 'nbformat',
               'nbclient']
MAX_LINES, MAX_WIDTH = 40, 140  # of an exported cell

MODULES = sorted(path for path in PACKAGE.glob('*.py') if not path.stem.startswith('_'))
NOTEBOOKS = sorted(path for path in (ROOT/'nbs').rglob('*.ipynb')
                   if not any(part.startswith(('.', '_')) for part in path.relative_to(ROOT).parts))

def text(source):
    "Notebooks store text as one string or as a list of lines"
    return source if isinstance(source, str) else ''.join(source or '')

def cells(path):
    "Number, kind, text and outputs of each cell; numbers count from 0, as nbdev's do"
    for number, cell in enumerate(json.loads(path.read_text())['cells']):
        yield number, cell['cell_type'], text(cell['source']), cell.get('outputs', [])

def directives(source): return re.findall(r'^#\|\s*(\w+)', source, flags=re.M)

def module_of(path):
    "The module a notebook exports to, or None"
    found = [re.search(r'^#\|\s*default_exp\s+(\w+)', source, flags=re.M) for _, kind, source, _ in cells(path) if kind == 'code']
    return next((match[1] for match in found if match), None)

def exported(path):
    "Number and source of the cells that become part of the package"
    for number, kind, source, _ in cells(path):
        if kind == 'code' and {'export', 'exports', 'exporti'} & set(directives(source)): yield number, source

def report(problems): assert not problems, '\n' + '\n'.join(problems)

each_module = pytest.mark.parametrize('path', MODULES, ids=lambda path: path.name)
each_notebook = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)


# --- Who imports whom

def house_imports(code):
    "Line and name of each module of this package that `code` imports, inside functions too"
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            package = ('bst_nbdev.' if node.level else '') + (node.module or '')
            if package.strip('.') == 'bst_nbdev': yield from ((node.lineno, alias.name) for alias in node.names)
            elif package.startswith('bst_nbdev.'): yield node.lineno, package.split('.')[1]
        elif isinstance(node, ast.Import):
            parts = [alias.name.split('.') for alias in node.names]
            yield from ((node.lineno, part[1] if part[1:] else '__init__') for part in parts if part[0] == 'bst_nbdev')

def test_house_imports_sees_every_kind():
    code = ('from bst_nbdev.core import a\nfrom bst_nbdev import data\nfrom .model import b\n'
            'def f():\n    import bst_nbdev.cli\nimport numpy')
    assert sorted(house_imports(code)) == [(1, 'core'), (2, 'data'), (3, 'model'), (5, 'cli')]

@each_module
def test_imports_only_lower_modules(path):
    assert path.stem in ORDER + APART, f'{path.name} has no place in the order of modules: give it one here and in CONTRIBUTING.md'
    allowed = ORDER[:ORDER.index(path.stem)] if path.stem in ORDER else ORDER
    report([f'{path.name}:{line} imports {name}, which does not stand before it' for line, name in house_imports(path.read_text())
            if name not in [*allowed, '__version__', '__init__']])

@each_module
def test_no_star_imports(path):
    report([f'{path.name}:{node.lineno} from {node.module} import *' for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and any(alias.name == '*' for alias in node.names)])

def unused_imports(code):
    "Names that a module imports and never uses"
    tree = ast.parse(code)
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    imported = {(alias.asname or alias.name).split('.')[0]: node.lineno for node in nodes for alias in node.names}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return [(line, name) for name, line in imported.items() if name not in used]

def test_unused_imports_sees_them():
    assert unused_imports('import os\nimport a.b\nfrom c import d as e, f\nprint(os.sep, f)') == [(2, 'a'), (3, 'e')]

@each_module
def test_imports_are_used(path):
    report([f'{path.name}:{line} imports {name} for nothing: import it in the cell of tests that needs it'
            for line, name in unused_imports(path.read_text())])

def test_contributing_draws_the_same_map():
    drawn = [re.findall(r'`(\w+)`', line) for line in (ROOT/'CONTRIBUTING.md').read_text().splitlines() if line.count('→') > 5]
    assert drawn == [ORDER]

BLOCKER = """
import importlib, importlib.abc, sys, traceback
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}: raise ModuleNotFoundError(f'{{name}} belongs to the dev extra', name=name)
sys.meta_path.insert(0, Blocker())
for module in {modules!r}:
    try: importlib.import_module(module)
    except Exception: print(module, traceback.format_exc(limit=-2))
"""

def import_blocked(modules, blocked):
    "What goes wrong when `modules` are imported where `blocked` cannot be"
    code = BLOCKER.format(modules=modules, blocked=blocked)
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    return done.stdout + (done.stderr if done.returncode else '')

def test_package_needs_no_development_tools():
    assert import_blocked([f'bst_nbdev.{path.stem}' for path in MODULES if path.stem not in APART], DEVELOPMENT) == ''

def test_the_blocker_blocks(): assert 'belongs to the dev extra' in import_blocked(['json'], ['json'])


# --- What is exported is documented

def gives_back(node):
    "Whether a function says that it returns something, or does so"
    if node.returns is not None: return ast.unparse(node.returns) != 'None'
    def own(part):
        for child in ast.iter_child_nodes(part):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)): continue
            yield child
            yield from own(child)
    return any(isinstance(part, (ast.Return, ast.Yield, ast.YieldFrom)) and getattr(part, 'value', None) is not None for part in own(node))

def undocumented(code):
    """Exported functions, methods and fields of dataclasses that lack a docstring or, for a parameter, a comment on a line of its own, or
    for what comes back, a comment where the parameters end. The class says what `__init__` and `forward` do; their parameters need their
    comments all the same. The sentence of a property or a validator says what it is."""
    comments = {token.start[0] for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.type == tokenize.COMMENT}

    def function(node, prefix=''):
        name, a = prefix + node.name, node.args
        if not ast.get_docstring(node) and node.name not in ('__init__', 'forward'): yield f'{name} has no docstring'
        positional = [*a.posonlyargs, *a.args]
        defaults = dict(zip(reversed(positional), reversed(a.defaults))) | dict(zip(a.kwonlyargs, a.kw_defaults))
        parameters = [arg for arg in [*positional, a.vararg, *a.kwonlyargs, a.kwarg] if arg and arg.arg not in ('self', 'cls')]
        lines = [arg.lineno for arg in parameters]
        for arg in parameters:
            end = defaults[arg].end_lineno if defaults.get(arg) else arg.end_lineno
            if not comments & set(range(arg.lineno, end + 1)): yield f'{name}: {arg.arg} has no comment that says what it is'
            elif lines.count(arg.lineno) > 1: yield f'{name}: {arg.arg} shares its line with another parameter'
        if node.name in ('__init__', 'forward') or any(re.search('property|validator', ast.unparse(part)) for part in node.decorator_list): return
        last = max((part.end_lineno for part in [*parameters, *(value for value in defaults.values() if value)]), default=node.lineno - 1)
        ends = range(last + 1, max(node.body[0].lineno, last + 2))  # from the line below the last parameter to the docstring
        if last >= node.body[0].lineno - 1: ends = range(node.lineno, node.lineno + 1)  # all of it on one line
        if gives_back(node) and not comments & set(ends): yield f'{name} has no comment that says what comes back'

    def klass(node):
        if not ast.get_docstring(node): yield f'{node.name} has no docstring'
        is_dataclass = any('dataclass' in ast.dump(decorator) for decorator in node.decorator_list)
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and (not part.name.startswith('_') or part.name == '__init__'):
                yield from function(part, f'{node.name}.')
            elif is_dataclass and isinstance(part, ast.AnnAssign) and not comments & set(range(part.lineno, part.end_lineno + 1)):
                yield f'{node.name}: {ast.unparse(part.target)} has no comment that says what it is'

    for node in ast.parse(code).body:
        if getattr(node, 'name', '_').startswith('_'): continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)): yield from function(node)
        elif isinstance(node, ast.ClassDef): yield from klass(node)

def test_undocumented_sees_what_is_missing():
    assert list(undocumented('def f(\n    a,  # One\n    b=3,  # Two\n) -> int:  # Sum\n    "Add"\n    return a + b')) == []
    assert list(undocumented('def _f(a): return a\nx = 1')) == []
    assert list(undocumented('def f(\n    a,  # One\n) -> int:\n    "Double"\n    return 2 * a')) == ['f has no comment that says what comes back']
    assert list(undocumented('def f(\n    a,  # One\n):\n    "Inner"\n    def g(): return 2\n    g()')) == []
    assert list(undocumented('class C:\n    "Thing"\n    @property\n    def g(self): "Width"; return 2')) == []
    assert list(undocumented('class C:\n    "Thing"\n    def g(self) -> int:  # Width\n        "Width"\n        return 2')) == []
    assert list(undocumented('class C:\n    "Thing"\n    def g(self):\n        "Width"\n        return 2')) == ['C.g has no comment that says what comes back']
    assert list(undocumented('def f(a, b):  # Both\n    return a')) == [
        'f has no docstring', 'f: a shares its line with another parameter', 'f: b shares its line with another parameter']
    assert list(undocumented('def f(\n    a,\n    *more,  # Others\n    **rest,\n): "Do"')) == [
        'f: a has no comment that says what it is', 'f: rest has no comment that says what it is']
    methods = '    def __init__(self, a): self.a = a\n    def g(self): pass\n    def _h(self, x): pass'
    assert list(undocumented(f'class C:\n    "Thing"\n{methods}')) == [
        'C.__init__: a has no comment that says what it is', 'C.g has no docstring']
    fields = '    a: int\n    b: int = 3  # Width'
    assert list(undocumented(f'@dataclass(frozen=True)\nclass C:\n    "Thing"\n{fields}')) == ['C: a has no comment that says what it is']

@each_notebook
def test_what_is_exported_is_documented(path):
    report([f'{path.name} cell {number}: {problem}' for number, source in exported(path) if 'exporti' not in directives(source)
            for problem in undocumented(source)])

@each_module
def test_everything_in_all_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__']
    assert lists, f'{path.name} has no __all__'
    names = ast.literal_eval(lists[0])
    defined = {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    report([f'{path.name}: {name} has no docstring' for name in names if name in defined and not ast.get_docstring(defined[name])])


# --- How notebooks look

@each_notebook
def test_opens_and_closes_as_agreed(path):
    found = list(cells(path))
    first = found[0][2]
    agreed = found[0][1] == 'markdown' and re.match(r'# \S.*\n\n> \S.*\Z', first)
    assert agreed, f'{path.name} cell 0: not a title, an empty line and a quotation of one line (> …)'
    if module_of(path) is None: return  # the overview
    assert re.match(rf'# {module_of(path)}\n', first), f'{path.name} cell 0: the title is the name of the module'
    recaps = [(number, source) for number, kind, source, _ in found if kind == 'markdown' and source.startswith('## Recap\n')]
    assert recaps, f'{path.name} has no "## Recap"'
    number, source = recaps[-1]
    assert re.search(r'\]\([\w.-]+\.ipynb\)', source), f'{path.name} cell {number}: the recap links to no notebook'
    assert number >= len(found) - 3, f'{path.name} cell {number}: the recap does not stand at the end'
    last = found[-1][2]
    assert 'nbdev.nbdev_export()' in last and 'hide' in directives(last), f'{path.name}: the last cell exports, and is hidden'

@each_notebook
def test_exported_cells_are_short(path):
    report([f'{path.name} cell {number}: {len(source.splitlines())} lines, at most {MAX_LINES}' for number, source in exported(path)
            if len(source.splitlines()) > MAX_LINES])

def long_cells(path, lines=25): return [f'{path.name} cell {number}: {len(source.splitlines())} lines' for number, source in exported(path)
                                        if len(source.splitlines()) > lines]

def test_exported_cells_of_some_length_are_named(tmp_path):
    "A cell may have up to 40 lines; those over 25 are named in a warning, as the first to be split"
    source = '#| export\n' + 'a = 1\n' * 30
    (tmp_path/'a.ipynb').write_text(json.dumps(dict(cells=[dict(cell_type='code', source=source), dict(cell_type='code', source='b = 1\n' * 50)])))
    assert long_cells(tmp_path/'a.ipynb') == ['a.ipynb cell 0: 31 lines'] and long_cells(tmp_path/'a.ipynb', 31) == []
    found = [line for path in NOTEBOOKS for line in long_cells(path)]
    if found: warnings.warn(f'{len(found)} exported cells have more than 25 lines: ' + '; '.join(found))

@each_notebook
def test_prose_names_nothing_private(path):
    "Names in backticks become links, and what begins with an underscore has no place that one could link to"
    report([f'{path.name} cell {number}: {name} is private: say what it does' for number, kind, source, _ in cells(path)
            if kind == 'markdown' for name in re.findall(r'`_[a-z]\w*`', source)])

@each_notebook
def test_lines_are_short(path):
    report([f'{path.name} cell {number}: a line of {len(line)} characters, at most {MAX_WIDTH}: {line.strip()[:60]}…'
            for number, source in exported(path) for line in source.splitlines() if len(line) > MAX_WIDTH])

@each_notebook
def test_imports_have_a_cell_of_their_own(path):
    "For the documentation nbdev runs every cell that imports something, tests too, and none of the cells it may depend on"
    problems, exports = [], dict(exported(path))
    for number, kind, source, _ in cells(path):
        if kind != 'code' or 'nbdev_export()' in source or re.search(r'^#\|\s*eval:\s*false', source, flags=re.M): continue
        tree = ast.parse(re.sub(r'^(\s*)[!%].*$', r'\1pass', source, flags=re.M))
        nodes = tree.body if number in exports else list(ast.walk(tree))  # a function that is exported may import
        other = [node for node in nodes if isinstance(node, (ast.Expr, ast.Assign) if number not in exports else ast.stmt)
                 and not isinstance(node, (ast.Import, ast.ImportFrom))]
        if other and any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in nodes):
            problems.append(f'{path.name} cell {number}: imports and other code')
    report(problems)

@each_notebook
def test_no_errors_in_outputs(path):
    problems = []
    for number, _, _, outputs in cells(path):
        for output in outputs:
            if output['output_type'] == 'error': problems.append(f"{path.name} cell {number}: {output['ename']}: {output['evalue']}")
            elif 'Traceback (most recent call last)' in text(output.get('text')): problems.append(f'{path.name} cell {number}: a traceback')
    report(problems)

HERE = '|'.join(re.escape(f'{folder}/') for folder in (ROOT.parent, Path.home()) if len(str(folder)) > 1)
MACHINE_PATH = re.compile(rf'(?<![\w.])(?:{HERE}|/tmp/|/home/\w|/Users/\w|/opt/|/mnt/|/content/|[A-Z]:\\{{1,2}}Users)|site-packages/')

@each_notebook
def test_no_machine_paths(path):
    "Not in the text, the code or the outputs"
    problems = []
    for number, _, source, outputs in cells(path):
        printed = [text(output.get('text')) for output in outputs]
        printed += [text(data) for output in outputs for kind, data in output.get('data', {}).items() if kind.startswith('text/')]
        for where, what in [('source', source), *(('output', part) for part in printed)]:
            problems += [f'{path.name} cell {number}, {where}: {what[max(found.start() - 20, 0):found.end() + 30]!r}'
                         for found in MACHINE_PATH.finditer(what)]
    report(problems)

@each_notebook
def test_notebook_is_clean(path):
    "As `nbdev_clean` leaves it: no counts and no metadata of an editor"
    for number, cell in enumerate(json.loads(path.read_text())['cells']):
        assert not cell.get('execution_count'), f'{path.name} cell {number}: has an execution count, run nbdev_clean'
        assert not cell['metadata'], f"{path.name} cell {number}: has metadata {cell['metadata']}, run nbdev_clean"

TUTORIALS = [path for path in NOTEBOOKS if path.parent.name == 'tutorials']

def tutorial_problems(path, found):
    "What a tutorial lacks that is to run anywhere and to be read by anybody"
    settings = configparser.ConfigParser(delimiters=['='])
    settings.read(ROOT/'settings.ini')
    repository = f"{settings['DEFAULT']['user']}/{settings['DEFAULT']['repo']}"
    address = f'https://colab.research.google.com/github/{repository}/blob/main/nbs/tutorials/{path.name}'
    if address not in found[1][2]: yield f'cell 1: no badge that links to {address}'
    install = f'try: import bst_nbdev\nexcept ImportError:\n    %pip install -q "bst_nbdev @ git+https://github.com/{repository}"'
    if not any(install in source for _, kind, source, _ in found if kind == 'code'): yield 'no cell that installs the package where it is missing'
    yield from (f'cell {number}: exports' for number, _, source, _ in found if {'export', 'exports', 'exporti', 'default_exp'} & set(directives(source)))
    last = found[-1][2]
    if not re.search(r'^## Recap\n', last, flags=re.M) or not re.search(r'\]\([\w./-]+\.ipynb\)', last): yield 'the last cell is no recap with a link to a notebook'

@pytest.mark.parametrize('path', TUTORIALS, ids=lambda path: path.name)
def test_tutorial_runs_anywhere(path): report([f'{path.name}: {problem}' for problem in tutorial_problems(path, list(cells(path)))])

def test_tutorial_problems_sees_each():
    path = Path('mine.ipynb')
    found = [(0, 'markdown', '# mine', []), (1, 'markdown', 'badge', []), (2, 'code', '#| export\ny = 1', []), (3, 'markdown', '## Recap\nThe end', [])]
    assert [re.sub(r'https?://.*', '…', problem) for problem in tutorial_problems(path, found)] == [
        'cell 1: no badge that links to …', 'no cell that installs the package where it is missing', 'cell 2: exports', 'the last cell is no recap with a link to a notebook']

def test_notebooks_stand_in_order():
    "In the sidebar, and from recap to recap"
    quarto = pytest.importorskip('nbdev.quarto')
    with contextlib.redirect_stdout(io.StringIO()) as sidebar: quarto.nbdev_sidebar.__wrapped__(path=ROOT/'nbs', printit=True, force=True)
    names = [Path(name).name for name in re.findall(r'\S+\.ipynb', sidebar.getvalue())]
    assert sorted(names) == sorted(path.name for path in NOTEBOOKS), 'the sidebar lists other notebooks than there are'
    by_name = {path.name: module_of(path) for path in NOTEBOOKS}
    modules = [by_name[name] for name in names if by_name[name]]
    assert modules == [name for name in ORDER + APART if name in modules], f'sidebar: {names}'
    if 'index.ipynb' in names: assert names[0] == 'index.ipynb', f'sidebar: {names}'
    chain = [name for name in names if by_name[name] in ORDER]
    problems = []
    for name, following in zip(chain, chain[1:]):
        recap = ''.join(source for _, kind, source, _ in cells(ROOT/'nbs'/name) if kind == 'markdown' and source.startswith('## Recap\n'))
        if following not in recap: problems.append(f'{name}: the recap does not link to {following}, which comes next')
    report(problems)


def wordless(cells):
    "Pictures without words, or with words that Quarto cannot read: `: ` has to stand between quotation marks"
    for number, kind, source, outputs in cells:
        alt = re.search(r'^#\|\s*(fig-alt:.*)$', source, flags=re.M)
        drawn = any('image/png' in output.get('data', {}) for output in outputs)
        if drawn and not alt: yield f'cell {number}: a picture and no `#| fig-alt: …`'
        if kind == 'code' and alt and not readable(alt[1]): yield f'cell {number}: {alt[1][:60]}… cannot be read: put the words between quotation marks'
        if kind == 'markdown': yield from (f'cell {number}: {found} has no words' for found in re.findall(r'!\[\s*\]\([^)]*\)', source))

def readable(line):
    yaml = pytest.importorskip('yaml')
    try: return bool(yaml.safe_load(line)['fig-alt'])
    except yaml.YAMLError: return False

def test_wordless_sees_each_kind():
    drawn = [{'data': {'image/png': ''}}]
    found = wordless([(0, 'code', 'plot()', drawn), (1, 'code', '#| fig-alt: a: b\nplot()', drawn), (2, 'code', '#| fig-alt:\nplot()', drawn),
                      (3, 'code', '#| fig-alt: "a: b"\nplot()', drawn), (4, 'code', 'plot()', []), (5, 'markdown', '![](a.png) ![a](b.png)', [])])
    assert [line.partition(':')[0] for line in found] == ['cell 0', 'cell 1', 'cell 2', 'cell 5']

@each_notebook
def test_pictures_have_words(path):
    "For those who cannot see them; `#| fig-alt:` at the top of the cell, or between the brackets of a link"
    report([f'{path.name} {line}' for line in wordless(cells(path))])


# --- What GitHub reads

WORKFLOWS = sorted((ROOT/'.github').rglob('*.yml'))

def github_problems(path, read):
    "What is wrong with a workflow or an issue template"
    if not isinstance(read, dict): return [f'{path.name}: not a mapping']
    if path.parent.name == 'workflows':
        jobs = read.get('jobs') or {}
        found = [f'{path.name}: no {word}' for word in ('name', 'jobs', 'permissions') if not read.get(word)]
        if True not in read and 'on' not in read: found.append(f'{path.name}: no on')  # YAML takes `on` for true
        steps = [step for job in jobs.values() for step in job.get('steps', [])]
        found += [f'{path.name}: a step with neither run nor uses: {step}' for step in steps if not ('run' in step) ^ ('uses' in step)]
        found += [f'{path.name}: {job} needs {job_needs}, which there is not' for job, what in jobs.items() for job_needs in [what.get('needs')] if job_needs and job_needs not in jobs]
        return found + [f'{path.name}: {name} has no runs-on' for name, job in jobs.items() if not job.get('runs-on')]
    if path.name == 'config.yml': return [] if isinstance(read.get('contact_links'), list) else [f'{path.name}: no contact_links']
    found = [f'{path.name}: no {word}' for word in ('name', 'description', 'body') if not read.get(word)]
    marks = [part.get('id') for part in read.get('body') or [] if part.get('type') != 'markdown']
    if None in marks or len(set(marks)) < len(marks): found.append(f'{path.name}: parts without an id of their own: {marks}')
    return found + [f'{path.name}: a part without a label' for part in read.get('body') or [] if part.get('type') != 'markdown' and not part.get('attributes', {}).get('label')]

def test_github_problems_sees_them():
    flow, form = Path('workflows/a.yml'), Path('ISSUE_TEMPLATE/a.yml')
    good = {'name': 'a', True: 'push', 'permissions': {'contents': 'read'}, 'jobs': {'b': {'runs-on': 'c', 'steps': [{'run': 'd'}]}}}
    assert github_problems(flow, good) == [] and github_problems(flow, 'a') == ['a.yml: not a mapping']
    assert github_problems(flow, {**good, 'jobs': {'b': {'steps': [{'name': 'x'}], 'needs': 'z'}}}) == [
        "a.yml: a step with neither run nor uses: {'name': 'x'}", 'a.yml: b needs z, which there is not', 'a.yml: b has no runs-on']
    assert github_problems(flow, {}) == ['a.yml: no name', 'a.yml: no jobs', 'a.yml: no permissions', 'a.yml: no on']
    part = dict(type='input', id='a', attributes=dict(label='A'))
    assert github_problems(form, dict(name='a', description='b', body=[part])) == []
    assert github_problems(form, dict(name='a', description='b', body=[part, part])) == ["a.yml: parts without an id of their own: ['a', 'a']"]
    assert github_problems(form, dict(name='a', body=[dict(type='input', id='a')])) == ['a.yml: no description', 'a.yml: a part without a label']

@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.name)
def test_github_can_read_it(path):
    yaml = pytest.importorskip('yaml')
    report(github_problems(path, yaml.safe_load(path.read_text())))

def test_workflows_run_what_runs_here():
    assert {path.name for path in WORKFLOWS} >= {'ci.yml', 'docs.yml', 'bug.yml', 'idea.yml', 'config.yml'}
    assert 'bash .ci/run' in (ROOT/'.github/workflows/ci.yml').read_text()
    docs = (ROOT/'.github/workflows/docs.yml').read_text()
    assert all(words in docs for words in ('python tools/docs.py', 'python tools/check_site.py --browser', 'actions/deploy-pages'))
    assert 'tools/check_site.py --browser' in (ROOT/'.ci/run').read_text() and (ROOT/'.github/pull_request_template.md').is_file()


# --- What is in the repository

def repository():
    "Files that are, or would be, committed"
    if not (ROOT/'.git').exists(): pytest.skip('not a git checkout')
    command = ['git', '-C', str(ROOT), 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split('\0') if name and (path := ROOT/name).is_file()]

def test_files_are_small():
    report([f'{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB, at most 1.5' for path in repository()
            if path.stat().st_size > 1_500_000])

def test_no_movielens_data():
    allowed = ROOT/'data'/'sample'
    report([f'{path.relative_to(ROOT)}: only the synthetic sample is committed' for path in repository()
            if path.suffix in {'.dat', '.data', '.zip', '.npy', '.npz', '.parquet'} and allowed not in path.parents])

def pickle_uses(code):
    "Lines that read or write pickles, which can run any code when they are read"
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom): names = [node.module or '']
        if {'pickle', 'cloudpickle', 'dill', 'joblib', 'shelve'} & {name.split('.')[0] for name in names}:
            yield node.lineno, ast.unparse(node)
        if not isinstance(node, ast.Call): continue
        called = ast.unparse(node.func)
        if called in ('torch.load', 'torch.save') or called.endswith(('.read_pickle', '.to_pickle')): yield node.lineno, called
        if any(keyword.arg == 'allow_pickle' and getattr(keyword.value, 'value', True) for keyword in node.keywords):
            yield node.lineno, called

def test_pickle_uses_sees_every_kind():
    bad = "import pickle\nfrom joblib import dump\ntorch.load('a')\nframe.to_pickle('b')\nnp.load('c', allow_pickle=True)\n"
    code = bad + "np.load('d', allow_pickle=False)\njson.load(f)"
    assert [line for line, _ in pickle_uses(code)] == [1, 2, 3, 4, 5]

SCRIPTS = sorted(path for folder in ['tools', 'experiments', 'benchmarks'] for path in (ROOT/folder).glob('*.py'))

@pytest.mark.parametrize('path', MODULES + SCRIPTS, ids=lambda path: path.name)
def test_no_pickle(path): report([f'{path.name}:{line} {what}' for line, what in pickle_uses(path.read_text())])

def test_licence_and_notes_are_there():
    for name in ['LICENSE', 'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'data/sample/README']:
        assert (ROOT/name).is_file(), f'{name} is missing'
    assert 'Apache License' in (ROOT/'LICENSE').read_text() and 'SYNTHETIC' in (ROOT/'data/sample/README').read_text()

def test_links_to_the_repository_follow_settings():
    "`user` and `repo` in settings.ini decide; pages written by hand must agree with them"
    settings = configparser.ConfigParser(delimiters=['='])
    settings.read(ROOT/'settings.ini')
    user, repo = settings['DEFAULT']['user'], settings['DEFAULT']['repo']
    problems = []
    for path in [*ROOT.glob('*.md'), ROOT/'data'/'README.md', ROOT/'benchmarks'/'README.md', *NOTEBOOKS]:
        for found in re.findall(r'github\.com/([\w.-]+)/([\w.-]+)|([\w-]+)\.github\.io/([\w.-]+)', path.read_text()):
            owner, name = (found[0] or found[2]), (found[1] or found[3])
            ours = repo in name or owner == user
            if ours and (owner, name) != (user, repo): problems.append(f'{path.relative_to(ROOT)}: {owner}/{name} instead of {user}/{repo}')
    report(problems)
