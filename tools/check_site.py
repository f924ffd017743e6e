"""Check what must hold for every page of the site (after python tools/docs.py).

    python tools/check_site.py               # links, pictures, outputs and addresses, by reading the files
    python tools/check_site.py --browser     # the same, then each page in Chromium: wide and narrow, light and dark, and searches
    python tools/check_site.py --browser --screenshots DIR
"""
import argparse
import base64
import contextlib
import functools
import http.server
import json
import re
import runpy
import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
SIZES = {'desktop': (1280, 900), 'phone': (390, 844)}
WIDE_CODE = .05  # share of the lines of code that may be wider than their box, on pages that are no tutorials
SEARCHES = {  # what is typed, and where one of the first three finds must lead
    'recommend': 'recommender.html#recommender.recommend',
    'new user': 'experiments/new_user.html',
    'cold start': 'experiments/new_user.html',
    'install': 'index.html#install-and-work-on-it',
    'own data': 'tutorials/own_data.html',
    'quickstart': 'tutorials/ten_minutes.html',
    'RMSE': 'evaluation.html#metrics',
    'negative sampling': 'heads.html#sampled_log_prob',
    'attention': 'transformer.html#attention',
    'save model': 'saving.html',
    'GPU': 'tutorials/scaling.html',
    'docker': 'commands.html#docker'}
OPTIONS = ['headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking',
           'disable-component-update', 'disable-sync', 'disable-dev-shm-usage', 'no-proxy-server', 'hide-scrollbars']

def report(faults: list):
    "Stop with what is wrong, if anything is"
    if faults: sys.exit('faults of the site:\n' + '\n'.join(faults))


# --- By reading

def away(address: str) -> bool:
    "Say whether an address leads to another server"
    return bool(re.match(r'[a-z][a-z0-9+.-]*:|//', address, flags=re.I)) and not address.startswith('data:')

def page_faults(page: Path, ids: dict) -> list:
    "Find what is wrong with a page"
    soup = ids[page][1]
    found = []
    def target(address):
        file, _, anchor = unquote(address.split('?')[0]).partition('#')
        return (page.parent/file).resolve() if file else page, anchor
    for node in soup.select('a[href], area[href]'):
        if away(node['href']): continue
        file, anchor = target(node['href'])
        if file.is_dir(): file = file/'index.html'
        if not file.is_file(): found.append(f'a link to nowhere: {node["href"]}')
        elif anchor and anchor not in ids.get(file, ((), None))[0]: found.append(f'a link to no such place: {node["href"]}')
    for node in soup.select('[src], link[href], object[data]'):
        address = node.get('src') or node.get('href') or node.get('data')
        if away(address): found.append(f'something from elsewhere: {address}')
        elif not address.startswith('data:') and not target(address)[0].is_file(): found.append(f'a missing file: {address}')
    for node in soup.select('main img'):
        if (node.get('alt') or '').strip(): continue
        found.append(f'a picture without words for those who cannot see it: {node.get("src", "")[:60]}')
    for node in soup.select('main svg'):
        words = node.get('aria-label') or node.get('aria-hidden') or node.find('title') or node.get('alt')
        if not words: found.append('a drawing without words')
    for node in soup.select('.cell-output-error'): found.append(f'an error: {node.get_text().strip()[:80]!r}')
    for node in soup.select('.cell-output'):
        traceback = 'Traceback (most recent call last)' in node.get_text()
        if traceback and 'cell-output-error' not in node['class']: found.append('a traceback')
    marks = [node['id'] for node in soup.select('[id]')]
    found += [f'two places with the id {mark}' for mark in sorted({mark for mark in marks if marks.count(mark) > 1})]
    if not soup.title or not soup.title.get_text().strip() or len(soup.select('h1')) != 1:
        found.append('not one title and one first heading')
    return found

def static_faults(site: Path) -> list:  # One line for each
    "Find what is wrong with the pages by reading their files"
    soups = {page.resolve(): BeautifulSoup(page.read_text(), 'html.parser') for page in sorted(site.rglob('*.html'))}
    if not soups: return [f'no pages in {site}']
    ids = {page: ({node['id'] for node in soup.select('[id]')}, soup) for page, soup in soups.items()}
    found = [f'{page.relative_to(site.resolve())}: {fault}' for page in ids for fault in page_faults(page, ids)]
    elsewhere = re.compile(r'(?:url\(|@import\s+)["\']?((?:https?:)?//[^"\')\s]+)')
    for style in site.rglob('*.css'):
        found += [f'{style.name}: something from elsewhere: {address}' for address in elsewhere.findall(style.read_text())]
    return found

def missing_names(site: Path) -> list:  # One line for each
    "Find public functions, classes and methods without a heading of their own, and those that the search does not know"
    index = runpy.run_path(str(ROOT/'bst_nbdev'/'_modidx.py'))['d']['syms']
    searched = (site/'site'/'found.js').read_text()
    ids, found = {}, []
    for module, names in index.items():
        for name, (address, _) in names.items():
            short = name.removeprefix(f'{module}.')
            if any(part.startswith('_') for part in short.split('.')): continue
            page, _, anchor = address.partition('#')
            if page not in ids: ids[page] = re.findall(r'<h[2-4] id="([^"]*)"|<section id="([^"]*)"', (site/page).read_text())
            if not any(anchor in pair for pair in ids[page]): found.append(f'{page}: no heading for {short}')
            elif f'["{anchor}", "{page}"' not in searched: found.append(f'{page}: the search does not know {short}')
    return found


# --- By looking

class Quiet(http.server.SimpleHTTPRequestHandler):
    "A server that says nothing"
    def log_message(self, *values): pass

@contextlib.contextmanager
def served(site: Path):
    "Serve the site to this machine only, and yield its address"
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}/'
    finally:
        server.shutdown()
        server.server_close()

@contextlib.contextmanager
def chromium():
    "Start a browser with a profile of its own"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    browser, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not (browser and driver): sys.exit('no browser: apt-get install chromium chromium-driver')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for option in [*OPTIONS, f'user-data-dir={folder}']: options.add_argument(f'--{option}')
        options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
        found = webdriver.Chrome(options, Service(driver))
        try: yield found
        finally: found.quit()

PICTURES = '''
for (const image of document.images) image.loading = 'eager';
Promise.all([...document.images].map(image => image.decode().catch(() => 0))).then(arguments[0]);
'''
LOOK = '''
const wide = document.documentElement.scrollWidth - innerWidth, seen = [];
if (wide > 0) {
    for (const node of document.querySelectorAll('main *')) {
        if (node.getBoundingClientRect().right <= innerWidth + 1 || node.closest('pre, .scroll, math')) continue;
        seen.push(node.outerHTML.slice(0, 80));
        if (seen.length > 2) break;
    }
}
const broken = [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src);
return [wide, seen, broken, getComputedStyle(document.body).backgroundColor];
'''
CODE = '''
let lines = 0, long = 0;
for (const box of document.querySelectorAll('main :not(.signature) > div.sourceCode pre')) {
    for (const folded of document.querySelectorAll('details.code-fold')) folded.open = true;
    const style = getComputedStyle(box), text = box.textContent.replace(/\\n$/, '').split('\\n');
    const ruler = Object.assign(document.createElement('span'), {textContent: '0'.repeat(100)});
    box.firstElementChild.append(ruler);
    const letter = ruler.getBoundingClientRect().width / 100;
    ruler.remove();
    const room = box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    lines += text.length;
    long += text.filter(line => line.length * letter > room + 1).length;
}
for (const folded of document.querySelectorAll('details.code-fold')) folded.open = false;
return [lines, long];
'''
RANKED = '''
const found = rank(arguments[0], window.found, window.synonyms);
return found.slice(0, 3).map(({row: [id, href]}) => id ? `${href}#${id}` : href);
'''

def seen_faults(browser, address: str, ground: str, name: str) -> list:
    "Find what is wrong with the page that the browser shows"
    wide, nodes, broken, colour = browser.execute_script(LOOK)
    found = [f'scrolls sideways by {wide} pixels: {nodes}'] if wide > 0 else []
    found += [f'a picture that does not show: {source}' for source in broken]
    light = sum(int(part) for part in re.findall(r'\d+', colour)[:3]) > 382
    if light != (ground == 'light'): found.append(f'{colour} is not {ground}')
    complaints = [line for line in browser.get_log('browser') if line['level'] in ('WARNING', 'SEVERE')]
    found += [f"the browser says: {line['message']}" for line in complaints]
    for line in browser.get_log('performance'):
        message = json.loads(line['message'])['message']
        if message['method'] != 'Network.requestWillBeSent': continue
        url = message['params']['request']['url']
        if not url.startswith((address, 'data:', 'blob:', 'about:', 'chrome')): found.append(f'asks for {url}')
    return [f'{name}: {fault}' for fault in found]

def browser_faults(
    site: Path,  # The site
    pictures: Path = None,  # Where screenshots go, if anywhere
) -> list:  # One line for each
    "Find what is wrong with the pages in a browser, at a desk and on a phone"
    with served(site) as address, ThreadPoolExecutor(len(SIZES)) as two:
        return sum(two.map(lambda size: faults_at(size, site, address, pictures), SIZES), [])

def code_faults(counts: dict) -> list:  # Lines of code and those that are too wide, by page
    "Find code that has to be scrolled sideways: none in tutorials, and few lines elsewhere"
    tutorials = {name for name in counts if name.startswith('tutorials/')}
    wider = 'lines of code are wider than their box'
    found = [f'{name}: {counts[name][1]} {wider}' for name in sorted(tutorials) if counts[name][1]]
    lines, long = map(sum, zip((0, 0), *(count for name, count in counts.items() if name not in tutorials)))
    if long > WIDE_CODE * lines: found.append(f'{long} of {lines} {wider}, at most {WIDE_CODE:.0%} may be')
    return found

def search_faults(site: Path, searches: dict = SEARCHES) -> list:  # One line for each
    "Find searches that do not lead where they should, ranked by the script of the page"
    found = []
    with served(site) as address, chromium() as browser:
        browser.get(f'{address}index.html')
        browser.execute_async_script("const done = arguments[0]; load().then(() => done())")
        for query, wanted in searches.items():
            first = browser.execute_script(RANKED, query)
            if wanted in first: continue
            found.append(f'the search for {query!r} leads to {", ".join(first) or "nothing"}, not to {wanted}')
    return found

def faults_at(size: str, site: Path, address: str, pictures: Path) -> list:
    "Find what is wrong with the pages at one of `SIZES`, light and dark"
    faults, counts = [], {}
    width, height = SIZES[size]
    with chromium() as browser:
        window = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
        browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', window)
        for page in sorted(site.rglob('*.html')):
            name = page.relative_to(site).as_posix()
            prefer(browser, 'light')
            browser.get(address + name)
            browser.execute_async_script(PICTURES)
            counts[name] = browser.execute_script(CODE)
            for ground in ('light', 'dark'):
                prefer(browser, ground)
                faults += seen_faults(browser, address, ground, f'{name} ({size}, {ground})')
                if not pictures: continue
                screenshot(browser, pictures/f"{name.removesuffix('.html').replace('/', '-')}-{size}-{ground}.png")
    return faults + (code_faults(counts) if size == 'desktop' else [])

def prefer(browser, ground: str):
    "Let the browser act as if the machine were set to light or dark"
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=ground)]))

def screenshot(browser, file: Path):
    "Write the whole page as a picture"
    file.parent.mkdir(parents=True, exist_ok=True)
    taken = browser.execute_cdp_cmd('Page.captureScreenshot', dict(format='png', captureBeyondViewport=True))
    file.write_bytes(base64.b64decode(taken['data']))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('site', nargs='?', type=Path, default=ROOT/'_docs', help='The site (default: _docs)')
    parser.add_argument('--browser', action='store_true', help='Look at every page in Chromium')
    parser.add_argument('--screenshots', type=Path, help='Keep pictures of every page in this folder')
    args = parser.parse_args()
    faults = static_faults(args.site)
    if args.browser or args.screenshots: faults += search_faults(args.site) + browser_faults(args.site, args.screenshots)
    report(faults)
    print('no faults')

if __name__ == '__main__': main()
