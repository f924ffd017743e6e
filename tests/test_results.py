"""Claims: result files are complete, and every table that is shown is made from them."""
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from bst_nbdev.prepared import load
from bst_nbdev.ranking import compare_ranking
from bst_nbdev.splits import make_split

ROOT = Path(__file__).resolve().parent.parent
INDEX, README, RESULTS = ROOT/'nbs'/'index.ipynb', ROOT/'README.md', ROOT/'nbs'/'experiments'/'results.ipynb'
ACCURACY = ['dataset', 'protocol', 'model', 'sequence_length', 'seed', 'part', 'moment', 'mae_mean', 'mae',
            'rmse', 'auc', 'hit_rate', 'ndcg', 'mrr', 'epochs', 'train_seconds', 'device', 'commit']
BENCHMARK = ['work', 'variant', 'value', 'unit', 'ratio', 'baseline', 'device', 'commit']
# columns of the other files, besides device and commit
OTHERS = {
    'significance': 'dataset protocol measure baseline ours theirs difference low high better seeds '
                    'users',
    'ensemble': 'dataset protocol model part mae_mean mae rmse seeds',
    'one_split': 'dataset protocol model sequence_length step part mae_mean mae rmse seed seeds',
    'calibration': 'dataset protocol rating probability frequency answers',
    'cold_users': 'dataset model seed k profile users targets mae rmse hit_rate ndcg',
    'ranking': 'dataset protocol model setting seed part moment ranked_by users hit_rate ndcg mrr '
               'hit_rate_50 hit_rate_200 hit_rate_100 targets mean_expected distinct_films '
               'mean_popularity train_seconds',
    'new_items': 'dataset model seed films targets mae rmse hit_rate hit_rate_100 mrr',
    'updates': 'dataset model seed slice ratings targets mae rmse hit_rate ndcg train_seconds',
    'scale': 'ratings work value unit',
    'tried': 'dataset protocol preset every tried part mae rmse log_loss next_log_loss hit_rate '
             'hit_rate_unknown train_loss train_seconds',
    'svd_grid': 'dataset protocol model seed part n_factors n_epochs lr_all reg_all mae_mean mae rmse epochs '
                'train_seconds',
    'precision': 'dataset protocol model variant seed epochs validation_mae_mean test_mae_mean '
                 'epoch_seconds ratio',
    'kill_resume': 'data epochs kill signal seconds exit begun saved equal',
    'speed': 'work variant value unit ratio baseline',
    'threads': 'work variant value unit ratio baseline',
    'learning_speed': 'dataset protocol model epochs seed part step labels seconds mae',
}
OTHERS = {name: columns.split() for name, columns in OTHERS.items()}
KEY = ['dataset', 'protocol', 'model', 'sequence_length', 'step', 'seed', 'part', 'moment']
FILES = sorted((ROOT/'results').glob('*.csv'))

def is_benchmark(path): return path.name.startswith('benchmark')

def problems(table, benchmark=False, columns=None):
    "List what is wrong with a table of results, or with another table that must have `columns`"
    wanted = [*columns, 'device', 'commit'] if columns else BENCHMARK if benchmark else ACCURACY
    missing = [name for name in wanted if name not in table]
    if missing: return [f'no column {name}' for name in missing]
    found = [] if len(table) else ['no rows']
    commit = table.commit.fillna('').astype(str)
    found += [f'row {row}: no commit' for row in table.index[commit.str.strip() == '']]
    found += [f'row {row}: measured on changed files'
              for row in table.index[commit.str.contains('+changes', regex=False)]]
    if columns: return found + [f'row {row}: there already' for row in table.index[table.duplicated()]]
    key = ['work', 'variant', 'baseline', 'device'] if benchmark else [name for name in KEY if name in table]
    found += [f'row {row}: there already' for row in table.index[table.duplicated(key)]]
    if benchmark:
        may_be_zero = table.unit.isin(['%', 'requests']) & (table['value'] == 0)
        return found + [f'row {row}: no value' for row in table.index[~(table['value'] > 0) & ~may_be_zero]]
    found += [f'row {row}: part {table.part[row]}'
              for row in table.index[~table.part.isin(['validation', 'test'])]]
    found += [f'row {row}: moment {table.moment[row]}'
              for row in table.index[~(table.moment.isna() | table.moment.isin(['known', 'unknown']))]]
    found += [f'row {row}: mae_mean above rmse' for row in table.index[table.mae_mean > table.rmse]]
    empty = table[['mae_mean', 'auc', 'hit_rate']].isna().all(axis=1)
    return found + [f'row {row}: no score' for row in table.index[empty]]

def good(**changes):
    row = dict(dataset='a', protocol='p', model='m', sequence_length=4, step=1, seed=0, part='test',
               moment='known', mae_mean=.7, mae=.6, rmse=.9, auc=.8, hit_rate=None, ndcg=None, mrr=None,
               epochs=3, train_seconds=1., device='cpu', commit='abc')
    return pd.DataFrame([row | changes, row | {'part': 'validation'}])

def measured(**changes):
    row = dict(work='w', variant='v', value=2., unit='s', ratio=None, baseline=None, device='cpu',
               commit='abc')
    return pd.DataFrame([row | changes, row | {'variant': 'u'}])

def test_problems_sees_each_kind():
    assert problems(good()) == problems(measured(), True) == []
    for table, what in [(good().drop(columns='auc'), 'no column auc'),
                        (good(part='validation'), 'row 1: there already'),
                        (good(part='train'), 'row 0: part train'),
                        (good(moment='later'), 'row 0: moment later'),
                        (good(mae_mean=1.), 'row 0: mae_mean above rmse'),
                        (good(commit=''), 'row 0: no commit'), (good(commit=None), 'row 0: no commit'),
                        (good(commit='abc+changes'), 'row 0: measured on changed files'),
                        (good(mae_mean=None, auc=None), 'row 0: no score'), (good()[:0], 'no rows')]:
        assert problems(table) == [what]
    for other in dict(step=2), dict(moment='unknown'): assert problems(good(part='validation', **other)) == []
    for table, what in [(measured().drop(columns='ratio'), 'no column ratio'),
                        (measured(variant='u'), 'row 1: there already'),
                        (measured(commit='abc+changes'), 'row 0: measured on changed files'),
                        (measured(value=None), 'row 0: no value')]:
        assert problems(table, True) == [what]

@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_result_file(path):
    assert problems(pd.read_csv(path), is_benchmark(path), OTHERS.get(path.stem)) == []

def test_problems_of_other_files():
    assert problems(good().drop(columns='auc'), columns=['mae_mean']) == []
    assert problems(good(), columns=['mae_mean', 'users']) == ['no column users']
    assert problems(good(commit='a+changes'), columns=['mae_mean']) == ['row 0: measured on changed files']
    assert problems(pd.concat([good(), good()], ignore_index=True),
                    columns=['mae_mean']) == ['row 2: there already', 'row 3: there already']

def test_significance_agrees_with_the_runs():
    "Ours in significance.csv is the mean of the same runs in results.csv"
    path = ROOT/'results'/'significance.csv'
    if not path.exists(): pytest.skip('no results/significance.csv yet')
    runs = pd.read_csv(ROOT/'results'/'results.csv')
    runs = runs.query('protocol == "leave-last-out" and part == "test" and model == "BST (rating)"')
    for row in pd.read_csv(path).itertuples():
        assert row.seeds == len(runs) and abs(row.ours - runs[row.measure].mean()) < 1e-5
        assert row.low < row.difference < row.high and abs(row.ours - row.theirs - row.difference) < 1e-5

METHODS = {'global mean', 'user + item bias', 'SVD', 'SVD++',
           'BST (keras)', 'BST (pytorch)', 'BST (paper)', 'BST (rating)'}
OURS = {'BST (both)', 'BST (both, user table)', 'BST (rating)', 'BST (fill-in)'}
SEEDS = 3  # of ours, by each protocol

def test_the_comparison_is_complete():
    "Each method has a row by each protocol, and by random-windows for each length; ours has three seeds"
    files = 'results', 'compared', 'reproduction'
    table = pd.concat(pd.read_csv(ROOT/'results'/f'{name}.csv') for name in files)
    table = table.query('dataset == "ml-1m" and part == "test"')
    wanted = [('leave-last-out', None), ('temporal', None), ('random-ratings', None),
              *(('random-windows', length) for length in (4, 10, 15, 20))]
    for protocol, length in wanted:
        rows = table[(table.protocol == protocol) & (length is None or table.sequence_length == length)]
        missing = METHODS - {*rows.model}
        assert not missing, (protocol, length, missing)
        for model, moment in {*zip(rows.model, rows.moment)}:
            if model not in OURS: continue
            measured = rows[(rows.model == model) & (rows.moment == moment)]
            assert measured.seed.nunique() >= SEEDS, (protocol, length, model, moment)

def test_both_answers_are_measured_with_and_without_the_moment():
    "Each measurement of the default has both, and both answers"
    runs = pd.read_csv(ROOT/'results'/'results.csv')
    runs = runs[runs.model.str.startswith('BST (both')]
    assert runs[['mae', 'log_loss', 'hit_rate', 'ndcg', 'mrr']].notna().all(axis=None)
    for key, rows in runs.groupby(['protocol', 'model', 'sequence_length', 'step', 'seed', 'part']):
        assert {*rows.moment} == {'known', 'unknown'}, key

def test_what_comes_next_can_be_learnt_from_the_sample():
    "The default beats popularity by half in the hit rate, with the moment and without"
    data = load('sample')
    popular = compare_ranking(data, make_split(data, 'temporal'), {}, parts=('test',)).hit_rate[0]
    rows = pd.read_csv(ROOT/'results'/'sample.csv').query(
        'protocol == "temporal" and model == "BST (both)" and part == "test"')
    assert {*rows.moment} == {'known', 'unknown'} and (rows.hit_rate >= 1.5 * popular).all()

# --- Lists and strangers

def read_or_skip(name, model):
    "Rows of MovieLens-1M in a result file, if it has this model"
    path = ROOT/'results'/f'{name}.csv'
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(dict(dataset=[], model=[]))
    if not (rows.model == model).any(): pytest.skip(f'{model} is not in results/{name}.csv yet')
    return rows[rows.dataset == 'ml-1m']

def test_lists_are_ranked_in_each_way_and_for_each_group():
    "Groups are parts of all users, and liked and disliked together are all"
    rows = read_or_skip('ranking', 'BST (both)').query('part == "test"')
    both = rows[rows.model == 'BST (both)']
    ways = [('known', 'next'), *(('unknown', way) for way in ('next', 'rating', 'liked'))]
    assert {*zip(both.moment, both.ranked_by)} == {*ways}
    for key, group in both.groupby(['seed', 'moment', 'ranked_by']):
        targets, hits = group.set_index('users').targets, group.set_index('users').hit_rate
        assert targets['liked'] + targets['disliked'] == targets['all'] > targets['own second'], key
        shares = targets[['liked', 'disliked']] / targets['all']
        assert abs((shares * hits[['liked', 'disliked']]).sum() - hits['all']) < 1e-4, key

def test_a_longer_list_has_more_hits():
    rows = read_or_skip('ranking', 'BST (both)').dropna(subset='hit_rate_50')
    assert (rows.hit_rate <= rows.hit_rate_50).all() and (rows.hit_rate_50 <= rows.hit_rate_200).all()

def test_strangers_are_served_better_the_more_they_have_rated():
    "From one rating on, the model beats the film's mean, and from three on a user's bias; without any, it is as good"
    rows = read_or_skip('cold_users', 'BST (both)')
    error = rows.fillna({'profile': ''}).groupby(['model', 'profile', 'k']).rmse.mean()
    mean, biased = error['mean of the film', ''], error['user + item bias', '']
    for profile in 'none', 'given':
        ours = error['BST (both)', profile]
        assert ours[0] < 1.005 * mean[0] and (ours.loc[1:] < mean.loc[1:]).all(), profile
        assert (ours.loc[3:] < biased.loc[3:]).all(), profile
        assert (ours.diff().dropna() < .01).all(), profile

def test_ensembles_have_their_models():
    "Each ensemble of one split has the stated number of models, and a smaller log loss than they"
    path = ROOT/'results'/'one_split.csv'
    if not path.exists(): pytest.skip('no results/one_split.csv yet')
    for _, rows in pd.read_csv(path).groupby(['protocol', 'sequence_length', 'step']):
        whole, alone = rows[rows.model.str.contains('ensemble')], rows[~rows.model.str.contains('ensemble')]
        assert len(whole) == 1 and whole.seeds.item() == len(alone) == alone.seed.nunique()
        assert set(rows.commit) == {rows.commit.iloc[0]}
        assert whole.log_loss.item() < alone.log_loss.mean()


# --- What the start page shows

def text(source): return source if isinstance(source, str) else ''.join(source or '')

def shown(outputs):
    "Yield the Markdown of a cell's outputs, or else their text"
    for output in outputs:
        kinds = output.get('data', {})
        yield text(kinds.get('text/markdown') or kinds.get('text/plain') or output.get('text')).strip()

def tables(markdown): return re.findall(r'(?:^\|.*\|[ ]*$\n?)+', markdown, flags=re.M)

def stored(page):
    "Return what the code cells of a page show, as saved in the notebook"
    return [list(shown(cell.get('outputs', []))) for cell in json.loads(page.read_text())['cells']
            if cell['cell_type'] == 'code']

def run_page(page):
    "Run a page, and return what its code cells show"
    shells = pytest.importorskip('execnb.shell')
    from fastcore.xtras import working_directory
    shell, found = shells.CaptureShell(page, mpl_format='png'), []
    with working_directory(page.parent):
        for cell in json.loads(page.read_text())['cells']:
            if cell['cell_type'] != 'code': continue
            outputs = shell.run(text(cell['source']))
            assert not shell.exc, f'a cell of {page.name} failed: {shell.exc}'
            found.append(list(shown(outputs)))
    return found

@pytest.fixture(scope='module')
def fresh():
    "What the code cells of the start page show now"
    if not FILES or not README.exists(): pytest.skip('no results/*.csv or no README.md yet')
    return run_page(INDEX)

def not_in(wanted, page):
    "List the tables of `wanted` that `page` does not show"
    return [table for markdown in wanted for table in tables(markdown) if table.strip() not in page]

def test_not_in_sees_another_figure():
    table = '**a**\n\n| model | MAE |\n|---|---|\n| BST | 0.6812 |\n'
    assert not_in([table], f'# page\n\n{table}\nmore') == []
    assert len(not_in([table], table.replace('0.6812', '0.6811'))) == len(not_in([table], '')) == 1

def test_stored_outputs_are_made_from_the_files(fresh):
    assert fresh == stored(INDEX), 'run python tools/execute.py nbs/index.ipynb'

def test_results_page_is_made_from_the_files():
    assert run_page(RESULTS) == stored(RESULTS), 'run python tools/execute.py nbs/experiments/results.ipynb'

def test_readme_shows_the_same(fresh):
    page = README.read_text()
    shown_tables = [table for outputs in fresh for markdown in outputs for table in tables(markdown)]
    assert shown_tables, 'index.ipynb makes no table'
    made = [markdown for outputs in fresh for markdown in outputs]
    assert not_in(made, page) == [], 'run python tools/docs.py readme'

def test_start_page_is_short():
    "Python and a result on the first screen, and no more than can be read in a few minutes"
    page = README.read_text()
    assert len(page.split()) <= 900, f'README.md has {len(page.split())} words'
    assert len(re.findall(r'^\|', page, flags=re.M)) <= 25, 'README.md has too many table rows'
    python = re.search('^``` ?python', page, flags=re.M)
    assert python.start() < page.index('\n|'), 'tables come before Python'
    assert page.count('![') == 1, 'one drawing'

def test_readme_has_no_table_of_its_own(fresh):
    "Tables come from outputs, or stand as text in index.ipynb"
    written = '\n'.join(text(cell['source']) for cell in json.loads(INDEX.read_text())['cells']
                        if cell['cell_type'] == 'markdown')
    numbers = lambda table: re.findall(r'\d\.\d{3,}', table)
    made = '\n'.join(markdown for outputs in fresh for markdown in outputs)
    assert [table for table in tables(README.read_text()) if numbers(table)
            and table.strip() not in made] == []
    assert not [table for table in tables(written) if numbers(table)], 'figures typed in by hand'


# --- No figure is typed in

PUBLISHED = {'0.687', '0.6487', '0.761'}  # by the authors of the networks that we rebuilt
PAGES = [INDEX, *sorted((ROOT/'nbs'/'tutorials').glob('*.ipynb'))]
UNITS = 'examples|ratings|batches|requests|users|items|recommendations'
SPEED = (rf'\d[\d,.]*\s*(?:(?:{UNITS})(?:/s|\s+(?:a|per)\s+second)|ms\b'
         r'|(?:times|×|x)\s+(?:faster|as fast|quicker))')

def typed_figures(markdown):
    """List figures in prose that must come from a measurement: three decimals or more, or a speed

    Code, links and names of papers do not count."""
    prose = re.sub(r'^(```+|~~~+).*?^\1[ ]*$', '', markdown, flags=re.M | re.S)
    for other in (r'`[^`\n]*`', r'\$\$.*?\$\$', r'\$[^$\n]+\$', r'\]\([^)]*\)', r'<https?:[^>]*>',
                  r'https?:\S+', r'(?:arXiv|doi):[\w./-]+', r'\d+\.\d+\.\d+\S*'):
        prose = re.sub(other, ' ', prose, flags=re.S)
    return [found for found in re.findall(r'(?<![\w.])\d+\.\d{3,}(?![\w])', prose)
            if found not in PUBLISHED] + re.findall(SPEED, prose)

def test_typed_figures_sees_them():
    prose = 'an error of 0.6422, or 30 examples/s, 1,200 ratings per second, 13 ms and 3.5 times faster'
    assert typed_figures(prose) == [
        '0.6422', '30 examples/s', '1,200 ratings per second', '13 ms', '3.5 times faster']
    prose = ('`0.6422`, 0.64, version 1.2.345, [x](a/0.1234.html), arXiv:1905.06874, $0.1234$, 380 users, '
             'published as 0.6487')
    assert typed_figures(prose) == []
    assert typed_figures('```\nMAE 0.6422\n```\n') == []

@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)
def test_no_figure_is_typed_in(path):
    found = [(number, figures) for number, cell in enumerate(json.loads(path.read_text())['cells'])
             if cell['cell_type'] == 'markdown' and (figures := typed_figures(text(cell['source'])))]
    assert found == [], f'{path.name}: let a cell read these from a file under results/'
