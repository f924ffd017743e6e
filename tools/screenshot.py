"""Take the picture of the service's page that the documentation shows.

    bst_train --out runs/page && python tools/screenshot.py runs/page         # -> nbs/images/service.png

Needs Debian's chromium and chromium-driver, and selenium (extra "dev"). Serves the model on this machine while the picture is taken.
"""
import argparse
import base64
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

OPTIONS = ['headless', 'no-sandbox', 'disable-gpu', 'disable-dev-shm-usage', 'no-first-run', 'disable-background-networking', 'no-proxy-server']
SERVE = 'import sys; from bst_nbdev.cli import bst_serve; sys.exit(bst_serve())'
RATINGS, WIDTH, HEIGHT, COLOURS = (5, 1, 4), 1100, 760, 48

def take(address, folder):
    "Rate the first films of the page, open the first recommendation, and take a picture (PNG, bytes)"
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    for option in [*OPTIONS, f'user-data-dir={folder}']: options.add_argument(f'--{option}')
    browser = webdriver.Chrome(options, Service(shutil.which('chromedriver')))
    try:
        wait = lambda found: WebDriverWait(browser, 60, .1).until(lambda _: found())
        all_of = lambda selector: browser.find_elements(By.CSS_SELECTOR, selector)
        size = dict(width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)
        browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        browser.get(address)
        wait(lambda: not browser.execute_script('return document.getElementById("main").inert'))
        for row, rating in enumerate(RATINGS, 1): all_of(f'#films li:nth-child({row}) label')[rating - 1].click()
        wait(lambda: all_of('#list .film') and all_of('#count')[0].text.startswith(f'{len(RATINGS)} '))
        all_of('#list .film')[0].click()
        wait(lambda: len(all_of('.effects li')) == len(RATINGS))
        browser.execute_script('document.activeElement.blur(); scrollTo(0, 0)')
        return base64.b64decode(browser.execute_cdp_cmd('Page.captureScreenshot', dict(format='png'))['data'])
    finally: browser.quit()

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help="a run's folder, trained on the sample")
    parser.add_argument('--out', type=Path, default=Path('nbs/images/service.png'), help='the picture (default: %(default)s)')
    a = parser.parse_args()
    if not (shutil.which('chromium') and shutil.which('chromedriver')): sys.exit('no browser: apt-get install chromium chromium-driver')
    server = subprocess.Popen([sys.executable, '-c', SERVE, '--model', a.model, '--port', '0', '--device', 'cpu'], stdout=subprocess.PIPE, text=True)
    try:
        address = next((found[1] for line in server.stdout if (found := re.search(r'look at (http://\S+)/', line))), None)
        if address is None: sys.exit(f'the service with {a.model} did not start')
        with tempfile.TemporaryDirectory() as folder: picture = take(address, folder)
    finally:
        server.terminate()
        server.wait(20)
        server.stdout.close()
    a.out.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(picture)).convert('RGB').quantize(COLOURS).save(a.out, optimize=True)
    print(f'written to {a.out} ({a.out.stat().st_size / 1000:.0f} kB)')

if __name__ == '__main__': main()
