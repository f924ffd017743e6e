"""Events without ratings: the made-up shop from the command line to the service, and features of any kind."""
import json

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from bst_nbdev.cli import bst_evaluate, bst_items, bst_recommend, bst_train
from bst_nbdev.core import ConfigError, DataError
from bst_nbdev.data import from_frame
from bst_nbdev.evaluation import evaluate_model
from bst_nbdev.pipeline import Recipe, build, train
from bst_nbdev.prepared import load, load_prepared, save_prepared
from bst_nbdev.recommender import Recommender
from bst_nbdev.service import make_app

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A run on the shop, by the command"
    folder = tmp_path_factory.mktemp('shop')/'run'
    assert bst_train(['--data', 'sample-shop', '--epochs', '2', '--device', 'cpu', '--out', str(folder)]) == 0
    return folder

def test_the_shop_beats_popularity(folder):
    scores = pd.DataFrame(json.loads((folder/'metrics.json').read_text())['scores']).query('part == "test"')
    model = scores.model.str.startswith('BST')
    assert scores.hit_rate[model].min() > 2 * scores.hit_rate[~model].max()

def test_commands_of_the_shop(folder, tmp_path, capsys):
    "A list of items seen, by title, with kinds of events; no column speaks of ratings"
    shop = load('sample-shop')
    mine = tmp_path/'mine.csv'
    pd.DataFrame(dict(title=shop.titles[[3, 8]], event=['view', 'cart'])).to_csv(mine, index=False)
    assert bst_recommend([str(folder), '--ratings', str(mine), '--k', '3', '--format', 'csv', '--profile', 'age=33', '--quiet']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and {'category', 'brand', 'price', 'next'} <= set(lines[0].split(','))
    assert not {'rating', 'expected', 'genres', 'year'} & set(lines[0].split(','))
    assert bst_recommend([str(folder), '--ratings', str(mine), '--why', str(shop.titles[20])]) == 0
    assert 'rating' not in capsys.readouterr().out
    assert bst_evaluate([str(folder)]) == 0 and bst_items([str(folder), 'kayak', '--k', '2']) == 0
    assert 'kayak' in capsys.readouterr().out
    assert bst_recommend([str(folder), '--ratings', str(mine), '--profile', 'age=old']) == 1
    assert 'is not a number' in capsys.readouterr().err

def test_service_of_the_shop(folder):
    recommender = Recommender.load(folder, device='cpu')
    with TestClient(make_app(recommender, ['testserver']), headers={'content-type': 'application/json'}) as client:
        health = client.get('/health').json()
        assert health['item_word'] == ['product', 'products'] and health['rating_values'] == [1.0]
        assert health['profile']['age'] is None and 'Eastmark' in health['profile']['country']
        asked = dict(ratings=[dict(item='P104'), dict(item='P108')], profile=dict(age=40), k=3)
        items = client.post('/recommend', json=asked).json()['items']
        assert len(items) == 3 and {'item', 'title', 'category', 'price', 'next'} <= set(items[0])
        assert client.post('/explain', json=asked | dict(item=items[0]['item'])).status_code == 200

def test_only_some_kinds_are_predicted(folder):
    shop = load('sample-shop')
    split, batches, _ = build(Recipe(targets='purchase', epochs=1), shop)
    kinds = shop.frame(split.train).event
    assert set(kinds) == {'purchase'} and len(split.train) < len(shop) / 4
    inputs, _ = next(iter(batches['train']))
    assert len(inputs['event'].unique()) == 4                     # padding, and all three kinds in the histories
    with pytest.raises(ConfigError, match='choose one of cart, purchase, view'): build(Recipe(targets='sale'), shop)
    with pytest.raises(ConfigError, match='no kinds of events'): build(Recipe(targets='sale'), load('sample'))

def test_published_presets_tell_events_from_drawn_ones():
    "Drawn as often as they occur, so that popularity says nothing; evaluated twice, the same items are drawn"
    run = train(Recipe(preset='paper', epochs=1), load('sample-shop'), 'cpu')
    assert set(run.table.columns) == {'protocol', 'model', 'part', 'moment', 'auc'} and run.table.auc.between(.4, 1).all()
    batches = run.model.config.batches(run.interactions, run.split)
    assert evaluate_model(run.model, batches['test']) == evaluate_model(run.model, batches['test'])

def table(**columns):
    "Ten views of five items by two users, with more columns"
    return pd.DataFrame(dict(user=[1, 2] * 5, item=[1, 2, 3, 4, 5] * 2, timestamp=range(10)) | columns)

WRONG = [(dict(lists=[[1, [2]]] * 10), 'in a list'), (dict(dicts=[dict(a=1)] * 10), 'plain values, or lists'),
         (dict(tags=['a|b', 'c'] * 5), 'holds several values'), (dict(rating=['x'] * 10), 'rating must be a number')]

@pytest.mark.parametrize('columns, says', WRONG)
def test_wrong_columns_of_events(columns, says):
    with pytest.raises(DataError, match=says): from_frame(table(**columns))

def test_odd_columns_are_treated_as_documented(caplog):
    "One value, as many values as rows, mixed types, NaN, ids of sessions, a column that is called like ours"
    items = pd.DataFrame(dict(item=range(1, 41), same='x', sku=[f's{n}' for n in range(40)], mixed=[1, 'a'] * 20,
                              price=[np.nan, 1.5] * 20, empty=None))
    data = from_frame(table(item=range(1, 11), session=[f'{n}' for n in range(10)]), items=items)
    assert list(data.item_features) == ['same', 'mixed', 'price'] and 'sku is left out' in caplog.text
    assert 'empty is left out: it has no values' in caplog.text
    assert data.item_features['mixed'].values.ids.tolist() == ['1', 'a']
    with pytest.raises(DataError, match="must not be called 'title'"):
        from_frame(table(), items=items.rename(columns=dict(sku='title', same='name')), columns=dict(title='name'))
    for wrong in np.inf, -np.inf:
        with pytest.raises(DataError, match='finite number'):
            from_frame(table(), items=pd.DataFrame(dict(item=range(1, 6), price=[wrong, 1, 2, 3, 4])), features=dict(price='numeric'))

def test_unknown_kinds_and_values_are_row_0(folder, tmp_path):
    "At the time of asking a kind may be new, a profile empty, a feature missing"
    recommender = Recommender.load(folder, device='cpu')
    known, new = (recommender.recommend(pd.DataFrame(dict(item=['P104'], event=[kind])), k=3) for kind in ('view', 'gift'))
    plain = recommender.recommend(['P104'], k=3)
    assert new.equals(plain) and not known.equals(plain)
    shop = load_prepared(save_prepared(load('sample-shop'), tmp_path/'prepared'))
    assert (shop.event_values == load('sample-shop').event_values).all()
    grown = recommender.add_items(pd.DataFrame(dict(item=['X1'], title=['New One'], category=['spaceship'], brand=[None], price=['12.5'], tags=[''])))
    assert grown.predict(['P104'], ['X1']).next[0] > 0
