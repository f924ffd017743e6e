"""Where each module stands: one table of five floors, and all that is drawn from it.

    python tools/floors.py             # rewrites the strip at the top of each notebook, and the map in CONTRIBUTING.md
    python tools/floors.py --check     # only says which files would change, and fails if there are any

A module imports only modules before it in this table; import-linter sees to it (pyproject.toml). The strip is the
cell of a notebook that begins with `<!-- floor -->`; the map stands between `<!-- map -->` and `<!-- end of map -->`.
"""
import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    'ground': ['core', 'names'],
    'data': ['sample', 'shop', 'vocabulary', 'features', 'checks', 'data', 'pictures', 'layouts', 'movielens', 'readers',
             'prepared', 'out_of_core', 'splits', 'windows', 'packing', 'newer_data'],
    'network': ['embedding', 'transformer', 'relative_attention', 'mlp', 'model', 'heads', 'hiding', 'bst', 'two_stream',
                'presets', 'top_items', 'growth'],
    'learning': ['training', 'saving', 'resume', 'tracking', 'evaluation', 'ranking', 'explain', 'update_recipe', 'pipeline',
                 'runs', 'update'],
    'what users touch': ['titles', 'users', 'recommender', 'onnx_export', 'options', 'parsing', 'output', 'train_command',
                         'cli', 'update_command', 'start', 'batcher', 'server', 'service'],
}
MODULES = [module for modules in FLOORS.values() for module in modules]
MARK, MAP, END_OF_MAP = '<!-- floor -->', '<!-- map -->', '<!-- end of map -->'

def module_of(
    path: Path,  # A notebook
) -> str | None:  # The module that it exports to, or None
    "Read the name of a notebook's module"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    found = (re.match(r'#\|\s*default_exp\s+(\w+)', ''.join(cell['source'])) for cell in cells if cell['cell_type'] == 'code')
    return next((match[1] for match in found if match), None)

def strip(
    module: str,  # The module that a notebook exports to
    notebooks: dict,  # Module to the name of its notebook
) -> str:  # The source of the cell
    "Draw the five floors in one line, the present one in bold with its module, the others as links to their first notebook"
    parts = []
    for floor, modules in FLOORS.items():
        first = next((notebooks[name] for name in modules if name in notebooks), None)
        if module in modules: parts.append(f'**{floor}: `{module}`**')
        else: parts.append(f'[{floor}]({first})' if first else floor)
    return f'{MARK}\n\n{" · ".join(parts)}'

def floor_map() -> str:  # Markdown
    "Draw all modules, floor by floor"
    width = max(map(len, FLOORS))
    rows = [f'{floor:<{width}}   {"   ".join(modules)}' for floor, modules in FLOORS.items()]
    return '\n'.join([MAP, '```', *rows, '```', END_OF_MAP])

def redraw_notebook(
    path: Path,  # A notebook
    notebooks: dict,  # Module to the name of its notebook
) -> str:  # Its whole text with the strip as it should be; empty if it has no cell for it
    "Put the strip into a notebook"
    notebook, module = json.loads(path.read_text(encoding='utf-8')), module_of(path)
    cells = [cell for cell in notebook['cells'] if cell['cell_type'] == 'markdown' and ''.join(cell['source']).startswith(MARK)]
    if len(cells) != 1 or module not in MODULES: return ''
    cells[0]['source'] = strip(module, notebooks).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + '\n'

def draw(
    root: Path,  # The project
    check: bool = False,  # Whether to leave the files as they are
) -> list:  # Names of the files that are, or would have to be, changed
    "Draw the strips and the map"
    paths = {module: path for path in sorted((root/'nbs').glob('*.ipynb')) if (module := module_of(path))}
    notebooks = {module: path.name for module, path in paths.items()}
    wanted = {path: redraw_notebook(path, notebooks) for path in paths.values()}
    guide = root/'CONTRIBUTING.md'
    wanted[guide] = re.sub(f'{MAP}.*?{END_OF_MAP}', lambda _: floor_map(), guide.read_text(encoding='utf-8'), flags=re.S)
    if MAP not in wanted[guide]: wanted[guide] = ''
    changed = [path for path, new in wanted.items() if new != path.read_text(encoding='utf-8')]
    for path in changed:
        if wanted[path] and not check: path.write_text(wanted[path], encoding='utf-8')
    return [str(path.relative_to(root)) + ('' if wanted[path] else ' (it has no place for the floors)') for path in changed]

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing, and fail if something would change')
    a = parser.parse_args()
    changed = draw(ROOT, a.check)
    print(*changed, sep='\n')
    sys.exit(bool(a.check and changed))

if __name__ == '__main__': main()
