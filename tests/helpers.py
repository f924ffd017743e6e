"What several tests need: a model that has nothing to do with ratings, and a command that must refuse its arguments"
import contextlib
import io

from torch import nn

class Toy(nn.Module):
    "A linear model of four numbers: training must not care what it trains"
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x): return self.layer(x).squeeze(-1)  # (B, 4) -> (B,)

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
