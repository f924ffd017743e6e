"""Run notebooks from top to bottom and save their outputs.

    python tools/execute.py nbs/00_core.ipynb nbs/01_data.ipynb

Cells that `nbdev_test` skips (`#| notest`, `#| slow`, `#| eval: false`) are skipped here too and keep the outputs they have; so
are the `nbdev_export()` cells. Outputs are cleaned afterwards, so that a second run changes nothing.
"""
import sys
from pathlib import Path

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.process import NBProcessor

def execute(
    path: str | Path,  # A notebook, which is rewritten with its outputs; it is left alone if a cell fails
):
    "Run one notebook in its own folder"
    path = Path(path).resolve()
    notebook, skip_flags = read_nb(path), set(get_config().tst_flags.split())
    directives = [getattr(cell, 'directives_', None) or {} for cell in NBProcessor(path).nb.cells]

    def skip(cell):  # whether to leave the cell out; the outputs of the others are made anew
        if cell.cell_type != 'code': return True
        found = directives[cell.idx_]
        never = (found.get('eval:') or [''])[0].lower() == 'false'
        if never or skip_flags & found.keys() or 'nbdev_export()' in cell.source: return True
        cell.outputs = []
        return False

    shell = CaptureShell(path, mpl_format='png')
    with working_directory(path.parent): shell.run_all(notebook, exc_stop=True, preproc=skip)
    for cell in notebook.cells:  # the documentation is made again for every build of the site, and its line numbers move
        if cell.cell_type == 'code' and 'show_doc(' in cell.source: cell.outputs = []
    write_nb(notebook, path)
    nbdev_clean.__wrapped__(path)

def main():
    if {'-h', '--help'} & set(sys.argv): return print(__doc__)
    if not sys.argv[1:]: sys.exit(__doc__)
    sys.path.insert(0, str(get_config().config_path))
    for path in sys.argv[1:]: execute(path)

if __name__ == '__main__': main()
