"""The page of the service in a real browser, used with a mouse, with a keyboard, and at the size of a phone.

The tests start Debian's chromium and chromium-driver. Without them they are skipped, except where CI is set.
"""
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
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

TIMEOUT = 60  # seconds; the machine may be busy with other tests
OPTIONS = ['headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run',
           'disable-background-networking', 'disable-component-update', 'disable-sync',
           'disable-dev-shm-usage', 'no-proxy-server']
SERVE = 'import sys; from bst_nbdev.cli import bst_serve; sys.exit(bst_serve())'
DESKTOP, PHONE = (1280, 900), (360, 740)


# --- A service and a browser

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "Folder of a small model"
    if not (BROWSER and DRIVER): pytest.fail(MISSING)
    from bst_nbdev.pipeline import Recipe, train
    from bst_nbdev.runs import save_run
    return save_run(train(Recipe(protocol='leave-last-out', epochs=1), device='cpu'), tmp_path_factory.mktemp('page')/'run')

@contextmanager
def served(run, *options):
    "Address of a service with a model"
    errors = run.parent/'errors.txt'
    with open(errors, 'w') as file:
        options = ['--model', str(run), '--port', '0', '--device', 'cpu', '--threads', '1', *options]
        command = [sys.executable, '-c', SERVE, *options]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
        try:
            printed = (re.search(r'look at (http://\S+)/', line) for line in server.stdout)
            found = next(filter(None, printed), None)
            assert found, errors.read_text()
            yield found[1]
        finally:
            server.terminate()
            try: server.wait(20)
            except subprocess.TimeoutExpired: server.kill()
            server.stdout.close()

@pytest.fixture(scope='module')
def address(run):
    "Address of a service with a small model"
    with served(run) as found: yield found

@pytest.fixture(scope='module')
def browser(address, tmp_path_factory):
    "Browser with a profile of its own, once the service answers"
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    profile = tmp_path_factory.mktemp('browser')
    for option in [*OPTIONS, f'user-data-dir={profile}']: options.add_argument(f'--{option}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    found = webdriver.Chrome(options, Service(DRIVER))
    try:
        WebDriverWait(found, TIMEOUT).until(lambda _: answers(address))
        yield found
    finally: found.quit()

def fetch(address, path):
    "Response of the service, without any proxy"
    opener = build_opener(ProxyHandler({}))
    with opener.open(address + path, timeout=TIMEOUT) as answer: return json.load(answer)

def answers(address):
    "Check whether the service answers yet"
    try: return fetch(address, '/health')['status'] == 'ok'
    except OSError: return False

class Page:
    "Page in the browser"
    def __init__(self, browser, address): self.browser, self.address = browser, address

    def wait(self, condition, message=''):
        "Wait until a condition holds"
        return WebDriverWait(self.browser, TIMEOUT, .05).until(lambda _: condition(), message)

    def run(self, script, *values): return self.browser.execute_script(script, *values)

    def size(self, width, height):
        "Set the size of the window"
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)

    def open(self):
        "Load the page, and wait until it can be used"
        self.browser.get(self.address)
        usable = lambda: not self.run('return document.getElementById("main").inert')
        self.wait(usable, 'the page did not start')

    def all(self, selector): return self.browser.find_elements(By.CSS_SELECTOR, selector)
    def one(self, selector): return self.browser.find_element(By.CSS_SELECTOR, selector)
    def texts(self, selector):
        "Read the text of each element at the same time, hidden parts included"
        script = 'return [...document.querySelectorAll(arguments[0])].map(node => node.textContent)'
        return self.run(script, selector)

    def press(self, *keys):
        "Press keys in the element with the focus"
        ActionChains(self.browser).send_keys(*keys).perform()

    def focus(self, script): return self.run(f'return document.activeElement.{script}')

    def rate(self, row, rating):
        "Click on a star"
        self.all(f'#films li:nth-child({row}) label')[rating - 1].click()

    def listed(self):
        "Wait for a list, and return its titles"
        return self.wait(lambda: self.texts('#list .film > .name'), 'no list')

    def reasons(self):
        "Open the reasons of the first film, and count them; a list that arrives later closes them, so this can be repeated"
        return self.run('const film = document.querySelector("#list .film");'
                        'if (film && film.getAttribute("aria-expanded") !== "true") film.click();'
                        'return document.querySelectorAll(".effects li").length')

    def order(self, name):
        "Choose the order of the list"
        self.one(f'#order input[value={name}]').click()

    def numbers(self, place):
        "Read the first or the second number of each film in the list"
        return [float(re.sub('[^0-9.]', '', text.split('%')[0].split(' of ')[0]))
                for text in self.texts(f'#list .answer:nth-child({place})')]

    def changed(self, before):
        "Wait until the list differs, and return it"
        different = lambda: (now := self.texts('#list .film')) != before and now
        return self.wait(different, 'the list did not change')

    def rated(self):
        "Read the titles of the rows with a rating"
        return self.run('return [...document.querySelectorAll("#films li")]'
                        '.filter(row => row.querySelector(":checked"))'
                        '.map(row => row.querySelector(".name").firstChild.textContent)')

    def kept(self):
        "Read the ratings stored in the browser"
        return self.run('return JSON.parse(localStorage.getItem("ratings of sample"))')

    def complaints(self):
        "Read the warnings and errors of the browser's console"
        return [line for line in self.browser.get_log('browser') if line['level'] in ('WARNING', 'SEVERE')]

    def picture(self, name):
        "Save a picture, if PAGE_SCREENSHOTS names a folder"
        if not (folder := os.environ.get('PAGE_SCREENSHOTS')): return
        Path(folder).mkdir(parents=True, exist_ok=True)
        settings = dict(format='png', captureBeyondViewport=True)
        taken = self.browser.execute_cdp_cmd('Page.captureScreenshot', settings)
        Path(folder, f'{name}.png').write_bytes(base64.b64decode(taken['data']))

@pytest.fixture
def page(browser, address):
    "Freshly loaded page with empty storage"
    browser.get('about:blank')  # so that the page of the previous test can neither store nor log any more
    browser.execute_cdp_cmd('Storage.clearDataForOrigin', dict(origin=address, storageTypes='all'))
    found = Page(browser, address)
    found.size(*DESKTOP)
    found.complaints()
    found.open()
    return found

@pytest.fixture
def before_load(browser):
    "Function that adds a script to run before those of the page"
    added = []
    def add(source):
        added.append(browser.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument', dict(source=source)))
    yield add
    for script in added: browser.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument', script)


# --- Normal use

@pytest.mark.parametrize('size', [DESKTOP, PHONE], ids=['desktop', 'phone'])
def test_loads_without_complaint_and_fits(page, size):
    fits = lambda: page.run('return document.documentElement.scrollWidth <= innerWidth')
    page.size(*size)
    page.open()
    assert len(page.all('#films li')) == 8 and not page.all('#list li') and fits()
    for row, rating in enumerate([5, 4, 2], 1): page.rate(row, rating)
    page.wait(lambda: page.one('#count').text == '3 films rated')
    assert len(page.listed()) == 10
    page.wait(lambda: page.reasons() == 3)
    page.picture('desktop' if size == DESKTOP else 'phone')
    assert fits() and page.complaints() == []

def test_requests_go_to_the_service_only(page, address):
    page.rate(1, 5)
    page.listed()
    names = page.run('return performance.getEntriesByType("resource").map(entry => entry.name)')
    assert {urlsplit(name).netloc for name in names} == {urlsplit(address).netloc}
    paths = {urlsplit(name).path for name in names}
    assert {'/page/page.js', '/page/page.css', '/health', '/items', '/recommend'} <= paths

def test_works_by_keyboard_alone(page, address):
    film = fetch(address, '/items?limit=100')['items'][-1]  # not one of those shown at the start
    page.press(Keys.TAB)
    assert page.focus('id') == 'find'
    page.press(film['title'])
    page.wait(lambda: page.texts('#options li'))
    assert page.focus('ariaExpanded') == 'true'
    assert page.focus('getAttribute("aria-activedescendant")') is None
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
    page.wait(lambda: page.texts('#found') == ['No film matches “qqqqqqqq”.'])

def test_the_list_leaves_out_what_was_rated(page):
    page.rate(1, 5)
    first = page.listed()[0]
    page.wait(page.reasons)
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
    page.rate(1, 5)
    page.rate(2, 1)
    page.wait(lambda: page.one('#count').text == '2 films rated' and page.listed())
    (removed, stays), before = page.rated(), page.texts('#list .film')
    page.one('#films .remove').click()
    assert page.rated() == [stays] and removed not in ''.join(page.texts('#films li'))
    assert page.focus('className') == 'remove'
    page.changed(before)
    assert len(page.kept()) == 1

def test_a_removal_can_be_undone(page):
    for row, rating in (1, 5), (2, 1): page.rate(row, rating)
    page.wait(lambda: page.one('#count').text == '2 films rated' and page.listed())
    names, kept = page.texts('#films .name'), page.kept()
    page.one('#films .remove').click()
    assert page.texts('#undone p')[0].endswith(' is removed.') and len(page.kept()) == 1
    page.one('#undo').click()
    assert page.texts('#films .name') == names and sorted(page.kept()) == sorted(kept)
    assert not page.one('#undone').is_displayed() and len(page.rated()) == 2 and page.focus('className') == 'remove'

def test_a_second_click_clears_a_rating(page):
    page.rate(1, 4)
    page.listed()
    page.rate(1, 4)
    page.wait(lambda: page.kept() == [] and page.rated() == [] and not page.texts('#list .film'))
    page.rate(1, 2)
    page.rate(1, 3)
    assert [rating for _, rating in page.kept()] == [3]
    page.press(Keys.SPACE)  # by keyboard as well
    page.wait(lambda: page.kept() == [] and page.rated() == [])
    assert len(page.all('#films li')) == 8

def test_two_tabs_are_merged(page, browser):
    first = browser.current_window_handle
    browser.switch_to.new_window('tab')
    second = browser.current_window_handle
    try:
        page.size(*DESKTOP)
        page.open()
        browser.switch_to.window(first)
        for row in 1, 2: page.rate(row, 5)
        browser.switch_to.window(second)
        page.wait(lambda: len(page.rated()) == 2)  # the other tab's arrive by themselves
        page.rate(4, 1)
        assert [rating for _, rating in page.kept()] == [5, 5, 1]
        browser.switch_to.window(first)
        page.wait(lambda: len(page.rated()) == 3)
        page.open()
        assert len(page.rated()) == 3
        page.one('#films .remove').click()
        browser.switch_to.window(second)
        page.wait(lambda: len(page.rated()) == 2)
    finally:
        browser.switch_to.window(second)
        browser.close()
        browser.switch_to.window(first)

def test_stale_tabs_do_not_overwrite(page):
    "A rating is added to what is stored now, even if this tab was not told of it"
    page.run('localStorage.setItem("ratings of sample", "[[1, 5], [3, 1]]")')  # no event in the tab that writes
    page.rate(8, 2)
    assert page.kept()[:2] == [[1, 5], [3, 1]] and len(page.kept()) == 3

def test_not_interested(page):
    page.rate(1, 5)
    first, second = page.listed()[:2]
    page.one('#list .remove').click()
    page.wait(lambda: page.listed()[0] == second and len(page.listed()) == 10 and first not in page.listed())
    assert page.texts('#unhide') == ['Show 1 film of no interest again']
    page.open()
    page.wait(lambda: page.listed()[0] == second)
    page.one('#list .remove').click()
    page.wait(lambda: second not in page.listed())
    page.one('#undo').click()
    page.wait(lambda: page.listed()[0] == second)
    page.one('#unhide').click()
    page.wait(lambda: page.listed()[:2] == [first, second] and not page.one('#unhide').is_displayed())
    assert page.complaints() == []

def test_wrong_filters_are_said(page):
    page.rate(1, 5)
    page.listed()
    page.one('#from').send_keys('19')
    page.wait(lambda: page.texts('#wrong') == ['“From year” must be a year such as 1990, so it is ignored.'])
    assert page.one('#from').get_attribute('aria-invalid') == 'true' and len(page.listed()) == 10
    page.one('#from').send_keys('80')
    page.one('#to').send_keys('1970')
    page.wait(lambda: page.texts('#wrong') == ['No year is from 1980 to 1970.'])
    page.one('#min-ratings').send_keys('.5')
    page.wait(lambda: '“At least … ratings” must be a whole number' in page.texts('#wrong')[0])
    page.one('#again').click()
    page.rate(1, 5)
    page.wait(lambda: page.texts('#wrong') == [''])

def test_a_link_keeps_the_list(page, browser):
    page.rate(1, 5)
    page.rate(2, 2)
    page.order('rating')
    Select(page.one('#genre')).select_by_visible_text('Western')
    page.wait(lambda: page.texts('#list .note') and all('Western' in note for note in page.texts('#list .film > .note')))
    listed, kept = page.listed(), page.kept()
    page.one('#link').click()
    address = page.one('#address').get_attribute('value')
    assert page.focus('id') == 'address'
    page.run('localStorage.setItem("ratings of sample", "[[3, 1]]")')  # another browser, with ratings of its own
    browser.get('about:blank')
    browser.get(address)
    page.wait(lambda: page.texts('#list .film > .name') == listed)
    assert page.one('#shared').is_displayed() and len(page.rated()) == 2
    page.rate(3, 4)
    assert page.kept() == [[3, 1]]  # they stay as they are
    page.wait(lambda: len(json.loads(parse_qs(urlsplit(browser.current_url).fragment)['rated'][0])) == 3)
    page.one('#mine').click()
    page.wait(lambda: not page.run('return document.getElementById("main").inert') and len(page.rated()) == 1)
    assert not page.one('#shared').is_displayed()

MOST_TABS = 6

@pytest.mark.parametrize('size', [DESKTOP, PHONE], ids=['desktop', 'phone'])
@pytest.mark.parametrize('row', [1, 5])
def test_few_keys_from_a_rating_to_the_list(page, row, size):
    "At most six presses of Tab, wherever the rating stands; a link leads there"
    page.size(*size)
    page.run('arguments[0].focus()', page.one(f'#films li:nth-child({row}) input'))
    page.press(Keys.SPACE)
    page.listed()
    pressed = 0
    while page.focus('className') != 'film' and pressed <= MOST_TABS:
        page.press(Keys.TAB)
        pressed += 1
        if page.focus('textContent') == 'To your list': page.press(Keys.ENTER)
    assert pressed <= MOST_TABS and page.focus('closest("#list") !== null')

TYPED = {'stra wars': 'Star Wars: Episode IV - A New Hope', '12 monkeys': 'Twelve Monkeys', 'amelie': "Amelie (Le Fabuleux destin d'Amélie Poulain)"}

def test_finds_what_is_meant_and_speaks_of_books(browser, tmp_path_factory):
    "A catalogue of its own: titles with an article in brackets, a typing error, and a word for its items"
    import numpy as np
    import pandas as pd

    from bst_nbdev.data import from_frame
    from bst_nbdev.pipeline import Recipe, train
    from bst_nbdev.prepared import save_prepared
    from bst_nbdev.runs import save_run
    folder, n = tmp_path_factory.mktemp('books'), np.arange(400)
    titles = ['Star Wars: Episode IV - A New Hope (1977)', 'Twelve Monkeys (1995)', 'Help', 'Help!', *['Lamp'] * 5, '',
              "Amelie (Fabuleux destin d'Amélie Poulain, Le) (2001)"]
    ids = [1610521604143693801 + k for k in range(11)]
    ratings = pd.DataFrame(dict(user=n % 20, item=[ids[k] for k in n * 7 % 11], rating=n % 5 + 1., timestamp=n * 50_000))
    save_prepared(from_frame(ratings, items=pd.DataFrame(dict(item=ids, title=titles)), name='books',
                             words=('book', 'books')), folder/'data')
    run = save_run(train(Recipe(data=str(folder/'data'), protocol='leave-last-out', epochs=1), device='cpu', baselines=()), folder/'run')
    with served(run) as address:
        page = Page(browser, address)
        page.wait(lambda: answers(address))
        page.size(*DESKTOP)
        page.open()
        assert fetch(address, '/health')['min_ratings'] == int(page.one('#min-ratings').get_attribute('value')) == 20
        assert page.texts('h1') == ['Your next books'] and page.texts('label[for=find]') == ['Find books']
        assert 'film' not in page.one('body').text.lower() and str(ids[9]) in page.texts('#films .name')[-2] + page.texts('#films .name')[-1] + ''.join(page.texts('#films .name'))
        for typed, title in TYPED.items():
            page.one('#find').clear()
            page.one('#find').send_keys(typed)
            page.wait(lambda: page.run('return document.querySelector("#options .name")?.firstChild.textContent') == title, typed)
            page.wait(lambda: page.texts('#found')[0])
            assert ('Did you mean one of these?' in page.texts('#found')[0]) == (typed == 'stra wars')
        page.one('#find').clear()
        page.one('#find').send_keys(str(ids[9]))
        page.wait(lambda: page.texts('#options li'))
        page.press(Keys.ENTER)
        page.press(Keys.SPACE)
        page.wait(lambda: page.run('return JSON.parse(localStorage.getItem("ratings of books"))') == [[str(ids[9]), 1]])
        page.run('document.getElementById("min-ratings").value = 0')
        page.one('#from').send_keys('1')
        page.one('#from').clear()
        page.wait(lambda: len(page.texts('#list .film')) == 10 and str(ids[9]) not in page.texts('#list .film > .name'))
        assert page.complaints() == []

def test_shows_both_numbers(page):
    page.rate(1, 5)
    page.listed()
    (rating, chance) = page.texts('#list li:first-child .answer')
    assert re.fullmatch(r'[1-5]\.\d\d of 5 expected', rating)
    assert re.fullmatch(r'<?\d+(\.\d+)?% next chance that it comes next', chance)
    assert page.run('return document.querySelector("#hint").textContent').endswith('that it comes next.')

def test_the_order_can_be_chosen(page):
    page.rate(1, 5)
    page.listed()
    assert page.texts('#order label') == ['Next and liked', 'Likely next', 'Highest rated']
    lists = dict(liked=page.texts('#list .film'))
    for name, place in ('rating', 1), ('next', 2):
        page.order(name)
        lists[name] = page.changed(lists['liked'] if name == 'rating' else lists['rating'])
        found = page.numbers(place)
        assert found == sorted(found, reverse=True) and len(found) == 10
    page.run('document.querySelector("#order :checked").focus()')
    page.press(Keys.ARROW_LEFT)  # with the keyboard, as any group of radio buttons
    page.wait(lambda: page.texts('#list .film') == lists['liked'])
    page.order('rating')
    page.changed(lists['liked'])
    page.one('#again').click()
    assert page.run('return document.querySelector("#order :checked").value') == 'liked'

UNITS = {'liked': ('chance that it comes next and you like it', '%'), 'next': ('chance that it comes next', '%'),
         'rating': ('expected rating', '')}

@pytest.mark.parametrize('order', UNITS)
def test_says_why(page, order):
    page.order(order)
    for row, rating in enumerate([5, 1, 3], 1): page.rate(row, rating)
    page.wait(lambda: page.one('#count').text == '3 films rated' and page.listed())
    page.wait(lambda: page.reasons() == 3)
    what, unit = UNITS[order]
    assert page.texts('.why > .note') == [f'How far each moves the {what}: up to the right, down to the left.']
    assert {number.endswith('%') for number in page.texts('.effects .number')} == {unit == '%'}
    because = page.texts('.why .because')
    up = page.run('return [...document.querySelectorAll(".effects li:has(.up) .name")].map(node => node.firstChild.textContent)')
    assert len(because) == (1 if up else 0) and all(name in because[0] for name in up[:2])
    names = page.run('return [...document.querySelectorAll(".effects .name")]'
                     '.map(node => node.firstChild.textContent)')
    assert set(names) == set(page.rated())
    numbers = page.texts('.effects .number')
    sides = [bar.get_attribute('class') for bar in page.all('.effects .bar')]
    assert sides == ['bar down' if number[0] == '−' else 'bar up' for number in numbers]
    sizes = [float(number[1:].rstrip('%')) for number in numbers]
    assert sizes == sorted(sizes, reverse=True)
    assert page.one('.effects .bar').size['width'] > 20 and len(page.all('.probabilities .bar')) == 5
    assert abs(sum(map(int, page.texts('.probabilities .number'))) - 100) <= 3
    page.one('#list .film').click()
    assert not page.all('.why') and page.one('#list .film').get_attribute('aria-expanded') == 'false'

def test_ratings_survive_a_reload(page):
    page.rate(1, 5)
    page.rate(3, 2)
    page.wait(lambda: len(page.listed()) and page.one('#count').text == '2 films rated')
    rated, kept = page.rated(), page.kept()
    page.open()
    assert sorted(page.rated()) == sorted(rated) and page.kept() == kept and page.listed()

def test_starts_again_and_brings_back(page):
    page.rate(1, 5)
    page.rate(2, 4)
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
    before = page.texts('#list .film')
    notes = lambda: page.texts('#list .film > .note')
    Select(page.one('#genre')).select_by_visible_text('Western')
    after = page.changed(before)
    assert all('Western' in note for note in notes())
    page.one('#from').send_keys('1980')
    page.changed(after)
    assert all(int(note[:4]) >= 1980 for note in notes())
    page.one('#to').send_keys('1979')
    page.wait(lambda: page.texts('#hint') == ['No film matches these filters.'])
    page.run('document.getElementById("filters").reset()')
    page.one('#min-ratings').clear()
    page.wait(lambda: len(page.texts('#list .film')) == 10)
    page.one('#min-ratings').send_keys('99999')
    page.wait(lambda: page.texts('#hint') == ['No film matches these filters.'])

SENT = """window.sent = [];
const own = window.fetch;
window.fetch = (path, options = {}) => { if (options.body) window.sent.push([path, JSON.parse(options.body)]); return own(path, options); };"""

def test_a_profile_goes_along(page, before_load):
    before_load(SENT)
    page.open()
    names = [text.split()[0] for text in page.texts('#profile label')]
    assert names == ['Sex', 'Age', 'Occupation'] and set(page.texts('#profile option:checked')) == {'not said'}
    assert page.texts('#profile select[name=sex] option') == ['not said', 'F', 'M']
    sent = lambda path: page.run('return window.sent.filter(([path]) => path === arguments[0]).at(-1)?.[1].profile', path)
    page.rate(1, 5)
    page.listed()
    assert sent('recommend') is None
    Select(page.one('#profile select[name=sex]')).select_by_visible_text('F')
    page.wait(lambda: sent('recommend') == {'sex': 'F'})
    Select(page.one('#profile select[name=age_group]')).select_by_visible_text('25')
    page.wait(lambda: sent('recommend') == {'sex': 'F', 'age_group': '25'})
    page.wait(lambda: page.reasons() == 1)
    assert sent('explain') == {'sex': 'F', 'age_group': '25'} and page.texts('#trouble') == ['']
    page.picture('profile')
    Select(page.one('#profile select[name=age_group]')).select_by_visible_text('not said')
    page.wait(lambda: sent('recommend') == {'sex': 'F'})
    page.one('#again').click()
    assert set(page.texts('#profile option:checked')) == {'not said'} and page.complaints() == []

def test_without_features_no_profile_is_asked_for(page, before_load):
    before_load(CHANGE % "(path, found) => { if (path === 'health') found.profile = {}; }")
    page.open()
    assert not page.one('#profile').is_displayed()

def test_a_new_film_is_marked(browser, run, tmp_path):
    (tmp_path/'new.csv').write_text('item,title,genres,year\n9001,"Quiet Harbour, The (2031)",Drama|Romance,2031\n')
    with served(run, '--items', str(tmp_path/'new.csv')) as address:
        page = Page(browser, address)
        page.wait(lambda: answers(address))
        page.size(*DESKTOP)
        page.open()
        page.rate(1, 5)
        page.listed()
        page.one('#from').send_keys('2031')
        page.wait(lambda: page.texts('#list .film > .name') == ['The Quiet Harbour'])
        assert page.texts('#list .new') == ['new'] and page.texts('#list .answer')
        page.wait(lambda: page.reasons() == 1)
        page.picture('new-film')
        page.run('document.getElementById("filters").reset()')
        page.one('#find').send_keys('quiet harb')
        page.wait(lambda: page.texts('#options .name') and page.texts('#options .new') == ['new'])
        page.press(Keys.ENTER)                                     # a rating of it counts
        page.rate(1, 4)
        page.wait(lambda: page.texts('#count') == ['2 films rated'])
        page.open()                                                # and is kept
        page.wait(lambda: page.texts('#films li:first-child .new') == ['new'])
        assert page.rated()[0] == 'The Quiet Harbour' and page.complaints() == []

def test_more_films(page):
    page.rate(1, 5)
    page.listed()
    page.one('#more').click()
    page.wait(lambda: len(page.all('#list .film')) == 20)
    page.one('#more-films').click()
    assert len(page.all('#films li')) == 16


# --- Faults

@pytest.mark.parametrize('kept', [
    '{', '7', 'null', '{"a": 1}', json.dumps('x' * 10000), '[' * 10000,
    '[1, null, [], [1], [1, 9], [1, "5"], [{}, 5], ["", 5], [1.5, 5], [-3, 4], [1e99, 4], [987654321, 4], '
    '["no such film", 4]]',
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

FAULTS = {
    'busy': ('Promise.resolve(new Response(\'{"error": "too many"}\', {status: 503}))', 'too many'),
    'broken': ('Promise.resolve(new Response("<p>", {status: 500}))', 'the service says 500'),
    'gone': ('Promise.reject(new TypeError("gone"))', 'the service does not answer')}

@pytest.mark.parametrize('broken, message', FAULTS.values(), ids=FAULTS)
def test_a_fault_is_reported_and_loses_nothing(page, broken, message):
    page.rate(1, 5)
    page.listed()
    before = page.texts('#list .film')
    page.run(f'window.kept = window.fetch; window.fetch = () => {broken}')
    page.rate(2, 1)
    page.wait(lambda: page.texts('#trouble') == [f'That did not work: {message}.'])
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
        {items: [{item: "<b>", year: 0, genres: "<i>",
                  title: '<img src="x" onerror="window.bad = 1">'}]})))''')
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

# values of a scale, and how many stars are drawn for it
SCALES = {'halves': ([n / 2 for n in range(1, 11)], 10), 'three': ([1, 2, 3], 3),
          'numbers': ([-10, 0, 10], 0)}

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

SINGLE = {'click': ('film.click = .625', '63% chance that you like it', '%'),
          'next': ('film.next = .0123', '1.2% chance that it comes next', '%'),
          'rating': ('film.expected = 3.21', '3.21 of 5 expected', '')}

@pytest.mark.parametrize('answer, change, shown, unit', [(name, *row) for name, row in SINGLE.items()], ids=SINGLE)
def test_a_model_with_one_answer(page, before_load, answer, change, shown, unit):
    before_load('const own = window.fetch;'  # the service has both answers and knows no order `click`
                'window.fetch = (path, {body, ...rest} = {}) =>'
                """own(path, {...rest, body: body?.replace(/"by":"\\w+"/, '"by":"next"')});""")
    change = """(path, found) => {
        if (path === 'health') found.ranked_by = ['ANSWER'];
        if (path === 'explain') found.by = 'ANSWER';
        if (path === 'recommend') for (const film of found.items) {
            for (const name of ['liked', 'next', 'expected', 'distribution']) delete film[name];
            CHANGE;
        }
    }""".replace('ANSWER', answer).replace('CHANGE', change)
    before_load(CHANGE % change)
    page.open()
    page.rate(1, 5)
    page.listed()
    assert page.texts('#list li:first-child .answer') == [shown]
    assert not page.one('#order').is_displayed() and 'percentage' not in page.texts('#hint')[0]
    page.wait(lambda: page.reasons() == 1)
    assert not page.all('.probabilities') and page.texts('.effects .number')[0].endswith('%') == (unit == '%')
    assert page.complaints() == []
