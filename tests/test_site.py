"""The site: what its checks see, by breaking a small one in each way, and what a reader can do on a page.

The site itself is built and checked by `python tools/docs.py` and `python tools/check_site.py --browser`. Needs the dev extra; what needs a
browser is skipped without one, but not where CI is set.
"""
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
pytest.importorskip('nbdev')
pages, check_site = pytest.importorskip('pages'), pytest.importorskip('check_site')
BROWSER = bool(shutil.which('chromium') and shutil.which('chromedriver'))
looks = pytest.mark.skipif(not BROWSER and not os.environ.get('CI'), reason='no browser: apt-get install chromium chromium-driver')

# One grey pixel
PICTURE = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=='

def notebook(title, *cells):
    "What nbdev leaves of a notebook"
    front = f'---\ndescription: About {title}\noutput-file: {title}.html\ntitle: {title}\n---\n'
    raw = [dict(cell_type='raw', metadata={}, source=front)]
    return dict(cells=raw + list(cells), metadata=dict(kernelspec=dict(language='python')), nbformat=4, nbformat_minor=5)

def markdown(source): return dict(cell_type='markdown', metadata={}, source=source)
def code(source, *outputs): return dict(cell_type='code', metadata={}, source=source, outputs=list(outputs), execution_count=None)
def shown(**kinds): return dict(output_type='display_data', metadata={}, data={name.replace('_', '/'): value for name, value in kinds.items()})

GOOD = [markdown('## Formulas\n\nWith $\\sqrt{d}$ and\n\n$$\\mathrm{softmax}(-\\infty)$$\n\n| a | b |\n|---|---|\n| ' + 'wide' * 99 + ' | 2 |'),
        markdown('## Links\n\n[to the other](01_two.ipynb#names) and [here](#formulas), [![A badge](https://example.org/b.svg)](https://example.org)'),
        code('#| fig-alt: A grey spot\nplot(' + '1234567890, ' * 40 + ')', shown(image_png=PICTURE)), code('1 + 1', shown(text_plain='2'))]
OTHER = [markdown('## Names\n\nOf a xylophone and of others')]

def make(folder, *first):
    "A site of two pages, the first with these cells"
    cache, site = folder/'cache', folder/'site'
    cache.mkdir(parents=True, exist_ok=True)
    (cache/'index.ipynb').write_text(json.dumps(notebook('index', *first)))
    (cache/'01_two.ipynb').write_text(json.dumps(notebook('two', *OTHER)))
    assert pages.write_site(cache, ['index.ipynb', '01_two.ipynb'], site) == 2
    return site

@pytest.fixture(scope='module')
def good(tmp_path_factory): return make(tmp_path_factory.mktemp('good'), *GOOD)

def test_a_good_site_has_no_faults(good): assert check_site.static_faults(good) == []

BROKEN = {
    'dead link': (markdown('[x](nowhere.ipynb)'), 'a link to nowhere: nowhere.ipynb'),
    'dead anchor': (markdown('[x](01_two.ipynb#other)'), 'a link to no such place: two.html#other'),
    'dead anchor here': (markdown('[x](#other)'), 'a link to no such place: #other'),
    'error': (code('1/0', dict(output_type='error', ename='ZeroDivisionError', evalue='division', traceback=[])), "an error: 'ZeroDivisionError: division'"),
    'traceback': (code('f()', dict(output_type='stream', name='stderr', text='Traceback (most recent call last)\n')), 'a traceback'),
    'missing picture': (markdown('![Words](images/none.png)'), 'a missing file: images/none.png'),
    'picture without words': (code('plot()', shown(image_png=PICTURE)), 'a picture without words'),
    'drawing without words': (code('plot()', shown(**{'image_svg+xml': '<svg></svg>'})), 'a drawing without words'),
    'picture from elsewhere': (markdown('![Words](https://example.org/a.png)'), 'something from elsewhere: https://example.org/a.png'),
    'script from elsewhere': (code('x', shown(text_html='<script src="//example.org/a.js"></script>')), 'something from elsewhere: //example.org/a.js'),
    'two ids': (code('x', shown(text_html='<p id="a"></p><p id="a"></p>')), 'two places with the id a'),
    'two first headings': (code('x', shown(text_html='<h1>Another</h1>')), 'not one title and one first heading'),
}

@pytest.mark.parametrize('cell, fault', BROKEN.values(), ids=BROKEN)
def test_reading_sees(cell, fault, tmp_path):
    found = check_site.static_faults(make(tmp_path, cell))
    assert len(found) == 1 and found[0].startswith(f'index.html: {fault}')

def test_reading_sees_styles_and_an_empty_site(good, tmp_path):
    assert check_site.static_faults(tmp_path) == [f'no pages in {tmp_path}']
    site = shutil.copytree(good, tmp_path/'site')
    (site/'site'/'site.css').write_text('@import url("https://example.org/a.css");')
    assert check_site.static_faults(site) == ['site.css: something from elsewhere: https://example.org/a.css']

def test_reading_sees_names_without_a_heading(good, tmp_path, monkeypatch):
    (tmp_path/'bst_nbdev').mkdir()
    names = {'bst_nbdev.two.names': ('two.html#names', ''), 'bst_nbdev.two._hidden': ('two.html#_hidden', ''),
             'bst_nbdev.two.Lost.found': ('two.html#lost.found', '')}
    (tmp_path/'bst_nbdev'/'_modidx.py').write_text(f"d = {dict(syms={'bst_nbdev.two': names})}")
    monkeypatch.setattr(check_site, 'ROOT', tmp_path)
    assert check_site.missing_names(good) == ['two.html: no heading for Lost.found']

def test_what_is_not_understood_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'\\notacommand'): make(tmp_path, markdown('$\\notacommand{x}$'))
    with pytest.raises(SystemExit, match='tabs and mermaid'): make(tmp_path, markdown('::: {.panel-tabset}\n## a\n\nb\n:::'))
    two = [notebook('same'), notebook('same')]
    for name, cells in zip(('a.ipynb', 'b.ipynb'), two): (tmp_path/name).write_text(json.dumps(cells))
    with pytest.raises(SystemExit, match='same page name'): pages.read_pages(tmp_path, ['a.ipynb', 'b.ipynb'])

def test_formulas():
    assert '<mi>softmax</mi>' in pages.mathml(r'\mathrm{softmax}', 'inline') and '<msqrt>' in pages.mathml(r'\sqrt{d}', 'inline')
    assert '⌊' in pages.html.unescape(pages.mathml(r'\Big\lfloor x \Big\rfloor', 'display'))
    assert 'display="block"' in pages.mathml('x', 'display')

TOLD = {  # page, name in backticks, and where it must lead
    'tutorials/ten_minutes.ipynb': [('predict', 'recommender.html#predictor.predict'), ('train', 'pipeline.html#train')],
    '10a_recommender.ipynb': [('predict', 'recommender.html#predictor.predict'), ('load', 'recommender.html#recommender.load')],
    '01b_prepared.ipynb': [('load', 'prepared.html#load')],
    '07_training.ipynb': [('fit', 'training.html#fit'), ('predict', 'training.html#predict')],
    '06_bst.ipynb': [('attention', 'bst.html#bst.attention')],
    '06a_two_stream.ipynb': [('attention', 'two_stream.html#twostreambst.attention')],
    '05a_model.ipynb': [('attention', 'model.html#sequencemodel.attention')]}

@pytest.mark.parametrize('source', TOLD)
def test_names_in_backticks_lead_to_what_they_mean(source):
    "Functions and methods of one name: nbdev knows the functions only"
    from nbdev.doclinks import NbdevLookup
    linkify = NbdevLookup().linkify
    for name, wanted in TOLD[source]:
        for written in f'`{name}`', f'`{name}()`':
            assert f'/{wanted})' in pages.right_links(linkify(f'See {written}.'), source, {}), (source, written)

def test_links_without_a_second_meaning_stay():
    from nbdev.doclinks import NbdevLookup
    line = NbdevLookup().linkify('`save_run`, and [a page](x.html)')
    assert pages.right_links(line, '10a_recommender.ipynb', {}) == line

def test_cells_of_tests_are_folded():
    three = 'assert 1\nassert 2\ntest_eq(1, 1)'
    assert pages.is_test(code(three)) and pages.is_test(code(f'x = 1\nfor y in range(3):\n    assert y\n{three}'))
    for source in 'assert 1\nassert 2', f'a = 1\nb = 2\nc = 3\nd = 4\n{three}', '%pip install x', f'#| code-fold: true\n{three}':
        assert not pages.is_test(code(source))
    assert not pages.is_test(code(three, shown(text_plain='2')))          # there is something to look at

def test_tests_fold_under_a_line(tmp_path):
    body = (make(tmp_path, code('assert 1\nassert 2\nassert 3'), code('x = 1'))/'index.html').read_text()
    assert body.count('<summary>Tests</summary>') == 1

def test_tables():
    frame = '<table border="1" class="dataframe"><tr><td>0.5929 ± 0.0044</td><td>' + 'long ' * 30 + '</td></tr></table>'
    page = pages.Page('a.ipynb', 'a.html', 'a', '', {}, body=frame + frame.replace(' class="dataframe"', '') + '<pre>1 ± 2</pre>')
    body = pages.finished(page, Path('.'))
    assert 'border=' not in body and body.count('0.5929\u00a0±\u00a00.0044') == 2 and '<pre>1 ± 2</pre>' in body
    assert body.count('class="words"') == 1                                # rows as paragraphs on a phone, but not of numbers
    row = '<tr>' + '<td>a</td>' * 3 + '<td>{}</td></tr>'
    assert 'class="details table"' in pages.marked_table(f'<table class="table">{row.format("long " * 30)}</table>')
    assert 'details' not in pages.marked_table(f'<table class="table">{row.format("short")}</table>')

def test_what_is_searched_keeps_prose_and_code_apart(good):
    text = (good/'site'/'found.js').read_text().splitlines()
    found = json.loads(text[0].removeprefix('window.found = ').rstrip(';'))
    assert ['names', 'two.html', 'two', 'Names', 'Of a xylophone and of others', ''] in found
    formulas = next(row for row in found if row[0] == 'links')
    assert 'to the other and here' in formulas[4] and 'plot(' in formulas[5] and 'plot(' not in formulas[4]
    assert 'quickstart' in json.loads(text[1].removeprefix('window.synonyms = ').rstrip(';'))

def test_tutorials_come_first_in_the_order_of_reading():
    sources = ['00_core', 'tutorials/week', 'experiments/results', 'index', 'glossary', 'tutorials/own_data', '04_transformer', 'tutorials/ten_minutes']
    found = [pages.Page(f'{source}.ipynb', f'{source}.html', source, '', {}) for source in sources]
    assert [page.source.removesuffix('.ipynb') for page in sorted(found, key=lambda page: page.place)] == \
        ['index', 'tutorials/ten_minutes', 'tutorials/own_data', 'tutorials/week', '00_core', '04_transformer', 'experiments/results', 'glossary']

def test_pages_stand_in_their_groups():
    group = lambda source, href='x.html': pages.Page(source, href, 'x', '', {}).group
    assert group('index.ipynb', 'index.html') == ('Home',) and group('tutorials/a.ipynb') == ('Tutorials',)
    assert group('00a_sample.ipynb') == ('The model step by step', 'The data') and group('glossary.ipynb') == ('For reference',)
    assert group('06b_presets.ipynb')[1] == 'The network' and group('12_service.ipynb')[1] == 'Using it'


# --- In a browser

@looks
def test_looking_finds_nothing_wrong_with_a_good_site_but_its_long_line(good):
    assert check_site.browser_faults(good) == ['1 of 2 lines of code are wider than their box, at most 5% may be']

SEEN = {
    'sideways': ('<div style="width: 2000px">wide</div>', 'scrolls sideways by'),
    'console': ('<script>console.error("oh no")</script>', 'the browser says:'),
    'exception': ('<script>throw Error("oh no")</script>', 'the browser says:'),
    'from elsewhere': ('<script>fetch("http://127.0.0.1:9/x").catch(() => 0)</script>', 'asks for http://127.0.0.1:9/x'),
    'white in the dark': ('<style>body { background: white !important }</style>', 'rgb(255, 255, 255) is not dark'),
    'broken picture': ('<img alt="Words" src="data:image/png;base64,AAAA">', 'a picture that does not show'),
}

@looks
def test_looking_sees(tmp_path):
    cells = [code(name, shown(text_html=text)) for name, (text, _) in SEEN.items()]
    found = check_site.browser_faults(make(tmp_path, *cells))
    for name, (_, fault) in SEEN.items(): assert any(fault in line for line in found), (name, found)
    assert all(line.startswith('index.html') for line in found)

def test_code_must_fit():
    assert check_site.code_faults({'tutorials/a.html': [100, 0], 'b.html': [100, 9], 'c.html': [100, 0]}) == []
    assert check_site.code_faults({'tutorials/a.html': [100, 1], 'b.html': [100, 11], 'c.html': [100, 0]}) == [
        'tutorials/a.html: 1 lines of code are wider than their box', '11 of 200 lines of code are wider than their box, at most 5% may be']

@looks
def test_searches_are_checked_as_the_page_ranks_them(good):
    searches = {'xylophone': 'two.html#names', 'two': 'two.html', 'formulas': 'index.html#formulas'}
    assert check_site.search_faults(good, searches) == []
    assert check_site.search_faults(good, {'plot': 'two.html'}) == ["the search for 'plot' leads to index.html#links, not to two.html"]

@pytest.fixture(scope='module')
def browser():
    with check_site.chromium() as found: yield found

def show(browser, site, size='desktop'):
    "The first page, from the disk"
    width, height = check_site.SIZES[size]
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=height, deviceScaleFactor=1, mobile=False))
    browser.get((site/'index.html').as_uri())

def until(browser, script):
    from selenium.webdriver.support.ui import WebDriverWait
    return WebDriverWait(browser, 20, .05).until(lambda _: browser.execute_script(f'return {script}'))

def press(browser, *keys):
    from selenium.webdriver import ActionChains
    ActionChains(browser).send_keys(*keys).perform()

@looks
def test_search_works_from_a_disk_and_by_keyboard(browser, good):
    from selenium.webdriver import Keys
    show(browser, good)
    press(browser, '/')
    press(browser, 'xylophone')
    assert until(browser, 'document.querySelector("#hits [role=option]")?.textContent').startswith('Names · twoOf a xylophone')
    press(browser, Keys.ENTER)
    until(browser, 'location.pathname.endsWith("two.html") && location.hash === "#names"')
    show(browser, good)
    press(browser, '/')
    press(browser, '<img src=x>')
    assert until(browser, 'document.querySelector("#hits .none")?.textContent') == 'Nothing found'
    press(browser, Keys.ESCAPE)
    until(browser, 'document.querySelector("#hits").hidden')

@looks
def test_light_or_dark_is_remembered(browser, good):
    show(browser, good)
    ground = 'getComputedStyle(document.documentElement).colorScheme'
    before = browser.execute_script(f'return {ground}')
    browser.execute_script('document.querySelector("#theme").click()')
    after = browser.execute_script(f'return {ground}')
    assert {before, after} == {'light', 'dark'}
    browser.refresh()
    assert browser.execute_script(f'return {ground}') == after
    browser.execute_script('localStorage.clear()')

@looks
def test_pages_fold_away_on_a_phone(browser, good):
    from selenium.webdriver import Keys
    show(browser, good, 'phone')
    seen = 'getComputedStyle(document.querySelector("#pages")).visibility === "visible"'
    assert not browser.execute_script(f'return {seen}')
    browser.execute_script('document.querySelector("#menu").click()')
    until(browser, seen)
    press(browser, Keys.ESCAPE)
    until(browser, f'!({seen})')
    assert browser.execute_script('return document.activeElement.id') == 'menu'

@looks
def test_what_is_wide_can_be_scrolled_by_keyboard(browser, good):
    show(browser, good, 'phone')
    assert browser.execute_script('return [...document.querySelectorAll("main pre, main .scroll")].map(node => [node.tabIndex === 0, node.scrollWidth > node.clientWidth + 1])') \
        == [[True, True], [True, True], [False, False], [False, False]]

@looks
def test_tab_begins_with_a_way_past_the_bar(browser, good):
    from selenium.webdriver import Keys
    show(browser, good)
    press(browser, Keys.TAB)
    assert browser.execute_script('return document.activeElement.textContent') == 'Skip to the page'
