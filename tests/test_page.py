"""The page of the service in a real browser: what somebody with a mouse, a keyboard or a phone sees of it.

Needs Debian's chromium and chromium-driver, which start here by themselves; without them these tests are skipped, but not where CI is set.
"""
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import pytest

BROWSER, DRIVER = shutil.which('chromium'), shutil.which('chromedriver')
MISSING = 'no browser to test the page with: apt-get install chromium chromium-driver'
if not (BROWSER and DRIVER) and not os.environ.get('CI'): pytest.skip(MISSING, allow_module_level=True)

from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

COLLECTIVE_TIMEOUT = 30  # seconds that anything on the page may take
OPTIONS = ['headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking',
           'disable-component-update', 'disable-sync', 'disable-dev-shm-usage', 'no-proxy-server']
SERVE = 'import sys; from bst_nbdev.cli import bst_serve; sys.exit(bst_serve())'
DESKTOP, PHONE = (1280, 900), (360, 740)


# --- A service and a browser

@pytest.fixture(scope='module')
def address(tmp_path_factory):
    "Where a service with a small model listens"
    if not (BROWSER and DRIVER): pytest.fail(MISSING)
    from bst_nbdev.pipeline import Recipe, save_run, train
    folder = tmp_path_factory.mktemp('page')
    save_run(train(Recipe(protocol='leave-last-out', epochs=1), device='cpu'), folder/'run')
    with open(folder/'errors.txt', 'w') as errors:
        command = [sys.executable, '-c', SERVE, '--model', str(folder/'run'), '--port', '0', '--device', 'cpu', '--threads', '1']
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            said = next((found[1] for line in server.stdout if (found := re.search(r'look at (http://\S+)/', line))), None)
            assert said, (folder/'errors.txt').read_text()
            yield said
        finally:
            server.terminate()
            try: server.wait(20)
            except subprocess.TimeoutExpired: server.kill()
            server.stdout.close()

@pytest.fixture(scope='module')
def browser(address, tmp_path_factory):
    "A browser of its own, when the service answers"
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for option in [*OPTIONS, f"user-data-dir={tmp_path_factory.mktemp('browser')}"]: options.add_argument(f'--{option}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    found = webdriver.Chrome(options, Service(DRIVER))
    try:
        WebDriverWait(found, COLLECTIVE_TIMEOUT).until(lambda _: answers(address))
        yield found
    finally: found.quit()

def fetch(address, path):
    "What the service answers, past any proxy"
    with build_opener(ProxyHandler({})).open(address + path, timeout=COLLECTIVE_TIMEOUT) as answer: return json.load(answer)

def answers(address):
    "Whether the service answers yet"
    try: return fetch(address, '/health')['status'] == 'ok'
    except OSError: return False

class Page:
    "The page as somebody sees it"
    def __init__(self, browser, address): self.browser, self.address = browser, address

    def wait(self, condition, message=''):
        "Until something is so"
        return WebDriverWait(self.browser, COLLECTIVE_TIMEOUT, .05).until(lambda _: condition(), message)

    def run(self, script, *values): return self.browser.execute_script(script, *values)

    def size(self, width, height):
        "As wide and high as this"
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)

    def open(self):
        "Load the page, until it can be used"
        self.browser.get(self.address)
        self.wait(lambda: not self.run('return document.getElementById("main").inert'), 'the page did not start')

    def all(self, selector): return self.browser.find_elements(By.CSS_SELECTOR, selector)
    def one(self, selector): return self.browser.find_element(By.CSS_SELECTOR, selector)
    def texts(self, selector):
        "The text of each, all at once, hidden parts too"
        return self.run('return [...document.querySelectorAll(arguments[0])].map(node => node.textContent)', selector)

    def press(self, *keys):
        "Keys, to whatever has the focus"
        ActionChains(self.browser).send_keys(*keys).perform()

    def focus(self, script): return self.run(f'return document.activeElement.{script}')

    def rate(self, row, rating):
        "Click on a star"
        self.all(f'#films li:nth-child({row}) label')[rating - 1].click()

    def listed(self):
        "The titles in the list, as soon as there are any"
        return self.wait(lambda: self.texts('#list .film > .name'), 'no list')

    def changed(self, before):
        "What the list holds once it differs"
        return self.wait(lambda: (now := self.texts('#list .film')) != before and now, 'the list stayed as it was')

    def rated(self):
        "Titles of the rows with a rating"
        return self.run('return [...document.querySelectorAll("#films li")].filter(row => row.querySelector(":checked"))'
                        '.map(row => row.querySelector(".name").firstChild.textContent)')

    def kept(self):
        "What the browser keeps"
        return self.run('return JSON.parse(localStorage.getItem("ratings of sample"))')

    def complaints(self):
        "What the browser's console says"
        return [line for line in self.browser.get_log('browser') if line['level'] in ('WARNING', 'SEVERE')]

    def picture(self, name):
        "Keep a picture, if somebody asked for it"
        if not (folder := os.environ.get('PAGE_SCREENSHOTS')): return
        Path(folder).mkdir(parents=True, exist_ok=True)
        taken = self.browser.execute_cdp_cmd('Page.captureScreenshot', dict(format='png', captureBeyondViewport=True))
        Path(folder, f'{name}.png').write_bytes(base64.b64decode(taken['data']))

@pytest.fixture
def page(browser, address):
    "The page, fresh"
    browser.get('about:blank')  # so that the page of the test before can neither keep nor complain any more
    browser.execute_cdp_cmd('Storage.clearDataForOrigin', dict(origin=address, storageTypes='all'))
    found = Page(browser, address)
    found.size(*DESKTOP)
    found.complaints()
    found.open()
    return found

@pytest.fixture
def before_load(browser):
    "Scripts that run before those of the page"
    taken = []
    def add(source): taken.append(browser.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument', dict(source=source))['identifier'])
    yield add
    for identifier in taken: browser.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument', dict(identifier=identifier))


# --- As it should be

@pytest.mark.parametrize('size', [DESKTOP, PHONE], ids=['desktop', 'phone'])
def test_loads_without_complaint_and_fits(page, size):
    fits = lambda: page.run('return document.documentElement.scrollWidth <= innerWidth')
    page.size(*size)
    page.open()
    assert len(page.all('#films li')) == 8 and not page.all('#list li') and fits()
    for row, rating in enumerate([5, 4, 2], 1): page.rate(row, rating)
    page.wait(lambda: page.one('#count').text == '3 films rated')
    assert len(page.listed()) == 10
    page.one('#list .film').click()
    page.wait(lambda: len(page.all('.effects li')) == 3)
    page.picture('desktop' if size == DESKTOP else 'phone')
    assert fits() and page.complaints() == []

def test_asks_nobody_else(page, address):
    page.rate(1, 5)
    page.listed()
    names = page.run('return performance.getEntriesByType("resource").map(entry => entry.name)')
    assert {urlsplit(name).netloc for name in names} == {urlsplit(address).netloc}
    assert {'/page/page.js', '/page/page.css', '/health', '/items', '/recommend'} <= {urlsplit(name).path for name in names}

def test_works_by_keyboard_alone(page, address):
    film = fetch(address, '/items?limit=100')['items'][-1]  # not one of those shown at the start
    page.press(Keys.TAB)
    assert page.focus('id') == 'find'
    page.press(film['title'])
    page.wait(lambda: page.texts('#options li'))
    assert page.focus('ariaExpanded') == 'true' and page.focus('getAttribute("aria-activedescendant")') is None
    page.press(Keys.ARROW_DOWN)
    assert page.focus('getAttribute("aria-activedescendant")') == 'option-0'
    assert page.one('#option-0').get_attribute('aria-selected') == 'true'
    page.press(Keys.ENTER)
    assert page.focus('name') == f"rating-{film['item']}" and not page.texts('#options li')
    page.press(Keys.SPACE, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.wait(lambda: page.kept() == [[film['item'], 3]])
    page.listed()
    page.run('document.querySelector("#list .film").focus()')
    page.press(Keys.ENTER)
    page.wait(lambda: len(page.texts('.effects li')) == 1)
    assert page.focus('ariaExpanded') == 'true'

def test_escape_closes_then_clears_the_search(page):
    page.press(Keys.TAB, 'pa')
    page.wait(lambda: len(page.texts('#options li')) > 1)
    page.press(Keys.ARROW_UP, Keys.ESCAPE)
    assert page.focus('ariaExpanded') == 'false' and page.focus('value') == 'pa'
    page.press(Keys.ESCAPE)
    assert page.focus('value') == ''
    page.press('qqqqqqqq')
    page.wait(lambda: page.texts('#found') == ['No film fits “qqqqqqqq”.'])

def test_the_list_leaves_out_what_was_rated(page):
    page.rate(1, 5)
    first = page.listed()[0]
    page.one('#list .film').click()
    page.wait(lambda: page.all('.effects li'))
    page.one('.why button').click()
    assert page.one('#films li .name').text.startswith(first) and page.focus('type') == 'radio'
    page.press(Keys.SPACE)
    page.wait(lambda: first not in page.texts('#list .film > .name'))
    assert not set(page.rated()) & set(page.listed()) and first in page.rated()

def test_a_new_rating_makes_a_new_list(page):
    page.rate(1, 5)
    page.listed()
    before = page.texts('#list .film')
    page.rate(1, 1)
    after = page.changed(before)
    page.rate(2, 4)
    page.changed(after)
    assert [rating for _, rating in page.kept()] == [1, 4]

def test_a_rating_can_be_removed(page):
    page.rate(1, 5), page.rate(2, 1)
    page.wait(lambda: page.one('#count').text == '2 films rated' and page.listed())
    (removed, stays), before = page.rated(), page.texts('#list .film')
    page.one('#films .remove').click()
    assert page.rated() == [stays] and removed not in ''.join(page.texts('#films li')) and page.focus('className') == 'remove'
    page.changed(before)
    assert len(page.kept()) == 1

def test_says_why(page):
    for row, rating in enumerate([5, 1, 3], 1): page.rate(row, rating)
    page.wait(lambda: page.one('#count').text == '3 films rated' and page.listed())
    page.one('#list .film').click()
    page.wait(lambda: len(page.all('.effects li')) == 3)
    told = page.run('return [...document.querySelectorAll(".effects .name")].map(node => node.firstChild.textContent)')
    assert set(told) == set(page.rated())
    numbers, sides = page.texts('.effects .number'), [bar.get_attribute('class') for bar in page.all('.effects .bar')]
    assert sides == ['bar down' if number[0] == '−' else 'bar up' for number in numbers]
    sizes = [float(number[1:]) for number in numbers]
    assert sizes == sorted(sizes, reverse=True)
    assert page.one('.effects .bar').size['width'] > 20 and len(page.all('.chances .bar')) == 5
    assert abs(sum(map(int, page.texts('.chances .number'))) - 100) <= 3
    page.one('#list .film').click()
    assert not page.all('.why') and page.one('#list .film').get_attribute('aria-expanded') == 'false'

def test_ratings_survive_a_reload(page):
    page.rate(1, 5), page.rate(3, 2)
    page.wait(lambda: len(page.listed()) and page.one('#count').text == '2 films rated')
    rated, kept = page.rated(), page.kept()
    page.open()
    assert sorted(page.rated()) == sorted(rated) and page.kept() == kept and page.listed()

def test_starts_again_and_brings_back(page):
    page.rate(1, 5), page.rate(2, 4)
    page.listed()
    kept = page.kept()
    page.one('#again').click()
    assert page.rated() == [] and page.texts('#list li') == [] and page.kept() == []
    page.one('#again').click()
    assert page.kept() == kept and len(page.rated()) == 2 and page.listed()
    page.one('#again').click()
    page.open()
    assert page.rated() == [] and page.kept() == []

def test_filters_change_the_list(page):
    page.rate(1, 5)
    page.listed()
    before, genre, notes = page.texts('#list .film'), Select(page.one('#genre')), lambda: page.texts('#list .film > .note')
    genre.select_by_visible_text('Western')
    after = page.changed(before)
    assert all('Western' in note for note in notes())
    page.one('#from').send_keys('1980')
    page.changed(after)
    assert all(int(note[:4]) >= 1980 for note in notes())
    page.one('#to').send_keys('1979')
    page.wait(lambda: page.texts('#hint') == ['No film fits these filters.'])
    page.run('document.getElementById("filters").reset()')
    page.one('#least').clear()
    page.wait(lambda: len(page.texts('#list .film')) == 10)
    page.one('#least').send_keys('99999')
    page.wait(lambda: page.texts('#hint') == ['No film fits these filters.'])

def test_more_films(page):
    page.rate(1, 5)
    page.listed()
    page.one('#more').click()
    page.wait(lambda: len(page.all('#list .film')) == 20)
    page.one('#more-films').click()
    assert len(page.all('#films li')) == 16


# --- As it should not be

@pytest.mark.parametrize('kept', [
    '{', '7', 'null', '{"a": 1}', json.dumps('x' * 10000), '[' * 10000,
    '[1, null, [], [1], [1, 9], [1, "5"], [{}, 5], ["", 5], [1.5, 5], [-3, 4], [1e99, 4], [987654321, 4], ["no such film", 4]]',
], ids=['cut', 'number', 'null', 'object', 'text', 'brackets', 'pairs'])
def test_garbage_in_storage_does_no_harm(page, kept):
    page.run('localStorage.setItem("ratings of sample", arguments[0])', kept)
    page.open()
    assert page.rated() == [] and len(page.all('#films li')) == 8
    page.rate(1, 4)
    assert page.listed() and page.texts('#trouble') == [''] and len(page.kept()) == 1

def test_what_is_sound_in_storage_is_used(page):
    page.run('localStorage.setItem("ratings of sample", "[[1, 5], [987654321, 5], [2, 9], [3, 1], [3, 2]]")')
    page.open()
    assert len(page.rated()) == 2 and page.listed()
    page.rate(1, 3)
    page.wait(lambda: page.kept() == [[1, 5], [3, 3]])

@pytest.mark.parametrize('broken, message', [
    ('Promise.resolve(new Response(\'{"error": "too many"}\', {status: 503}))', 'That did not work: too many.'),
    ('Promise.resolve(new Response("<p>", {status: 500}))', 'That did not work: the service says 500.'),
    ('Promise.reject(new TypeError("gone"))', 'That did not work: the service does not answer.')], ids=['busy', 'broken', 'gone'])
def test_trouble_is_told_and_loses_nothing(page, broken, message):
    page.rate(1, 5)
    page.listed()
    before = page.texts('#list .film')
    page.run(f'window.kept = window.fetch; window.fetch = () => {broken}')
    page.rate(2, 1)
    page.wait(lambda: page.texts('#trouble') == [message])
    assert page.texts('#list .film') == before and len(page.rated()) == len(page.kept()) == 2
    assert page.one('#trouble').get_attribute('role') == 'status'
    page.run('window.fetch = window.kept')
    page.one('#retry').click()
    page.changed(before)
    assert page.texts('#trouble') == [''] and not page.one('#retry').is_displayed()

def test_can_start_late(page, before_load):
    before_load('window.kept = window.fetch; window.fetch = () => Promise.reject(new TypeError("gone"))')
    page.browser.get(page.address)
    page.wait(lambda: page.one('#retry').is_displayed())
    assert page.run('return document.getElementById("main").inert')
    page.run('window.fetch = window.kept')
    page.one('#retry').click()
    page.wait(lambda: len(page.all('#films li')) == 8 and page.texts('#trouble') == [''])

def test_a_late_answer_changes_nothing(page):
    page.run('''window.kept = window.fetch; window.late = [];
        window.fetch = async (path, {signal, ...rest}) => {
            const answer = await window.kept(path, rest);
            return new Promise(done => window.late.push(() => done(answer)));
        }''')
    page.rate(1, 1)
    page.wait(lambda: page.run('return window.late.length') == 1)
    page.rate(1, 5)
    page.wait(lambda: page.run('return window.late.length') == 2)
    page.run('window.late[1]()')
    page.listed()
    before = page.texts('#list .film')
    page.browser.execute_async_script('window.late[0](); setTimeout(arguments[0], 100)')
    assert page.texts('#list .film') == before and page.texts('#trouble') == ['']

def test_titles_are_text(page):
    page.run('''window.fetch = () => Promise.resolve(new Response(JSON.stringify(
        {items: [{item: "<b>", title: '<img src="x" onerror="window.bad = 1">', year: 0, genres: "<i>"}]})))''')
    page.press(Keys.TAB, 'x')
    page.wait(lambda: page.texts('#options li'))
    page.press(Keys.ENTER)
    assert page.one('#films .name').text.startswith('<img src=') and not page.all('main :is(img, b, i)')
    assert page.run('return window.bad') is None

CHANGE = '''const kept = window.fetch;
window.fetch = async (path, ...rest) => {
    const found = await (await kept(path, ...rest)).json();
    (%s)(path, found);
    return new Response(JSON.stringify(found));
};'''

SCALES = {'halves': ([n / 2 for n in range(1, 11)], 10), 'three': ([1, 2, 3], 3), 'numbers': ([-10, 0, 10], 0)}  # and how many are drawn

@pytest.mark.parametrize('scale, drawn', SCALES.values(), ids=SCALES)
def test_takes_the_scale_from_the_service(page, before_load, scale, drawn, request):
    before_load(CHANGE % f"(path, found) => {{ if (path === 'health') found.rating_values = {scale}; }}")
    page.size(*PHONE)
    page.open()
    row = '#films li:first-child'
    assert len(page.all(f'{row} input')) == len(scale) and len(page.all(f'{row} svg')) == drawn
    assert page.run('return document.documentElement.scrollWidth <= innerWidth')
    assert len({label.location['y'] for label in page.all(f'{row} label')}) == 1  # they stand in one line
    page.rate(1, 3)
    assert page.kept()[0][1] == scale[2]
    page.picture(request.node.callspec.id)

def test_shows_chances_of_a_click(page, before_load):
    before_load(CHANGE % '''(path, found) => {
        if (path === 'health') found.objective = 'click';
        if (path === 'recommend') for (const film of found.items) { film.click = .625; delete film.expected; delete film.distribution; }
    }''')
    page.open()
    page.rate(1, 5)
    page.listed()
    assert page.texts('#list .answer')[0] == '63% chance'
    page.one('#list .film').click()
    page.wait(lambda: len(page.all('.effects li')) == 1)
    assert not page.all('.chances') and page.texts('.effects .number')[0].endswith('%') and page.complaints() == []
