"""Build the documentation site and README.md without Quarto.

    python tools/docs.py                     # nbs/ -> _docs/, which needs no network: open _docs/index.html
    python tools/docs.py readme              # nbs/index.ipynb -> README.md
    python tools/docs.py readme --check      # fail if README.md is not what index.ipynb gives

nbdev prepares the notebooks exactly as it does for Quarto: it hides what is marked, documents what is exported and
links names in backticks. Then tools/pages.py draws what Quarto would. Those who have Quarto may just as well use
`nbdev_docs` and `nbdev_preview`.
"""
import argparse
import json
import re
import sys
from pathlib import Path

import nbdev.doclinks as doclinks
import nbdev.quarto as quarto
import yaml
from nbdev.config import get_config

from check_site import missing_names, report, static_faults
from pages import front_matter, right_links, text, write_site

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # settings.ini names tools.showdoc, which nbdev imports


# --- Notebooks

def process_notebooks() -> tuple:  # Folder with the processed copies, and the notebooks' names in the order of the sidebar
    "Do what `nbdev_docs` does before it calls Quarto"
    config = get_config()
    quarto.refresh_quarto_yml()
    doclinks._build_modidx()
    quarto.nbdev_sidebar.__wrapped__(path=config.nbs_path, file_re=quarto._def_file_re)
    listed = yaml.safe_load((config.nbs_path/'sidebar.yml').read_text())['website']['sidebar']['contents']
    cache = quarto.proc_nbs(config.nbs_path, n_workers=2, force=True)
    check_errors(cache)
    return cache, list(flat(listed))

def flat(contents):
    "Yield the notebooks of Quarto's sidebar, one after the other"
    for entry in contents:
        if isinstance(entry, str): yield entry
        else: yield from flat(entry['contents'])

def check_errors(cache: Path):
    "Find errors in the pages: nbdev does not stop when documentation cannot be made"
    bad = []
    for path in sorted(cache.rglob('*.ipynb')):
        for cell in json.loads(path.read_text())['cells']:
            for output in cell.get('outputs', []):
                printed = text(output.get('text')) if output.get('name') == 'stderr' else ''
                if output['output_type'] == 'error' or 'Traceback (most recent call last)' in printed:
                    bad.append(f"{path.name}: {output.get('ename', '')} {output.get('evalue', '')}{printed[-300:]}")
    if bad: sys.exit('errors in notebooks:\n' + '\n'.join(bad))


# --- README.md

def output_text(output: dict) -> str:
    "Write an output as Markdown"
    data = output.get('data', {})
    if 'text/markdown' in data: return text(data['text/markdown'])
    if 'image/png' in data: sys.exit('README: put the pictures of index.ipynb into nbs/images, not into outputs')
    plain = text(output.get('text')) or text(data.get('text/plain'))
    return '\n'.join(f'    {line}' if line else '' for line in plain.rstrip().splitlines())

def readme(cache: Path) -> str:
    "Write `index.ipynb` as GitHub Markdown, close to what `quarto render -t gfm` makes"
    config = get_config()
    parts = []
    notebook = json.loads((cache/config.readme_nb).read_text())
    for cell in notebook['cells']:
        source = text(cell['source']).strip()
        if cell['cell_type'] == 'raw':
            front = front_matter(notebook)
            parts += [f"# {front.get('title', config.title)}", f"> {front['description']}" if 'description' in front else '']
        elif cell['cell_type'] == 'markdown': parts.append(source)
        elif cell['cell_type'] == 'code':
            code = re.sub(r'^#\|.*\n?', '', source, flags=re.M)
            if code and not re.search(r'^#\|\s*echo: false', source, flags=re.M): parts.append(f'``` python\n{code}\n```')
            parts += [output_text(output) for output in cell.get('outputs', [])]
    markdown = right_links('\n\n'.join(part for part in parts if part) + '\n', config.readme_nb, notebook)
    # README.md stands one folder above the notebooks and pictures it points to
    inside = re.compile(r'\]\((?!\.\.?/)([\w./-]+\.ipynb|images/[^)\s]+)')
    return inside.sub(rf']({config.nbs_path.name}/\1', markdown).replace('](../', '](')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='?', default='site', choices=['site', 'readme'],
                        help='what to build (default: %(default)s)')
    parser.add_argument('--check', action='store_true',
                        help='with readme: write nothing, and fail if README.md is not what index.ipynb gives')
    args = parser.parse_args()
    config = get_config()
    cache, order = process_notebooks()
    if args.what == 'site':
        site = config.config_path/config.doc_path.name
        pages = write_site(cache, order, site)
        report(static_faults(site) + missing_names(site))
        return print(f'{pages} pages: {site/"index.html"}')
    file, new = config.config_path/'README.md', readme(cache)
    if not args.check: file.write_text(new)
    elif not file.exists() or file.read_text() != new:
        sys.exit('README.md is not what nbs/index.ipynb gives: run python tools/docs.py readme')

if __name__ == '__main__': main()
