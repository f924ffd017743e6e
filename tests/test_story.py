"""The story: drawings follow the code and the results, the glossary is complete, the citation is valid."""
import configparser
import re
import runpy
import sys
import tokenize
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
NBS, PACKAGE = ROOT/'nbs', ROOT/'bst_nbdev'
IMAGES = sorted((NBS/'images').glob('*.svg'))
MODEL_MODULES = ('embedding', 'transformer', 'relative_attention', 'mlp', 'packing', 'heads', 'bst', 'two_stream')
SVG = '{http://www.w3.org/2000/svg}'
GLOSSARY = (NBS/'glossary.ipynb').read_text(encoding='utf-8')

settings = configparser.ConfigParser(delimiters=['='])
settings.read(ROOT/'settings.ini')


# --- Drawings

@pytest.mark.parametrize('path', IMAGES, ids=lambda path: path.name)
def test_drawings_have_words(path):
    "A title and a description for those who cannot see it, and a ground of its own for dark pages"
    tree = ElementTree.parse(path).getroot()
    texts = {name: (tree.find(f'{SVG}{name}').text or '').strip() for name in ('title', 'desc')}
    assert all(texts.values()), f'{path.name}: {texts}'
    ground = tree.find(f'{SVG}rect')
    assert ground is not None and ground.get('fill') == '#fff', f'{path.name}: no white first rectangle'
    assert (ground.get('width'), ground.get('height')) == tuple(tree.get('viewBox').split()[2:])

def names_drawn(svg):
    "Yield every name that a drawing sets as code"
    for element in ElementTree.fromstring(svg).iter():
        if 'code' in element.get('class', '').split():
            for part in element.iter(f'{SVG}text'): yield from re.findall(r'[A-Za-z_]\w+', part.text or '')

def names_of(*modules):
    "Collect every name in the code of some modules"
    found = set()
    for module in modules:
        with tokenize.open(PACKAGE/f'{module}.py') as file:
            found |= {token.string for token in tokenize.generate_tokens(file.readline)
                      if token.type == tokenize.NAME}
    return found

def test_names_drawn_sees_them():
    drawing = (f'<svg xmlns="{SVG[1:-1]}"><text class="code title">a_b: Cd</text><text>not this</text>'
               '<g class="code"><text>ef</text></g></svg>')
    assert list(names_drawn(drawing)) == ['a_b', 'Cd', 'ef']

@pytest.mark.parametrize('drawing, least', [('architecture', 30), ('two_streams', 8)])
def test_drawings_follow_the_code(drawing, least):
    drawn = list(names_drawn((NBS/'images'/f'{drawing}.svg').read_text(encoding='utf-8')))
    unknown = sorted(set(drawn) - names_of(*MODEL_MODULES))
    assert len(drawn) >= least and not unknown, f'names in the drawing that the code does not have: {unknown}'

def test_the_picture_of_the_results_is_up_to_date(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['picture.py', '--check'])
    runpy.run_path(str(ROOT/'experiments'/'picture.py'), run_name='__main__')

def test_the_check_of_the_picture_can_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['picture.py', '--check'])
    script = runpy.run_path(str(ROOT/'experiments'/'picture.py'))
    (tmp_path/'results.svg').write_text('another')
    script['main'].__globals__['PICTURE'] = tmp_path/'results.svg'
    with pytest.raises(SystemExit, match='run python experiments/picture.py'): script['main']()


# --- Words

def test_glossary_has_every_name_that_a_user_meets():
    pytest.importorskip('torch')
    from bst_nbdev.names import PROTOCOLS
    from bst_nbdev.packing import VISIBILITIES
    from bst_nbdev.presets import PRESETS
    from bst_nbdev.evaluation import METRICS
    missing = [name for name in (*PROTOCOLS, *PRESETS, *METRICS, *VISIBILITIES)
               if f'`{name}`' not in GLOSSARY]
    assert not missing, f'nbs/glossary.ipynb does not say what these are: {missing}'

def test_glossary_leads_to_notebooks_that_are_there():
    links = set(re.findall(r'\]\(([\w./-]+\.ipynb)', GLOSSARY))
    assert len(links) > 12 and not [link for link in links if not (NBS/link).is_file()]


# --- For those who cite it or upgrade

def problems_of_citation(text, version):
    "List what the format (CFF 1.2.0) requires and a file lacks"
    found = pytest.importorskip('yaml').safe_load(text)
    missing = [name for name in ('cff-version', 'message', 'title', 'authors', 'version')
               if not found.get(name)]
    stated = str(found.get('version'))
    wrong = [] if stated == version else [f'version {stated}, settings.ini says {version}']
    for reference in found.get('references', []):
        missing += [f"{name} of {reference.get('title')}" for name in ('type', 'title', 'authors')
                    if not reference.get(name)]
    if 'Behavior Sequence Transformer' not in str(found.get('references')): missing.append('the paper')
    return missing + wrong

def test_citation():
    text = (ROOT/'CITATION.cff').read_text(encoding='utf-8')
    assert problems_of_citation(text, settings['DEFAULT']['version']) == []
    assert problems_of_citation(text.replace('message:', 'massage:').replace('version: 0', 'version: 7'),
                                '0.1.0') != []

def test_changelog_has_this_version():
    assert f"## {settings['DEFAULT']['version']}\n" in (ROOT/'CHANGELOG.md').read_text()
