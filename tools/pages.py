"""Draw the pages of the site from the notebooks that nbdev has prepared (tools/docs.py is the command).

smalldocs reads Quarto's Markdown; formulas become MathML and pictures become files, so that a page fetches nothing
from elsewhere and may be opened from a disk. The look is in tools/site/.
"""
import ast
import base64
import functools
import hashlib
import html
import json
import os
import re
import runpy
import shutil
import struct
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import yaml
import ziamath
from fontTools.ttLib import TTFont
from latex2mathml.converter import convert
from nbdev.config import get_config
from smalldocs.check import scan
from smalldocs.markdown import render
from smalldocs.notebook import to_markdown

ASSETS = Path(__file__).resolve().parent/'site'
# Where a page stands in the sidebar: a folder's name, or the first two digits of a notebook's
HOME, STEP_BY_STEP, LAST = 'Home', 'The model step by step', 'For reference'
FOLDERS = {'tutorials': 'Tutorials', 'experiments': 'Experiments'}
PARTS = (HOME, FOLDERS['tutorials'], STEP_BY_STEP, FOLDERS['experiments'], LAST)  # in this order
# In the order of reading, which their recaps follow
TUTORIALS = ('ten_minutes', 'own_data', 'how_bst_thinks', 'honest_evaluation', 'week', 'reproducing', 'tracking', 'scaling')
STEPS = {'02': 'The data', '06': 'The network', '09': 'Training and measuring', '99': 'Using it'}  # up to this number

@dataclass
class Page:
    "A page of the site"
    source: str  # The notebook, from the folder of notebooks
    href: str  # The page, from the root of the site
    title: str  # Its title
    description: str  # Its first sentence
    notebook: dict  # What nbdev made of the notebook
    body: str = ''  # HTML
    headings: list = field(default_factory=list)  # What smalldocs says of the headings
    search: list = field(default_factory=list)  # What may be found in it

    @property
    def up(self): return '../' * self.href.count('/')

    @property
    def number(self):
        "The number in the notebook's name: `06a`, or nothing"
        found = re.match(r'\d+[a-z]*(?=_)', PurePosixPath(self.source).name)
        return found[0] if found else ''

    @property
    def group(self):
        "Titles of the part of the sidebar the page stands in"
        folder = self.source.partition('/')[0] if '/' in self.source else ''
        if folder: return FOLDERS.get(folder, folder.capitalize()),
        if self.number: return STEP_BY_STEP, next(title for last, title in STEPS.items() if self.number[:2] <= last)
        return HOME if self.href == 'index.html' else LAST,

    @property
    def place(self):
        "Where the page stands in the sidebar; pages of one place keep the order they had"
        part, stem = self.group[0], PurePosixPath(self.source).stem
        reading = TUTORIALS.index(stem) if part == FOLDERS['tutorials'] and stem in TUTORIALS else len(TUTORIALS)
        return PARTS.index(part) if part in PARTS else len(PARTS), reading


# --- Reading

def text(source) -> str:  # Notebooks store text as one string or as a list of lines
    return source if isinstance(source, str) else ''.join(source or '')

def front_matter(notebook) -> dict:
    "Read the settings that nbdev writes into the first cell, from the title cell"
    first = notebook['cells'][0]
    return (yaml.safe_load(text(first['source']).strip().strip('-')) or {}) if first['cell_type'] == 'raw' else {}

def read_pages(cache: Path, order: list) -> list:
    "Read the pages in the order of the sidebar"
    found = []
    for source in order:
        notebook = json.loads((cache/source).read_text())
        front = front_matter(notebook)
        name = front.get('output-file', f'{PurePosixPath(source).stem}.html')
        href = str(PurePosixPath(source).with_name(name))
        found.append(Page(source, href, front.get('title', PurePosixPath(source).stem), front.get('description', ''), notebook))
    names = [page.href for page in found]
    if len(set(names)) < len(names): sys.exit(f'two notebooks have the same page name: {sorted(names)}')
    return sorted(found, key=lambda page: page.place)  # a stable sort

def unlink_code(markdown: str) -> str:
    "Take nbdev's links out of fenced code, where they would be shown as they are"
    lines = []
    fenced = False
    for line in markdown.splitlines(True):
        if line.startswith('```'): fenced = not fenced
        lines.append(re.sub(r'\[(`[^`]+`)\]\([^)]*\)', r'\1', line) if fenced else line)
    return ''.join(lines)

@functools.cache
def definitions() -> tuple:  # Functions: name -> modules; methods: name -> {class: (module, class that defines it)}
    "List what the package defines; a class has the methods of its bases too"
    package = get_config().lib_path
    functions, methods, bases = {}, {}, {}
    for module, names in runpy.run_path(str(package/'_modidx.py'))['d']['syms'].items():
        for name in names:
            *owner, short = name.removeprefix(f'{module}.').split('.')
            if owner: methods.setdefault(short, {})[owner[0]] = module.rpartition('.')[2], owner[0]
            else: functions.setdefault(short, set()).add(module.rpartition('.')[2])
    for path in package.glob('*.py'):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef): bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
    for owners in methods.values():
        for name in bases:
            line, seen = [name], set()
            while line and name not in owners:
                one = line.pop(0)
                if one in owners: owners[name] = owners[one]
                line += [base for base in bases.get(one, ()) if base not in seen]
                seen.add(one)
    return functions, methods

def sources_of(name: str, notebook: dict) -> list:  # Code, without what IPython alone understands
    "Read the code of a notebook as it is written, hidden cells too; without that file, as nbdev left it"
    path = get_config().nbs_path/name
    cells = (json.loads(path.read_text()) if path.is_file() else notebook)['cells']
    return [re.sub(r'^\s*[%!].*$', '', text(cell['source']), flags=re.M) for cell in cells if cell['cell_type'] == 'code']

def own_names(sources: list) -> tuple:  # Module it exports to, and the names that its code imports
    "Find what a notebook exports to, and what it imports"
    code = '\n'.join(sources)
    module = re.search(r'^#\|\s*default_exp\s+(\w+)', code, flags=re.M)
    imports = re.findall(r'^\s*from bst_nbdev\S* import (\([^)]*\)|[^\n]*)', code, flags=re.M)
    return module and module[1], {name for part in imports for name in re.findall(r'\w+', part)}

def right_definition(name: str, module: str, imported: set) -> str:  # "recommender.html#predictor.predict", or nothing
    """Find what a name in backticks means on a page, where it is the name of a function and of methods.

    That is what the page's own module defines, function or method; else a function that its code imports; else the method of a
    class that its code imports."""
    functions, methods = definitions()
    owners = methods.get(name, {})
    if name not in functions or not owners or module in functions[name]: return ''
    own = [owner for owner, (place, definer) in owners.items() if place == module and owner == definer]
    if not own and name in imported: return ''
    found = own or [owner for owner in owners if owner in imported]
    if not found: return ''
    place, definer = owners[found[0]]
    return f'{place}.html#{definer.lower()}.{name}'

def right_links(markdown: str, source: str, notebook: dict) -> str:
    "Let names in backticks lead to the methods they mean, where nbdev found a function of that name"
    published = f'{get_config().doc_host}{get_config().doc_baseurl}/'
    known = functools.cache(lambda: own_names(sources_of(source, notebook)))
    def one(found):
        target = right_definition(found[1], *known())
        return f'[`{found[1]}{found[2] or ""}`]({published}{target})' if target else found[0]
    return re.sub(rf'\[`(\w+)(\(\))?`\]\({re.escape(published)}[^)]*\)', one, markdown)

def without_badges(markdown: str) -> str:
    "Replace a badge, which is a picture from elsewhere, by a link with its words"
    return re.sub(r'\[!\[([^\]]*)\]\(https?://[^)]*\)\]\(([^)]*)\)', r'[\1](\2){.badge-link}', markdown)


FOLDED = '#| code-fold: true\n#| code-summary: Tests\n'
TESTS = re.compile(r'test_\w+|assert_\w+')

def is_test(cell: dict) -> bool:
    "Say whether a cell is a test: three assertions or more, which are most of what it does, and nothing to look at"
    source = text(cell['source'])
    if cell.get('outputs') or re.search(r'^#\|\s*(code-fold|echo)', source, flags=re.M): return False
    try: body = ast.parse(source).body
    except SyntaxError: return False
    def asserts(node):
        called = node.func if isinstance(node, ast.Call) else None
        name = getattr(called, 'id', getattr(called, 'attr', ''))
        return isinstance(node, ast.Assert) or bool(TESTS.fullmatch(name))
    holds = [any(map(asserts, ast.walk(node))) for node in body]
    return sum(map(asserts, ast.walk(ast.Module(body, [])))) >= 3 and 2 * sum(holds) >= len(holds)


# --- Formulas

FORMULA = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', flags=re.S)

def mathml(latex: str, display: str) -> str:
    "Write a formula as MathML, which browsers draw and read out by themselves"
    latex = re.sub(r'\\[Bb]igg?(?=\\[lr](floor|ceil))', '', latex)  # latex2mathml leaves these as they are written
    made = convert(latex, display='block' if display == 'display' else 'inline')
    letter = r'<mi mathvariant="normal">(\w)</mi>'
    one_symbol = lambda run: f"<mi>{''.join(re.findall(letter, run[0]))}</mi>"  # a word
    joined = re.sub(rf'{letter}(?:{letter})+', one_symbol, made)
    joined = joined.replace('<mo>&#x0221E;</mo>', '<mi>&#x0221E;</mi>')  # infinity is no operator, and needs no room around it
    if found := re.search(r'\\[A-Za-z]+', joined):
        raise ValueError(f'{found[0]} in the formula {latex} is not understood: write it in another way')
    return joined

def drawn_formulas(body: str) -> str:
    "Replace the formulas of a page by MathML"
    return FORMULA.sub(lambda found: mathml(html.unescape(found[2]).strip(), found[1]), body)

def write_font(file: Path):
    "Write STIX Two Math (SIL Open Font License) as a web font, so that formulas look the same in every browser"
    font = TTFont(Path(ziamath.__file__).parent/'fonts'/'STIXTwoMath-Regular.ttf')
    font.flavor = 'woff'
    font.save(file)


# --- Pictures, tables and links

def picture_files(body: str, site: Path, up: str) -> str:
    "Move pictures out of the page into files, and note their size, so that nothing jumps while they load"
    def one(found):
        data = base64.b64decode(found[2])
        name = f'images/{hashlib.sha256(data).hexdigest()[:16]}.{found[1].partition("+")[0]}'
        (site/name).parent.mkdir(exist_ok=True)
        (site/name).write_bytes(data)
        size = ' width="{}" height="{}"'.format(*struct.unpack('>II', data[16:24])) if data[12:16] == b'IHDR' else ''
        return f'src="{up}{name}"{size} loading="lazy"'
    return re.sub(r'src="data:image/([\w+]+);base64,([^"]+)"', one, body)

def marked_table(table: str) -> str:
    """Mark a table with sentences.

    `words` has two or three columns, and its rows are paragraphs on a phone; `details` has more, and its last needs room."""
    rows = [re.findall(r'<t[dh]\b[^>]*>(.*?)</t[dh]>', row, flags=re.S) for row in table.split('<tr')[1:]]
    lengths = [[len(re.sub(r'<[^>]+>', '', cell)) for cell in row] for row in rows if row]
    columns = max(map(len, lengths), default=0)
    if 'dataframe' in table[:200] or columns < 2 or max(map(max, lengths)) < 60: return table
    if columns > 3 and max(row[-1] for row in lengths) < 60: return table
    kind = 'words' if columns <= 3 else 'details'
    classes = re.search(r'^<table\b[^>]*?class="', table)
    return f'{classes[0]}{kind} {table[classes.end():]}' if classes else f'<table class="{kind}"{table[len("<table"):]}'

def finished(page: Page, site: Path) -> str:
    "Do what smalldocs leaves to the page around it"
    body = picture_files(drawn_formulas(page.body), site, page.up)
    body = body.replace('<div class="sd-table">', '<div class="scroll">')
    body = re.sub(r'(?<!<div class="scroll">\n)(<table\b[^>]*>.*?</table>)', r'<div class="scroll">\1</div>', body, flags=re.S)
    body = re.sub(r'<style scoped>.*?</style>', '', body, flags=re.S)  # pandas' own, which knows no dark page
    body = re.sub(r'<table border="1"', '<table', body)
    body = re.sub(r'<table\b.*?</table>', lambda found: marked_table(found[0]), body, flags=re.S)
    body = ''.join(part if part.startswith('<pre') else re.sub(r'(?<=\d) ± (?=\d)', '\u00a0±\u00a0', part)
                   for part in re.split(r'(<pre\b.*?</pre>)', body, flags=re.S))
    body = re.sub(r' ?style="float:right; font-size:smaller"', ' class="source-link"', body)
    body = re.sub(r'<i class="bi[^"]*"[^>]*></i>', '', body)
    body = body.replace('title="Copy to Clipboard" class="code-copy-button"', 'type="button" class="copy" hidden')
    anchor = '<a class="anchor" href="#{}" aria-label="Link to this section">#</a>'
    body = re.sub(r'(<h([2-4]) id="([^"]*)"[^>]*>)(.*?)</h\2>', r'\1\4' + anchor.format(r'\3') + r'</h\2>', body)
    body = re.sub(r'<section id="([^"]*)" class="level\d">\s*<h([2-4])\b([^>]*)>(.*?)</h\2>',
                  r'<section id="\1"><h\2\3>\4' + anchor.format(r'\1') + r'</h\2>', body)
    body = re.sub(r'(class="source-link">.{0,20}</p>\s*<div class="code-copy-outer-scaffold)(">)', r'\1 signature\2', body)
    return body.replace('<!-- WARNING: THIS FILE WAS AUTOGENERATED! DO NOT EDIT! -->\n', '')

def linker(page: Page, pages: list, folder: Path, site: Path):
    "Make the function that turns the links of a notebook into links of its page"
    config = get_config()
    by_source = {other.source: other.href for other in pages}
    published = f'{config.doc_host}{config.doc_baseurl}/'

    def link(href, kind):
        if href.startswith(published): return page.up + href.removeprefix(published)
        if re.match(r'[a-z]+:|//|#|$', href): return href
        path, mark, anchor = href.partition('#')
        target = os.path.normpath(PurePosixPath(page.source).parent/path)
        if target in by_source: return page.up + by_source[target] + mark + anchor
        if (folder/target).is_file():  # a picture beside the notebooks
            (site/target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder/target, site/target)
            return page.up + target
        return href  # to nowhere, which the checks find
    return link

def fill(page: Page, pages: list, folder: Path, site: Path):
    "Write the body of a page, its headings, and what may be found in it"
    def ready(markdown): return without_badges(unlink_code(text(markdown)))
    for cell in page.notebook['cells']:
        if cell['cell_type'] == 'markdown': cell['source'] = ready(cell['source'])
        if cell['cell_type'] == 'code' and is_test(cell): cell['source'] = FOLDED + text(cell['source'])
        for output in cell.get('outputs', []):
            data = output.get('data', {})
            if 'text/markdown' in data: data['text/markdown'] = ready(data['text/markdown'])
    _, markdown = to_markdown(json.dumps(page.notebook))
    markdown = right_links(markdown, page.source, page.notebook)
    faults = [f'{page.source}: {message}' for _, message in scan(re.sub(r'^(`{3,}).*?^\1', '', markdown, flags=re.M | re.S))
              if 'LaTeX' not in message]
    if faults: sys.exit('\n'.join(faults))
    env = {'title': page.title, 'link': linker(page, pages, folder, site), 'symbols': {}, 'code_copy': True}
    page.body = render(markdown, env)
    if 'panel-tabset' in page.body or 'class="mermaid"' in page.body:
        sys.exit(f'{page.source}: tabs and mermaid need scripts this site does not have')
    page.body = finished(page, site)
    page.headings, page.search = env.get('headings', []), searched(page)


# --- What may be found

class Sections(HTMLParser):
    "Reader of a page's body, which puts words into rows: id, heading, prose, code"
    HEADS, SILENT = ('h2', 'h3', 'h4'), ('math', 'style', 'script')
    def __init__(self):
        super().__init__()
        self.rows, self.within, self.section = [['', [], [], []]], [], ''

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == 'section': self.section = given.get('id', '')
        if tag in self.HEADS: self.rows.append([given.get('id') or self.section, [], [], []])
        skip = tag in self.SILENT or given.get('class') in ('anchor', 'source-link')
        if tag in ('pre', 'a', *self.HEADS, *self.SILENT): self.within.append('' if skip else tag)

    def handle_endtag(self, tag):
        if tag in ('pre', 'a', *self.HEADS, *self.SILENT) and self.within: self.within.pop()

    def handle_data(self, data):
        if '' in self.within or not data.strip(): return
        place = 1 if any(tag in self.HEADS for tag in self.within) else 3 if 'pre' in self.within else 2
        self.rows[-1][place].append(data)

def searched(page: Page) -> list:  # [id, page, title of the page, heading, prose, code] of each section
    "List the sections of a page for the search, prose apart from code and what code prints"
    reader = Sections()
    reader.feed(page.body)
    reader.rows[0][2].insert(0, plain(page.description) + ' ')
    def joined(words): return ' '.join(''.join(words).split())
    return [[mark, page.href, plain(page.title), *map(joined, parts)] for mark, *parts in reader.rows]


# --- The page around it

def escape(value) -> str: return html.escape(str(value))

def inline(markdown: str) -> str:
    "Write a sentence of a title cell as HTML"
    return re.sub(r'^<p>|</p>\s*$', '', drawn_formulas(render(markdown, {'symbols': {}}).strip()))

def plain(markdown: str) -> str: return html.unescape(re.sub(r'<[^>]+>', '', inline(markdown)))

def sidebar(page: Page, pages: list) -> str:
    "List all pages in their groups"
    parts = []
    shown = within = None
    for other in pages:
        group, *step = other.group
        if group != shown: parts.append(f'{"</ol></section>" if shown else ""}<section><h2>{escape(group)}</h2><ol>')
        if step and step[0] != within: parts.append(f'<li class="step" role="presentation">{escape(step[0])}</li>')
        shown = group
        within = step[0] if step else None
        here = ' aria-current="page"' if other is page else ''
        number = f'<span class="number">{escape(other.number)}</span> ' if other.number else ''
        parts.append(f'<li><a href="{page.up}{other.href}"{here}>{number}{escape(other.title)}</a></li>')
    return ''.join(parts) + '</ol></section>'

def contents(page: Page) -> str:
    "List what stands on the page: sections, and names"
    rows = [head for head in page.headings if head['level'] in (2, 3)]
    def entry(head):
        words = head.get('html') or escape(head['text'])
        return f'<li class="level{head["level"]}"><a href="#{escape(head["id"])}">{words}</a></li>'
    links = ''.join(map(entry, rows))
    return f'<nav id="contents" aria-label="On this page"><h2>On this page</h2><ul>{links}</ul></nav>' if rows else '<div></div>'

def neighbours(page: Page, pages: list) -> str:
    "Link the page before and the page after"
    number = pages.index(page)
    def one(other, words, rel):
        return f'<a rel="{rel}" href="{page.up}{other.href}"><span>{words}</span> {escape(other.title)}</a>'
    before = one(pages[number - 1], 'Previous', 'prev') if number else '<span></span>'
    after = one(pages[number + 1], 'Next', 'next') if number + 1 < len(pages) else ''
    return f'<nav class="neighbours" aria-label="Previous and next page">{before}{after}</nav>'

@functools.cache
def template() -> str: return (ASSETS/'page.html').read_text()

def whole(page: Page, pages: list) -> str:
    "Fill the template with a page"
    config = get_config()
    title = config.title if page.href == 'index.html' else f'{plain(page.title)} – {config.title}'
    values = dict(title=escape(title), description=escape(plain(page.description)), up=page.up, site=escape(config.title),
                  repository=escape(config.git_url), heading=inline(page.title), body=page.body, source=escape(page.source),
                  number=f'<span class="number">{escape(page.number)}</span> ' if page.number else '',
                  lead=f'<p class="lead">{inline(page.description)}</p>' if page.description else '',
                  sidebar=sidebar(page, pages), contents=contents(page), neighbours=neighbours(page, pages),
                  notebook=escape(f'{config.git_url}/blob/{config.branch}/{config.nbs_path.name}/{page.source}'))
    return re.sub(r'\{\{(\w+)\}\}', lambda found: values[found[1]], template())

def write_site(
    cache: Path,  # The processed notebooks
    order: list,  # Their names, as in the sidebar
    site: Path,  # Where the pages go; what is there is replaced
) -> int:  # How many pages there are
    "Write all pages, and what they share"
    shutil.rmtree(site, ignore_errors=True)
    (site/'site').mkdir(parents=True)
    pages = read_pages(cache, order)
    for page in pages: fill(page, pages, get_config().nbs_path, site)
    for page in pages:
        (site/page.href).parent.mkdir(parents=True, exist_ok=True)
        (site/page.href).write_text(whole(page, pages))
    write_font(site/'site'/'math.woff')
    for asset in ASSETS.iterdir():
        if asset.suffix in ('.css', '.js', '.svg'): shutil.copy(asset, site/'site')
    found = json.dumps([row for page in pages for row in page.search], ensure_ascii=False)
    synonyms = json.dumps(yaml.safe_load((ASSETS/'synonyms.yml').read_text()), ensure_ascii=False)
    (site/'site'/'found.js').write_text(f'window.found = {found};\nwindow.synonyms = {synonyms};\n')
    (site/'.nojekyll').touch()
    return len(pages)
