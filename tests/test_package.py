"""What `import bst_nbdev` gives, and what it costs."""
import subprocess
import sys

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
