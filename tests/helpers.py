"What several tests need: a model and batches that have nothing to do with ratings, and ways to look at errors"
import contextlib
import io

import pytest
import torch
from torch import nn

from bst_nbdev.core import BSTError

class Toy(nn.Module):
    "A linear model of four numbers: training must not care what it trains"
    def __init__(self, dropout=0.):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x): return self.dropout(self.layer(x)).squeeze(-1)  # (B, 4) -> (B,)

def toy_batches(n, seed=0, size=32):
    "Batches of four numbers, and labels that are nearly linear in them"
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    y = x @ torch.tensor([1., -2., 0., .5]) + .1 * torch.randn(n, generator=generator)
    return [(dict(x=a), b) for a, b in zip(x.split(size), y.split(size))]

def complains(function, *parts, error=BSTError):
    "Call `function`, which must raise an error of one line with all `parts` in it; returns the message"
    with pytest.raises(error) as raised: function()
    message = str(raised.value)
    for part in parts: assert str(part) in message, f'{part!r} is not in: {message}'
    assert '\n' not in message, message
    return message

def refuses(command, arguments, *parts, code=1):
    "Call a command, which must end with `code` and one line on standard error with all `parts` in it; returns the line"
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try: found = command([str(part) for part in arguments])
        except SystemExit as stop: found = stop.code
    if isinstance(found, str): errors.write(f'{found}\n')  # SystemExit('message') prints it and exits with 1
    assert (1 if isinstance(found, str) else found) == code, f'ended with {found!r}'
    message = errors.getvalue()
    assert message.count('\n') == 1, f'not one line:\n{message}'
    for part in parts: assert str(part) in message, f'{part!r} is not in: {message}'
    return message.strip()
