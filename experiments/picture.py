"""Draw the results on MovieLens-1M as one picture, from the files under results/.

    python experiments/picture.py            # writes nbs/images/results.svg
    python experiments/picture.py --check    # fails if that file is not what the results give

The picture is plain text that depends on the scores alone, so the same results give the same bytes on
every machine.
"""
import argparse
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT/'nbs'/'images'/'results.svg'
FILES = ('results', 'compared', 'reproduction')
PROTOCOLS = {'leave-last-out': "predict each user's last rating",
             'temporal': 'predict the last tenth in time', 'random-ratings': 'impute a random tenth',
             'random-windows': "the published notebooks' own"}
OURS = ('BST (both)', 'BST (rating)', 'BST (fill-in)')
LENGTH = 10  # of the windows, where a model was measured at it
LEFT, TOP, ROW, PANEL, GAP = 152, 78, 30, 200, 16  # pixels
TICKS = (.6, .7, .8, .9)

def best_answers() -> pd.DataFrame:  # protocol, model, mae, spread, seeds; smallest mae first
    "Collect the test MAE of each method's best answer on the scale"
    tables = [pd.read_csv(ROOT/'results'/f'{name}.csv') for name in FILES]
    runs = pd.concat(tables).query('dataset == "ml-1m" and part == "test" and moment != "unknown"')
    runs = runs[~runs.model.str.contains(', ')]  # variants of a preset
    runs = runs.drop_duplicates(['protocol', 'model', 'sequence_length',
                                'step', 'seed'])  # some were measured twice
    at_length = runs.sequence_length.eq(LENGTH) & runs.step.eq(1)
    has_it = at_length.groupby([runs.protocol, runs.model]).transform('any')
    # by random-windows, the length changes the targets
    runs = runs[at_length | ~has_it & runs.protocol.ne('random-windows')]
    found = runs.groupby(['protocol', 'model']).mae.agg(mae='mean', spread='std', seeds='size').reset_index()
    return found.sort_values('mae', kind='stable')

def describe(table: pd.DataFrame) -> str:  # One sentence for each protocol
    "Put the picture into words"
    sentences = []
    for protocol in PROTOCOLS:
        rows = table[table.protocol == protocol]
        sentences.append(f'{protocol}: ' + ', '.join(f'{r.model} {r.mae:.3f}' for r in rows.itertuples()))
    return 'Test error (MAE, smaller is better) on MovieLens-1M. ' + '. '.join(sentences) + '.'

def text(x: float, y: float, words: str, style: str = '') -> str:  # SVG
    "Write words at a position"
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#111" {style}>{words}</text>'

def draw_panel(
    table: pd.DataFrame,  # The rows of one protocol
    protocol: str,  # Its name, the title
    left: int,  # Pixels
    models: list,  # In the order of the lines
    low: float,  # MAE at the left edge
    high: float,  # MAE at the right edge
) -> list:  # Lines of SVG
    "Draw the column of one protocol"
    height, middle = ROW * len(models) + 18, TOP + ROW * len(models) + 22

    def across(mae): return left + (mae - low) / (high - low) * PANEL

    out = [text(left, 30, protocol, 'font-weight="bold" font-size="15"'),
           text(left, 50, PROTOCOLS[protocol], 'font-size="12"'),
           f'<rect x="{left}" y="{TOP - 12}" width="{PANEL}" height="{height}" fill="#f4f4f4"/>']
    for tick in TICKS:
        out.append(f'<path d="M{across(tick):.1f} {TOP - 12}v{height}" stroke="#fff" stroke-width="2"/>')
        out.append(text(across(tick), middle, f'{tick:.1f}', 'text-anchor="middle" font-size="12"'))
    for row in table.itertuples():
        x, y = across(row.mae), TOP + ROW * (models.index(row.model) + .5)
        fill = '#111' if row.model in OURS else '#fff'
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{fill}" '
                   'stroke="#111" stroke-width="1.5"/>')
        number, style = f'{row.mae:.3f}', 'font-size="12"'
        if x > left + PANEL * .7: out.append(text(x - 11, y + 4, number, f'{style} text-anchor="end"'))
        else: out.append(text(x + 11, y + 4, number, style))
    return out

def draw(table: pd.DataFrame) -> str:  # SVG
    "Draw a column for each protocol and a line for each method; full dots are our models"
    models = list(dict.fromkeys([*table[table.protocol == 'leave-last-out'].model, *table.model]))
    models.sort(key=lambda model: table[table.model == model].mae.mean())
    low, high = (table.mae.min() // .05) * .05 - .01, (table.mae.max() // .05 + 1) * .05
    width, height = LEFT + len(PROTOCOLS) * (PANEL + GAP) + 10, TOP + ROW * len(models) + 50
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
           'aria-labelledby="title desc" font-family="Helvetica, Arial, sans-serif" font-size="13">',
           '<title id="title">Errors on MovieLens-1M by protocol and method</title>',
           f'<desc id="desc">{describe(table)}</desc>',
           f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>']
    for n, model in enumerate(models):
        style = 'text-anchor="end" font-weight="bold"' if model in OURS else 'text-anchor="end"'
        out.append(text(LEFT - 10, TOP + ROW * (n + .5) + 4, model, style))
    for column, protocol in enumerate(PROTOCOLS):
        left = LEFT + column * (PANEL + GAP)
        out += draw_panel(table[table.protocol == protocol], protocol, left, models, low, high)
    caption = 'MAE of the best answer on the scale, test part; smaller is better; full dots: our models'
    out.append(text(LEFT, height - 8, caption, 'font-size="12"'))
    return '\n'.join([*out, '</svg>']) + '\n'

def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true',
                        help='write nothing, fail if the picture is not what the results give')
    picture = draw(best_answers())
    if not parser.parse_args().check:
        PICTURE.write_text(picture, encoding='utf-8')
    elif not PICTURE.exists() or PICTURE.read_text(encoding='utf-8') != picture:
        sys.exit('nbs/images/results.svg is out of date: run python experiments/picture.py')

if __name__ == '__main__': main()
