"The Behavior Sequence Transformer, explained, tested and ready to run"
import importlib as _importlib
import os as _os
import sys as _sys
from typing import TYPE_CHECKING as _TYPE_CHECKING

__version__ = "0.1.0"


def _share_cores():
    """Keep PyTorch's threads from waiting for one another where other processes need the same cores.

    At the end of every operation the OpenMP threads of a process wait in a loop, by default 300,000 rounds long,
    while a neighbour could use the core that the last thread needs. 1,000 rounds (the number that libgomp itself
    takes when it knows that cores are short) cost nothing on an idle machine. libgomp reads the variable when
    PyTorch is loaded, so it must be set before.

    `nbdev_test` runs as many notebooks side by side as there are cores, and sets IN_TEST: each of them gets one
    thread. A variable that is already set is left alone, and thread counts outside tests are never changed.
    """
    if 'OMP_WAIT_POLICY' not in _os.environ: _os.environ.setdefault('GOMP_SPINCOUNT', '1000')
    if _os.environ.get('IN_TEST') and 'OMP_NUM_THREADS' not in _os.environ:
        _os.environ['OMP_NUM_THREADS'] = '1'  # for PyTorch if it is not loaded yet, and for processes that a notebook starts
        if 'torch' in _sys.modules: _sys.modules['torch'].set_num_threads(1)


_share_cores()

# The names that most programs need, by module; each is loaded on first use, so that `import bst_nbdev` stays light
_MODULES = dict(Recipe='pipeline', Run='pipeline', train='pipeline', evaluate='pipeline', load_run='runs',
                save_run='runs', Recommender='recommender', load='prepared', from_frame='data',
                make_split='splits', build_model='presets')
__all__ = ['__version__', *_MODULES]

if _TYPE_CHECKING:  # for editors and type checkers
    from .data import from_frame
    from .pipeline import Recipe, Run, evaluate, train
    from .prepared import load
    from .presets import build_model
    from .recommender import Recommender
    from .runs import load_run, save_run
    from .splits import make_split


def __getattr__(name):
    if name not in _MODULES: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(_importlib.import_module(f'.{_MODULES[name]}', __name__), name)
    globals()[name] = value
    return value


def __dir__(): return sorted({*globals(), *_MODULES})
