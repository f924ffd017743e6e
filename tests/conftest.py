"Each test runs on one core, for `pytest -n auto` runs as many at once as there are cores. Set before PyTorch is loaded."
import os
import signal

os.environ.setdefault('OMP_NUM_THREADS', '1')

# a shell ignores these for what it runs in the background; tests and the processes that they start expect the usual
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, 'SIGHUP'): signal.signal(signal.SIGHUP, signal.SIG_DFL)
