"""Draw the results of MovieLens-1M as one picture, from the files under results/.

    python experiments/picture.py            # writes nbs/images/results.svg
    python experiments/picture.py --check    # fails if that file is not what the results give

The picture is plain text that depends on the figures and on nothing else, so the same results give the same bytes on every machine.
"""
import argparse
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT/'nbs'/'images'/'results.svg'
FILES = ('results', 'compared', 'reproduction')
PROTOCOLS = {'leave-last-out': 'foresee each last rating', 'temporal': 'foresee the last tenth in time', 'random-ratings': 'fill in a random tenth',
             'random-windows': "the published notebooks' own"}
OURS = ('BST (default)', 'BST (fill-in)')
LENGTH = 10  # of the windows, where a model was measured at it
LEFT, TOP, ROW, PANEL, GAP = 130, 78, 30, 200, 16  # pixels

def best_answers() -> pd.DataFrame:  # protocol, model, mae, spread and seeds of each method, the best of `leave-last-out` first
    "Test MAE of each method's best answer on the scale"
    runs = pd.concat([pd.read_csv(ROOT/'results'/f'{name}.csv') for name in FILES]).query('dataset == "ml-1m" and part == "test"')
    runs = runs.drop_duplicates(['protocol', 'model', 'sequence_length', 'step', 'seed'])  # what was measured twice counts once
    at_length = runs.sequence_length.eq(LENGTH) & runs.step.eq(1)
    has_it = at_length.groupby([runs.protocol, runs.model]).transform('any')
    runs = runs[at_length | ~has_it & runs.protocol.ne('random-windows')]  # there the length decides what is asked
    found = runs.groupby(['protocol', 'model']).mae.agg(mae='mean', spread='std', seeds='size').reset_index()
    return found.sort_values('mae', kind='stable')

def say(table: pd.DataFrame) -> str:  # One sentence for each protocol
    "The picture in words"
    said = []
    for protocol in PROTOCOLS:
        rows = table[table.protocol == protocol]
        said.append(f'{protocol}: ' + ', '.join(f'{r.model} {r.mae:.3f}' for r in rows.itertuples()))
    return 'Test error (MAE, smaller is better) on MovieLens-1M. ' + '. '.join(said) + '.'

def draw(table: pd.DataFrame) -> str:  # SVG
    "A column for each protocol, a line for each method; full dots are ours"
    models = list(dict.fromkeys([*table[table.protocol == 'leave-last-out'].model, *table.model]))
    models.sort(key=lambda model: table[table.model == model].mae.mean())
    low, high = (table.mae.min() // .05) * .05 - .01, (table.mae.max() // .05 + 1) * .05
    width, height = LEFT + len(PROTOCOLS) * (PANEL + GAP) + 10, TOP + ROW * len(models) + 50
    across = lambda mae: (mae - low) / (high - low) * PANEL
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title desc" '
           'font-family="Helvetica, Arial, sans-serif" font-size="13">',
           '<title id="title">Errors on MovieLens-1M by protocol and method</title>', f'<desc id="desc">{say(table)}</desc>',
           f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>']
    write = lambda x, y, what, more='': out.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="#111" {more}>{what}</text>')
    for n, model in enumerate(models): write(LEFT - 10, TOP + ROW * (n + .5) + 4, model, 'text-anchor="end"' + ' font-weight="bold"' * (model in OURS))
    for column, (protocol, question) in enumerate(PROTOCOLS.items()):
        left = LEFT + column * (PANEL + GAP)
        write(left, 30, protocol, 'font-weight="bold" font-size="15"')
        write(left, 50, question, 'font-size="12"')
        out.append(f'<rect x="{left}" y="{TOP - 12}" width="{PANEL}" height="{ROW * len(models) + 18}" fill="#f4f4f4"/>')
        for tick in (.6, .7, .8, .9):
            x = left + across(tick)
            out.append(f'<path d="M{x:.1f} {TOP - 12}v{ROW * len(models) + 18}" stroke="#fff" stroke-width="2"/>')
            write(x, TOP + ROW * len(models) + 22, f'{tick:.1f}', 'text-anchor="middle" font-size="12"')
        for row in table[table.protocol == protocol].itertuples():
            x, y = left + across(row.mae), TOP + ROW * (models.index(row.model) + .5)
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{"#111" if row.model in OURS else "#fff"}" stroke="#111" stroke-width="1.5"/>')
            behind = x > left + PANEL * .7
            write(x - 11 if behind else x + 11, y + 4, f'{row.mae:.3f}', 'font-size="12"' + ' text-anchor="end"' * int(behind))
    write(LEFT, height - 8, 'MAE of the best answer on the scale, test part; smaller is better; full dots: our own models', 'font-size="12"')
    return '\n'.join([*out, '</svg>']) + '\n'

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='Write nothing, fail if the picture is not what the results give')
    picture = draw(best_answers())
    if not parser.parse_args().check: PICTURE.write_text(picture, encoding='utf-8')
    elif not PICTURE.exists() or PICTURE.read_text(encoding='utf-8') != picture: sys.exit('nbs/images/results.svg is old: run python experiments/picture.py')

if __name__ == '__main__': main()
