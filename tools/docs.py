"""Build the documentation site and README.md without Quarto.

    python tools/docs.py                     # nbs/ -> _docs/
    python tools/docs.py --katex DIR         # the same, with formulas that need no network
    python tools/docs.py readme              # nbs/index.ipynb -> README.md
    python tools/docs.py readme --check      # fail if README.md is not what index.ipynb gives

nbdev prepares the notebooks exactly as it does for Quarto: it hides what is marked, documents what is exported and links names in
backticks. Then smalldocs renders what Quarto would. Those who have Quarto may just as well use `nbdev_docs` and `nbdev_preview`.
"""
import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbdev.doclinks as doclinks
import nbdev.quarto as quarto
import yaml
from nbdev.config import get_config

KATEX = 'https://cdn.jsdelivr.net/npm/katex@0.16.11/dist'
FONTS = re.compile(r'@import\s*url\(["\']?https://fonts\.googleapis\.com[^)]*\)\s*;')  # the address itself holds `;`


# --- Notebooks

def process_notebooks() -> Path:  # The folder with the processed copies
    "What `nbdev_docs` does before it calls Quarto"
    config = get_config()
    quarto.refresh_quarto_yml()
    doclinks._build_modidx()
    quarto.nbdev_sidebar.__wrapped__(path=config.nbs_path, file_re=quarto._def_file_re)
    cache = quarto.proc_nbs(config.nbs_path, n_workers=2, force=True)
    check_errors(cache)
    return cache

def text(source) -> str:  # Notebooks store text as one string or as a list of lines
    return source if isinstance(source, str) else ''.join(source or '')

def outputs(notebook):
    "All outputs of a notebook, one after the other"
    for cell in notebook['cells']: yield from cell.get('outputs', [])

def front_matter(notebook) -> dict:
    "The settings nbdev writes into the first cell, made from the title cell"
    first = notebook['cells'][0]
    return (yaml.safe_load(text(first['source']).strip().strip('-')) or {}) if first['cell_type'] == 'raw' else {}

def check_errors(cache: Path):
    "nbdev carries on when documentation cannot be made: find what it left in the pages"
    bad = []
    for path in sorted(cache.rglob('*.ipynb')):
        for output in outputs(json.loads(path.read_text())):
            printed = text(output.get('text')) if output.get('name') == 'stderr' else ''
            if output['output_type'] == 'error' or 'Traceback (most recent call last)' in printed:
                bad.append(f"{path.name}: {output.get('ename', '')} {output.get('evalue', '')}{printed[-300:]}")
    if bad: sys.exit('errors in notebooks:\n' + '\n'.join(bad))


# --- Links

def unlink_code(markdown: str) -> str:
    "Take nbdev's links out of fenced code, where they would be shown as they are"
    lines, fenced = [], False
    for line in markdown.splitlines(True):
        if line.startswith('```'): fenced = not fenced
        lines.append(re.sub(r'\[(`[^`]+`)\]\([^)]*\)', r'\1', line) if fenced else line)
    return ''.join(lines)

def localise(markdown: str, pages: dict, site: str, up: str) -> str:
    "Links to the published site and to notebooks become links to the pages beside this one"
    markdown = markdown.replace(site, up)
    for notebook, page in pages.items():
        link = re.compile(rf'\(((?:\.\.?/)*){re.escape(notebook)}(#[^)]*)?\)')
        markdown = link.sub(lambda found: f"({found[1]}{page}{found[2] or ''})", markdown)
    return markdown

def check_anchors(site: Path):
    "Fail on a link to a page or to an id that is not there (smalldocs does not look at ids)"
    html = {page: page.read_text() for page in site.rglob('*.html')}
    ids = {page: set(re.findall(r'\b(?:id|data-anchor-id)="([^"]+)"', code)) for page, code in html.items()}
    bad = set()
    for page, code in html.items():
        for link in re.findall(r'<a [^>]*?href="([^"]+)"', code):
            if re.match(r'[a-z]+:|//', link): continue  # elsewhere on the web
            file, _, anchor = link.partition('#')
            target = (page.parent/file).resolve() if file else page
            if not target.exists() or (anchor and anchor not in ids.get(target, ())): bad.add(f'{page.name}: {link}')
    if bad: sys.exit('broken links:\n' + '\n'.join(sorted(bad)))


# --- The site

def rename_pages(source: Path):
    "Give the pages Quarto's names (`00_core.ipynb` becomes `core`), and make links, sidebar and settings fit"
    config = get_config()
    notebooks = {path: json.loads(path.read_text()) for path in sorted(source.rglob('*.ipynb'))}
    pages = {path.name: front_matter(notebook).get('output-file', f'{path.stem}.html').replace('.html', '.ipynb')
             for path, notebook in notebooks.items()}
    if len(set(pages.values())) < len(notebooks): sys.exit(f'two notebooks have the same page name: {pages}')
    for path, notebook in notebooks.items():
        up = '../' * (len(path.relative_to(source).parts) - 1)
        fix = lambda markdown: localise(markdown, pages, f'{config.doc_host}{config.doc_baseurl}/', up)
        for cell in notebook['cells']:
            if cell['cell_type'] == 'raw': cell['source'] = re.sub(r'^output-file:.*\n', '', text(cell['source']), flags=re.M)
            if cell['cell_type'] == 'markdown': cell['source'] = fix(text(cell['source']))
        for output in outputs(notebook):
            data = output.get('data', {})
            if 'text/markdown' in data: data['text/markdown'] = fix(unlink_code(text(data['text/markdown'])))
        path.unlink()
        path.with_name(pages[path.name]).write_text(json.dumps(notebook, indent=1))
    sidebar = (source/'sidebar.yml').read_text()
    for notebook, page in pages.items(): sidebar = re.sub(rf'(?<![\w-]){re.escape(notebook)}', page, sidebar)
    (source/'sidebar.yml').write_text(sidebar)
    settings = yaml.safe_load((source/'_quarto.yml').read_text())
    settings['format'] = {'html': {key: value for key, value in settings['format']['html'].items() if key != 'keep-md'}}
    (source/'_quarto.yml').write_text(yaml.safe_dump(settings, sort_keys=False))

def bundle_katex(
    site: Path,  # The rendered site
    katex: Path,  # The `dist` folder of the npm package `katex`
):
    "Put KaTeX into the site and drop web fonts, so that nothing is fetched from the network"
    unused = shutil.ignore_patterns('*.mjs', '*.md', 'katex.js', 'katex.css', '*.ttf', '*.woff')
    shutil.copytree(katex, site/'site_libs/katex', ignore=unused)
    for page in site.rglob('*.html'):
        up = '../' * (len(page.relative_to(site).parts) - 1)
        page.write_text(page.read_text().replace(KATEX, f'{up}site_libs/katex'))
    for style in site.rglob('*.css'): style.write_text(FONTS.sub('', style.read_text()))

def build_site(
    cache: Path,  # The processed notebooks
    site: Path,  # Where the pages go; what is there is replaced
    katex: Path = None,  # The `dist` folder of the npm package `katex`, for formulas without a network
) -> Path:  # `site`
    "Render the site with smalldocs and check every link"
    smalldocs = Path(sys.executable).parent/'smalldocs'
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)/'site'
        shutil.copytree(cache, source, ignore=shutil.ignore_patterns(site.name))
        rename_pages(source)
        if subprocess.run([smalldocs, 'check', source]).returncode: sys.exit('smalldocs check: see above')
        subprocess.run([smalldocs, 'render', source], check=True)
        shutil.rmtree(site, ignore_errors=True)
        shutil.move(source/site.name, site)
    check_anchors(site)
    if katex: bundle_katex(site, katex)
    return site


# --- README.md

def output_text(output: dict) -> str:
    "An output as Markdown"
    data = output.get('data', {})
    if 'text/markdown' in data: return text(data['text/markdown'])
    if 'image/png' in data: sys.exit('README: put the pictures of index.ipynb into nbs/images, not into outputs')
    plain = text(output.get('text')) or text(data.get('text/plain'))
    return '\n'.join(f'    {line}' if line else '' for line in plain.rstrip().splitlines())

def readme(cache: Path) -> str:
    "`index.ipynb` as GitHub Markdown, close to what `quarto render -t gfm` makes"
    config, parts = get_config(), []
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
    markdown = '\n\n'.join(part for part in parts if part) + '\n'
    # README.md stands one folder above the notebooks and pictures it points to
    return re.sub(r'\]\((?!\.\.?/)([\w./-]+\.ipynb|images/[^)\s]+)', rf']({config.nbs_path.name}/\1', markdown).replace('](../', '](')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='?', default='site', choices=['site', 'readme'], help='What to build (default: %(default)s)')
    parser.add_argument('--check', action='store_true', help='With readme: write nothing, fail if README.md is not what index.ipynb gives')
    parser.add_argument('--katex', type=Path, help='With site: the `dist` folder of the npm package `katex`')
    args, config = parser.parse_args(), get_config()
    cache = process_notebooks()
    if args.what == 'site': return print(build_site(cache, config.config_path/config.doc_path.name, args.katex))
    file, new = config.config_path/'README.md', readme(cache)
    if not args.check: file.write_text(new)
    elif not file.exists() or file.read_text() != new:
        sys.exit('README.md is not what nbs/index.ipynb gives: run python tools/docs.py readme')

if __name__ == '__main__': main()
