"Each test runs on one core, for `pytest -n auto` runs as many at once as there are cores. Set before PyTorch is loaded."
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
