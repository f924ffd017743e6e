"""Run notebooks from top to bottom and save their outputs.

    python tools/execute.py nbs/00_core.ipynb nbs/01_data.ipynb
    python tools/execute.py --flags notest nbs/experiments/new_user.ipynb      # cells with that flag too
    python tools/execute.py --kernel [NOTEBOOK…]     # change nothing: run them in Jupyter and name the outputs that differ

Cells that `nbdev_test` skips (`#| notest`, `#| slow`, `#| eval: false`) are skipped here too and keep the outputs
they have; so are the `nbdev_export()` cells. Outputs are cleaned afterwards, so that a second run changes nothing.
With `--kernel` and no names, all notebooks run as they do when they are opened in Jupyter; times and rates may
differ, and pictures by as much as fonts do. Progress bars are off.
"""
import argparse
import os
import re
import sys
import time
from pathlib import Path

os.environ.setdefault('BST_PROGRESS', '0')  # bars are for those who wait, not for what is saved

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.process import NBProcessor

def left_out(path: Path, flags: tuple = ()) -> set:  # Numbers of the cells that are not run
    "Find the cells that `nbdev_test` skips, but for those with one of `flags`, and those that export"
    flags = set(get_config().tst_flags.split()) - set(flags)

    def skip(cell):
        found = getattr(cell, 'directives_', None) or {}
        return bool((found.get('eval:') or [''])[0].lower() == 'false' or flags & found.keys() or 'nbdev_export()' in cell.source)
    return {cell.idx_ for cell in NBProcessor(path).nb.cells if cell.cell_type == 'code' and skip(cell)}

def execute(
    path: str | Path,  # A notebook, which is rewritten with its outputs; it is left alone if a cell fails
    flags: tuple = (),  # Flags whose cells run although tests skip them
):
    "Run one notebook in its own folder"
    path = Path(path).resolve()
    notebook = read_nb(path)
    skipped = left_out(path, flags)

    def skip(cell):  # whether to leave the cell out; the outputs of the others are made anew
        if cell.cell_type != 'code' or cell.idx_ in skipped: return True
        cell.outputs = []
        return False

    shell = CaptureShell(path, mpl_format='png')
    with working_directory(path.parent): shell.run_all(notebook, exc_stop=True, preproc=skip)
    for cell in notebook.cells:  # the documentation is made again for every build of the site, and its line numbers move
        if cell.cell_type == 'code' and 'show_doc(' in cell.source: cell.outputs = []
    write_nb(notebook, path)
    nbdev_clean.__wrapped__(path)


# --- In a Jupyter kernel

UNITS = 'ms|µs|us|ns|s|seconds?|minutes?|min|times|×|x|it/s|examples/s|batches/s|/s|MB|GB'
TIME = re.compile(rf'\d[\d,.]*\s*(?:{UNITS})(?!\w)', flags=re.I)
STAMP = re.compile(r'\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?\S*|/tmp/\S+|0x[0-9a-f]{6,}')

def plain(source) -> str:
    "Join the lines of a notebook's text, which may be one string or a list"
    return source if isinstance(source, str) else ''.join(source or '')

def outputs(cell) -> str:
    "Join what a cell shows as text, without times and rates; streams that come in pieces are one"
    shown = ''
    for output in cell.get('outputs', []):
        data = output.get('data', {})
        if 'image/png' in data: shown += '[picture]\n'
        elif output['output_type'] == 'error': shown += f"{output['ename']}: {output['evalue']}\n"
        elif output['output_type'] == 'stream': shown += plain(output['text'])
        else: shown += plain(data.get('text/markdown') or data.get('text/html') or data.get('text/plain')).rstrip() + '\n'
    shown = re.sub(r'#T_\w+|\bT_\w{5}\w*|id="[^"]*"', '', shown)  # names that pandas makes up anew each time
    return re.sub(r'[ \t]+', ' ', TIME.sub('[time]', STAMP.sub('[stamp]', re.sub(r'\x1b\[[0-9;]*m', '', shown)))).strip()

def compare(before: list, after: list, skipped: set) -> list:
    "Write a line for each cell that shows something else than it did"
    found = []
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if old['cell_type'] != 'code' or number in skipped or 'show_doc(' in ''.join(old['source']): continue
        was, is_now = outputs(old), outputs(new)
        if was == is_now: continue
        first = next((i for i, (a, b) in enumerate(zip(was, is_now)) if a != b), min(len(was), len(is_now)))
        start = max(first - 30, 0)
        found.append(f'cell {number}: was {was[start:first + 60]!r}, is {is_now[start:first + 60]!r}')
    return found

def run_in_kernel(
    path: Path,  # A notebook, which is left as it is
    timeout: int = 900,  # Seconds for one cell
) -> list:  # One line for each cell that shows something else, or for the one that failed
    "Run a notebook as Jupyter does"
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    stored = nbformat.read(path, as_version=4)
    skipped = left_out(path)
    notebook = nbformat.from_dict(stored)
    notebook.metadata['kernelspec'] = dict(name='python3', display_name='Python 3', language='python')
    for number, cell in enumerate(notebook.cells):
        if number in skipped: cell.source = ''
    resources = {'metadata': {'path': str(path.parent)}}
    try: NotebookClient(notebook, timeout=timeout, startup_timeout=300, resources=resources).execute()
    except CellExecutionError as error: return [f'failed: {error.ename}: {error.evalue}']
    return compare(nbformat.read(path, as_version=4).cells, notebook.cells, skipped)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebooks', nargs='*', type=Path, help='Notebooks (with --kernel: default all)')
    parser.add_argument('--flags', default='', help='Run cells with these flags too, which tests skip')
    parser.add_argument('--kernel', action='store_true', help='Run in a Jupyter kernel, write nothing, compare outputs')
    args = parser.parse_args()
    root = get_config().config_path
    sys.path.insert(0, str(root))
    if not args.kernel:
        if not args.notebooks: parser.error('name the notebooks to run')
        for path in args.notebooks: execute(path, tuple(args.flags.split()))
        return
    faults = 0
    for path in args.notebooks or sorted(map(Path, nbglob(get_config().nbs_path))):
        start = time.time()
        found = run_in_kernel(path.resolve())
        verdict = f'{len(found)} differ' if found else 'as stored'
        print(f'{path.resolve().relative_to(root)}: {verdict} ({time.time() - start:.0f} s)', *found, sep='\n    ', flush=True)
        faults += bool(found)
    if faults: sys.exit(f'{faults} notebooks show something else than is stored, or fail')

if __name__ == '__main__': main()
