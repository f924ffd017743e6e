"""What `import bst_nbdev` gives, what it costs, and which versions of other packages it was tried with."""
import configparser
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

LIGHT = """
import sys
import bst_nbdev
heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'accelerate'} & set(sys.modules)
assert not heavy, f'import bst_nbdev loads {heavy}'
from bst_nbdev import Recipe, Recommender, from_frame, load, train
import bst_nbdev.pipeline, bst_nbdev.recommender
assert train is bst_nbdev.pipeline.train and Recommender is bst_nbdev.recommender.Recommender
assert {'Recipe', 'train', 'load'} <= set(dir(bst_nbdev))
"""

def test_the_package_is_light_and_gives_what_programs_need():
    subprocess.run([sys.executable, '-c', LIGHT], check=True)

def test_an_unknown_name_is_an_attribute_error():
    import bst_nbdev
    assert not hasattr(bst_nbdev, 'teleport')
    for name in bst_nbdev.__all__: assert getattr(bst_nbdev, name) is not None

def test_what_is_used_privately_has_the_version_that_was_tried():
    "`server.Connection` builds on a protocol of uvicorn that may change with any version"
    from bst_nbdev.server import Connection
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(Path(__file__).resolve().parent.parent/'settings.ini')
    [uvicorn] = [one for one in map(Requirement, settings['DEFAULT']['serve_requirements'].split()) if one.name == 'uvicorn']
    assert {bound.operator for bound in uvicorn.specifier} == {'>=', '<'}
    assert version('uvicorn') in uvicorn.specifier, f"uvicorn {version('uvicorn')} was not tried: run tests/test_service.py, then set the bounds"
    base = Connection.__mro__[1]
    for name in 'connection_made', 'data_received', 'on_response_complete', 'connection_lost', 'eof_received', 'send_400_response':
        assert callable(getattr(base, name)), name
