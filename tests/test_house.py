"""The rules of the house: what must hold for all notebooks and modules at once.

What a tool can check, a tool checks: ruff, import-linter and check-jsonschema have their settings in pyproject.toml, and one test each.
What a single function does is tested in its notebook, right below it. Each failure here names the file and, for a notebook, the cell.
"""
import ast
import configparser
import importlib.util
import io
import json
import re
import subprocess
import sys
import tokenize
import tomllib
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
floors = pytest.importorskip('floors')
MODULES = sorted(path for path in (ROOT/'bst_nbdev').glob('*.py') if not path.stem.startswith('_'))
NOTEBOOKS = sorted(path for path in (ROOT/'nbs').rglob('*.ipynb')
                   if not any(part.startswith(('.', '_')) for part in path.relative_to(ROOT).parts))
TUTORIALS = [path for path in NOTEBOOKS if path.parent.name == 'tutorials']
GITHUB = ROOT/'.github'

each_module = pytest.mark.parametrize('path', MODULES, ids=lambda path: path.name)
each_notebook = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
each_tutorial = pytest.mark.parametrize('path', TUTORIALS, ids=lambda path: path.name)

def text(source):
    "Notebooks store text as one string or as a list of lines"
    return source if isinstance(source, str) else ''.join(source or '')

def cells(path):
    "Number, kind, text and outputs of each cell; numbers count from 0, as nbdev's do"
    for number, cell in enumerate(json.loads(path.read_text())['cells']):
        yield number, cell['cell_type'], text(cell['source']), cell.get('outputs', [])

def directives(source): return re.findall(r'^#\|\s*(\w+)', source, flags=re.M)

def exported(path):
    "Number and source of the cells that become part of the package"
    for number, kind, source, _ in cells(path):
        if kind == 'code' and {'export', 'exports', 'exporti'} & set(directives(source)): yield number, source

def report(problems):
    found = list(problems)
    assert not found, '\n' + '\n'.join(found)

def run(*command):
    "Run a tool that comes with the dev extra, and show what it prints if it finds something"
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if 'No module named' in done.stderr: pytest.skip(done.stderr.strip())
    assert not done.returncode, '\n' + done.stdout + done.stderr


# --- Kept tools

def test_ruff(): run('-m', 'ruff', 'check', '--quiet', '--output-format', 'concise', '.')

def test_modules_import_only_lower_modules():
    run('-c', 'from importlinter.cli import lint_imports_command; lint_imports_command()', '--no-cache', '--no-logo')

def test_attributes_of_our_classes_are_found():
    "By pyright, hence by editors too; what it says of other classes (pandas, PyTorch) is left aside"
    pytest.importorskip('pyright')
    done = subprocess.run([sys.executable, '-m', 'pyright', '--outputjson'], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout, done.stderr
    ours = {node.name for path in MODULES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)}
    found = [(one, re.search(r'for class "(?:type\[)?(\w+)', one['message'])) for one in json.loads(done.stdout)['generalDiagnostics']
             if one.get('rule') == 'reportAttributeAccessIssue']
    report(f"{Path(one['file']).name}:{one['range']['start']['line'] + 1} {one['message'].splitlines()[0]}" for one, named in found
           if named and named[1] in ours)

@pytest.mark.parametrize('schema, pattern', [
    ('github-workflows', '.github/workflows/*.yml'), ('github-issue-forms', '.github/ISSUE_TEMPLATE/[!c]*.yml'),
    ('github-issue-config', '.github/ISSUE_TEMPLATE/config.yml'), ('citation-file-format', 'CITATION.cff')])
def test_yaml_fits_its_schema(schema, pattern):
    files = sorted(map(str, ROOT.glob(pattern)))
    assert files, f'no files like {pattern}'
    run('-m', 'check_jsonschema', '--builtin-schema', f'vendor.{schema}', *files)

def test_layers_are_those_of_the_floors():
    "pyproject.toml lists the modules from the highest to the lowest, tools/floors.py from the lowest to the highest"
    settings = tomllib.loads((ROOT/'pyproject.toml').read_text())
    contracts = {contract['id']: contract for contract in settings['tool']['importlinter']['contracts']}
    assert contracts['floors']['layers'] == list(reversed(floors.MODULES))
    assert sorted(path.stem for path in MODULES) == sorted(floors.MODULES), 'a module without a floor: enter it in tools/floors.py'

def test_strips_and_map_are_drawn_from_the_floors(): report(f'{name}: run python tools/floors.py' for name in floors.draw(ROOT, check=True))


# --- Modules

def attached(tree):
    "Lines at module level that assign to an attribute of a class, which hides a method from readers, help() and documentation"
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)): continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        targets = [part for target in targets for part in getattr(target, 'elts', [target])]
        names = [ast.unparse(target) for target in targets if isinstance(target, ast.Attribute)]
        if names: yield node.lineno, ', '.join(names)

@each_module
def test_methods_stand_in_their_class(path):
    tree = ast.parse(path.read_text())
    report(f'{path.name}:{line} assigns to {names}: write it into the class, or add it with @patch' for line, names in attached(tree))

@each_module
def test_only_public_names_are_imported(path):
    "From other modules of this package"
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
               and (node.level or (node.module or '').startswith('bst_nbdev'))]
    report(f'{path.name}:{node.lineno} imports {alias.name}, which is private' for node in imports for alias in node.names
           if re.match('_[^_]', alias.name))

@each_module
def test_what_the_system_says_is_cut_to_its_words(path):
    "A message about a file holds neither an error number nor the path again: it uses `core.brief`"
    def bare(handler):
        caught = ast.unparse(handler.type) if handler.type else ''
        if not re.search('OSError|READ_ERRORS', caught) or not handler.name: return []
        return [node.lineno for part in handler.body for node in ast.walk(part) if isinstance(node, ast.FormattedValue)
                and ast.unparse(node.value) in (handler.name, f'str({handler.name})', f'{handler.name}.strerror')]
    handlers = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ExceptHandler)]
    report(f'{path.name}:{line} shows an error of the system as it is' for handler in handlers for line in bare(handler))

MAX_MODULE, MAX_CODE = 500, 110
VAGUE = re.compile(r'\b(some|any|no)body\b|\bwhoever\b', flags=re.I)

def code_width(source):
    "Number of each line, and the column where its code ends; comments do not count, nor what nbdev writes above the code"
    lines, width = source.splitlines(), {}
    above = ast.parse(source).body[1].end_lineno  # the docstring of the module, and __all__
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.DEDENT): continue
        width |= {line: len(lines[line - 1]) for line in range(token.start[0], token.end[0])}  # all but the last line of a long string
        width[token.end[0]] = token.end[1]
    return {line: end for line, end in width.items() if line > above}

@each_module
def test_modules_and_lines_are_short(path):
    source = path.read_text()
    problems = [f'{path.name}:{line} code ends at column {end}, at most {MAX_CODE}' for line, end in code_width(source).items() if end > MAX_CODE]
    lines = len(source.splitlines())
    if lines > MAX_MODULE: problems.append(f'{path.name}: {lines} lines, at most {MAX_MODULE}')
    report(problems)

@each_module
def test_words_are_plain(path):
    "In docstrings, comments and messages"
    report(f'{path.name}:{number} says {found[0]!r}: name who or what it is' for number, line in enumerate(path.read_text().splitlines(), 1)
           if (found := VAGUE.search(line)))

def returns_something(node):
    "Whether a function returns or yields something"
    if node.returns is not None: return ast.unparse(node.returns) != 'None'
    def own(part):
        for child in ast.iter_child_nodes(part):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)): continue
            yield child
            yield from own(child)
    return any(isinstance(part, (ast.Return, ast.Yield, ast.YieldFrom)) and getattr(part, 'value', None) is not None for part in own(node))

def parameters_of(node):
    a = node.args
    return [arg for arg in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg] if arg and arg.arg not in ('self', 'cls')]

CLASSES = {node.name: node for path in MODULES for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}

def inherited(klass, name):
    "Names of the parameters of a method in the nearest base class of this package that has it, or None"
    for base in (CLASSES.get(ast.unparse(base)) for base in klass.bases):
        if base is None: continue
        method = next((part for part in base.body if isinstance(part, ast.FunctionDef) and part.name == name), None)
        return [arg.arg for arg in parameters_of(method)] if method else inherited(base, name)

def undocumented(source):
    """What public functions, methods and fields of dataclasses lack: a docstring, a comment on a line of its own for each parameter, and a
    comment on what comes back where the parameters end. The docstring of a class also says what `__init__` does, and that of a property or
    a validator what comes back. A method that overrides one of a base class of this package, with parameters of the same names, needs only
    a docstring."""
    comments = {token.start[0] for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT}

    def function(node, prefix='', overrides=False):
        name, a = prefix + node.name, node.args
        if node.name != '__init__' and not ast.get_docstring(node): yield f'{name} has no docstring'
        if overrides: return
        positional = [*a.posonlyargs, *a.args]
        defaults = dict(zip(reversed(positional), reversed(a.defaults))) | dict(zip(a.kwonlyargs, a.kw_defaults))
        parameters = parameters_of(node)
        lines = [arg.lineno for arg in parameters]
        for arg in parameters:
            end = defaults[arg].end_lineno if defaults.get(arg) else arg.end_lineno
            if not comments & set(range(arg.lineno, end + 1)): yield f'{name}: {arg.arg} has no comment that says what it is'
            elif lines.count(arg.lineno) > 1: yield f'{name}: {arg.arg} shares its line with another parameter'
        if node.name == '__init__' or any(re.search('property|validator', ast.unparse(part)) for part in node.decorator_list): return
        last = max((part.end_lineno for part in [*parameters, *filter(None, defaults.values())]), default=node.lineno - 1)
        ends = range(last + 1, max(node.body[0].lineno, last + 2))  # from the line below the last parameter to the docstring
        if last >= node.body[0].lineno - 1: ends = range(node.lineno, node.lineno + 1)  # all of it on one line
        if returns_something(node) and not comments & set(ends): yield f'{name} has no comment that says what comes back'

    def klass(node):
        if not ast.get_docstring(node): yield f'{node.name} has no docstring'
        is_dataclass = any('dataclass' in ast.dump(decorator) for decorator in node.decorator_list)
        for part in node.body:
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) and (part.name == '__init__' or not part.name.startswith('_')):
                same = inherited(node, part.name) == [arg.arg for arg in parameters_of(part)]
                yield from function(part, f'{node.name}.', overrides=same and part.name != '__init__')
            elif is_dataclass and isinstance(part, ast.AnnAssign) and not comments & set(range(part.lineno, part.end_lineno + 1)):
                yield f'{node.name}: {ast.unparse(part.target)} has no comment that says what it is'

    for node in ast.parse(source).body:
        if getattr(node, 'name', '_').startswith('_'): continue
        if isinstance(node, ast.ClassDef): yield from klass(node)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)): yield from function(node)

@each_module
def test_what_is_public_is_documented(path): report(f'{path.name}: {problem}' for problem in undocumented(path.read_text()))


# --- How notebooks look

@each_notebook
def test_opens_and_closes_as_agreed(path):
    found, module = list(cells(path)), floors.module_of(path)
    first = found[0][2]
    agreed = found[0][1] == 'markdown' and re.match(r'# \S.*\n\n> \S.*\Z', first)
    assert agreed, f'{path.name} cell 0: not a title, an empty line and a quotation of one line (> …)'
    if module is None: return  # the overview, a tutorial or an experiment
    assert re.match(rf'# {module}\n', first), f'{path.name} cell 0: the title is the name of the module'
    heads = {match[1]: number for number, kind, source, _ in found if kind == 'markdown' and (match := re.match(r'## (.+)', source))}
    assert 'Recap' in heads, f'{path.name} has no "## Recap"'
    assert heads.get('Exercises', len(found)) < heads['Recap'], f'{path.name} has no "## Exercises" before its recap'
    number = heads['Recap']
    assert re.search(r'\]\([\w.-]+\.ipynb\)', found[number][2]), f'{path.name} cell {number}: the recap links to no notebook'
    assert number >= len(found) - 3, f'{path.name} cell {number}: the recap does not stand at the end'
    last = found[-1][2]
    assert 'nbdev.nbdev_export()' in last and 'hide' in directives(last), f'{path.name}: the last cell exports, and is hidden'

def test_recaps_lead_through_the_notebooks():
    "In the order of the floors, which is the order of the sidebar too"
    chain = [path for path in NOTEBOOKS if floors.module_of(path)]
    assert [floors.module_of(path) for path in chain] == floors.MODULES
    recaps = [next((source for _, kind, source, _ in cells(path) if kind == 'markdown' and source.startswith('## Recap')), '') for path in chain]
    report(f'{path.name}: the recap does not link to {following.name}, which comes next'
           for path, following, recap in zip(chain, chain[1:], recaps) if following.name not in recap)

MAX_LINES, MAX_CLASS = 40, 75

@each_notebook
def test_exported_cells_hold_one_idea(path):
    "A class or a table that stands alone may be longer; directives do not count"
    for number, source in exported(path):
        body = ast.parse(source).body
        limit = MAX_CLASS if len(body) == 1 and isinstance(body[0], (ast.ClassDef, ast.Assign)) else MAX_LINES
        lines = sum(not line.startswith('#|') for line in source.splitlines())
        assert lines <= limit, f'{path.name} cell {number}: {lines} lines, at most {limit}'

@each_notebook
def test_prose_names_nothing_private(path):
    "Names in backticks become links, and what begins with an underscore has no place that one could link to"
    report(f'{path.name} cell {number}: {name} is private: say what it does' for number, kind, source, _ in cells(path)
           if kind == 'markdown' for name in re.findall(r'`_[a-z]\w*`', source))

@each_notebook
def test_imports_have_a_cell_of_their_own(path):
    "For the documentation nbdev runs every cell that imports something, tests too, and none of the cells it may depend on"
    problems, exports = [], dict(exported(path))
    for number, kind, source, _ in cells(path):
        if kind != 'code' or 'nbdev_export()' in source or re.search(r'^#\|\s*eval:\s*false', source, flags=re.M): continue
        tree = ast.parse(re.sub(r'^(\s*)[!%].*$', r'\1pass', source, flags=re.M))
        nodes = tree.body if number in exports else list(ast.walk(tree))  # a function that is exported may import
        other = [node for node in nodes if isinstance(node, ast.stmt if number in exports else (ast.Expr, ast.Assign))
                 and not isinstance(node, (ast.Import, ast.ImportFrom))]
        if other and any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in nodes):
            problems.append(f'{path.name} cell {number}: imports and other code')
    report(problems)

@each_notebook
def test_no_errors_in_outputs(path):
    outputs = [(number, output) for number, _, _, found in cells(path) for output in found]
    report(f'{path.name} cell {number}: an error' for number, output in outputs
           if output['output_type'] == 'error' or 'Traceback (most recent call last)' in text(output.get('text')))

HERE = '|'.join(re.escape(f'{folder}/') for folder in (ROOT.parent, Path.home()) if len(str(folder)) > 1)
MACHINE_PATH = re.compile(rf'(?<![\w.])(?:{HERE}|/tmp/|/home/\w|/Users/\w|/opt/|/mnt/|/content/|[A-Z]:\\{{1,2}}Users)|site-packages/')

@each_notebook
def test_no_machine_paths(path):
    "Not in the text, the code or the outputs"
    problems = []
    for number, _, source, outputs in cells(path):
        printed = [text(output.get('text')) for output in outputs]
        printed += [text(data) for output in outputs for kind, data in output.get('data', {}).items() if kind.startswith('text/')]
        problems += [f'{path.name} cell {number}: {what[max(found.start() - 20, 0):found.end() + 30]!r}'
                     for what in (source, *printed) for found in MACHINE_PATH.finditer(what)]
    report(problems)

@each_notebook
def test_pictures_have_words(path):
    "For those who cannot see them: `#| fig-alt:` at the top of the cell, or between the brackets of a link"
    yaml, problems = pytest.importorskip('yaml'), []
    for number, kind, source, outputs in cells(path):
        alt = re.search(r'^#\|\s*(fig-alt:.*)$', source, flags=re.M)
        if any('image/png' in output.get('data', {}) for output in outputs):
            try: words = alt and yaml.safe_load(alt[1])['fig-alt']
            except yaml.YAMLError: words = ''  # `: ` has to stand between quotation marks
            if not words: problems.append(f'{path.name} cell {number}: a picture without a `#| fig-alt: …` that can be read')
        if kind == 'markdown' and re.search(r'!\[\s*\]\(', source): problems.append(f'{path.name} cell {number}: a picture without words')
    report(problems)

@each_tutorial
def test_tutorial_runs_anywhere(path):
    found, config = list(cells(path)), settings()
    repository = f"{config['user']}/{config['repo']}"
    address = f'https://colab.research.google.com/github/{repository}/blob/main/nbs/tutorials/{path.name}'
    assert address in found[1][2], f'{path.name} cell 1: no badge that links to {address}'
    install = [source for _, kind, source, _ in found if kind == 'code' and f'%pip install -q "bst_nbdev @ git+https://github.com/{repository}"' in source]
    assert install and 'raise SystemExit(' in install[0], f'{path.name}: no cell that installs the package, or says what to do where that fails'
    code = '\n'.join(source for _, kind, source, _ in found if kind == 'code' and source not in install)
    assert not re.search(r"""['"](\.\./|https?://)""", code), f'{path.name}: code reads from another folder or from the network'
    assert 'show_progress' not in code, f'{path.name}: progress is hidden from those who wait'
    assert not list(exported(path)), f'{path.name}: exports'
    last = found[-1][2]
    assert re.search(r'^## Recap\n', last, flags=re.M) and re.search(r'\]\([\w./-]+\.ipynb\)', last), \
        f'{path.name}: the last cell is no recap with a link to a notebook'

@each_tutorial
def test_tutorial_stops_where_the_package_cannot_be_installed(path, monkeypatch):
    "pip does not raise: without a word of ours, the next cell would fail with a traceback"
    transform = pytest.importorskip('IPython').core.inputtransformer2.TransformerManager().transform_cell
    source = transform(next(source for _, kind, source, _ in cells(path) if kind == 'code' and '%pip' in source))
    asked = []
    shell = types.SimpleNamespace(run_line_magic=lambda name, line: asked.append(f'{name} {line}'))
    monkeypatch.setitem(sys.modules, 'bst_nbdev', None)                    # an import fails
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit, match='pip could not get it .* connect to the internet, or get a copy'): exec(source, dict(get_ipython=lambda: shell))
    assert asked == [f"pip install -q \"bst_nbdev @ git+https://github.com/{settings()['user']}/{settings()['repo']}\""]

def test_tutorials_lead_on_in_the_order_of_the_sidebar():
    order = [f'{name}.ipynb' for name in pytest.importorskip('pages').TUTORIALS]
    assert sorted(order) == sorted(path.name for path in TUTORIALS)
    for name, following in zip(order, [*order[1:], '../00_core.ipynb']):
        recap = list(cells(ROOT/'nbs'/'tutorials'/name))[-1][2]
        assert re.search(rf'^Next: [^\n]*\]\({re.escape(following)}\)', recap, flags=re.M), f'{name}: the recap does not lead to {following}'


# --- What is in the repository

def settings():
    parser = configparser.ConfigParser(delimiters=['='])
    parser.read(ROOT/'settings.ini')
    return parser['DEFAULT']

def repository():
    "Files that are, or would be, committed"
    if not (ROOT/'.git').exists(): pytest.skip('not a git checkout')
    command = ['git', '-C', str(ROOT), 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split('\0') if name and (path := ROOT/name).is_file()]

def test_files_are_small():
    report(f'{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB, at most 1.5' for path in repository()
           if path.stat().st_size > 1_500_000)

def test_no_movielens_data():
    allowed = ROOT/'data'/'sample'
    report(f'{path.relative_to(ROOT)}: only the synthetic sample is committed' for path in repository()
           if path.suffix in {'.dat', '.data', '.zip', '.npy', '.npz', '.parquet'} and allowed not in path.parents)

def test_licence_and_notes_are_there():
    for name in ['LICENSE', 'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'data/sample/README', '.github/pull_request_template.md']:
        assert (ROOT/name).is_file(), f'{name} is missing'
    assert 'Apache License' in (ROOT/'LICENSE').read_text() and 'SYNTHETIC' in (ROOT/'data/sample/README').read_text()

def test_workflows_run_what_runs_here():
    assert 'bash .ci/run' in (GITHUB/'workflows/ci.yml').read_text()
    docs = (GITHUB/'workflows/docs.yml').read_text()
    assert all(words in docs for words in ('python tools/docs.py', 'python tools/check_site.py --browser', 'actions/deploy-pages'))

def test_nothing_sets_threads_for_the_user():
    "Who sets no variable must get the good case, so the checks must not set one either"
    report(f'{path.relative_to(ROOT)} sets the threads' for path in [ROOT/'.ci'/'run', *GITHUB.rglob('*.yml')]
           if re.search(r'\b(OMP|GOMP|KMP|MKL)_\w+', path.read_text()))

def test_links_to_the_repository_follow_settings():
    "`user` and `repo` in settings.ini decide; pages written by hand must agree with them"
    user, repo, problems = settings()['user'], settings()['repo'], []
    for path in [*ROOT.glob('*.md'), ROOT/'data'/'README.md', ROOT/'benchmarks'/'README.md', *NOTEBOOKS]:
        for found in re.findall(r'github\.com/([\w.-]+)/([\w.-]+)|([\w-]+)\.github\.io/([\w.-]+)', path.read_text()):
            owner, name = (found[0] or found[2]), (found[1] or found[3])
            ours = repo in name or owner == user
            if ours and (owner, name) != (user, repo): problems.append(f'{path.relative_to(ROOT)}: {owner}/{name} instead of {user}/{repo}')
    report(problems)
