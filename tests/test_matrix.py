"""Every preset, protocol and objective together: a run ends well, or is refused before its first step."""
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from bst_nbdev.core import BSTError, show_progress
from bst_nbdev.data import from_frame
from bst_nbdev.names import OBJECTIVES, PROTOCOLS
from bst_nbdev.pipeline import Recipe, train
from bst_nbdev.presets import PRESETS
from bst_nbdev.recommender import Recommender
from bst_nbdev.training import Callback

class FirstStep(Callback):
    "Notes that training has begun"
    begun = False

    def after_step(self, *_): self.begun = True

@pytest.fixture(autouse=True)
def no_bars():
    before = show_progress(False)
    yield
    show_progress(before)

def made_up(users, items, ratings):
    "Random ratings of a few people"
    random = np.random.default_rng(0)
    table = pd.DataFrame(dict(user=np.repeat(np.arange(users), ratings), rating=random.integers(1, 6, users * ratings)))
    table['item'] = np.concatenate([random.permutation(items)[:ratings] for _ in range(users)])
    table['timestamp'] = 978_300_000 + random.integers(0, 10**6, len(table))
    films = pd.DataFrame(dict(item=range(items), title=[f'Film {n}' for n in range(items)], genres='Drama', year=1990))
    return from_frame(table, users=pd.DataFrame(dict(user=range(users), sex='F')), items=films)

@pytest.fixture(scope='module')
def few(): return made_up(users=16, items=30, ratings=14)

@pytest.mark.parametrize('preset', PRESETS)
def test_each_protocol_and_objective(few, preset):
    ended = 0
    for protocol, objective in product(PROTOCOLS, [None, *OBJECTIVES]):
        started, name = FirstStep(), f'{preset} / {protocol} / {objective}'
        try:
            recipe = Recipe(preset=preset, protocol=protocol, objective=objective, epochs=1, batch_size=64)
            run = train(recipe, few, 'cpu', callbacks=[started])
        except BSTError as error:
            assert not started.begun, f'{name} was refused after the training had begun: {error}'
            assert '\n' not in str(error)
            continue
        ended += 1
        assert np.isfinite(run.training_log.loss).all(), name
        listed = Recommender.from_run(run).recommend(3, k=3)
        assert len(listed) == 3 and listed.select_dtypes('number').notna().all(axis=None), name
    assert ended >= 3  # `fill-in` has one protocol

@pytest.mark.parametrize('preset', PRESETS)
def test_smallest_data(preset):
    "Three ratings of one user, and of two"
    for users in 1, 2:
        started = FirstStep()
        try: run = train(Recipe(preset=preset, protocol='leave-last-out'), made_up(users, 3, 3), 'cpu', callbacks=[started])
        except BSTError as error: assert not started.begun and '\n' not in str(error)
        else: assert np.isfinite(run.training_log.loss).all()

def test_answers_in_any_default_dtype_and_under_autocast(few):
    recommender = Recommender.from_run(train(Recipe(epochs=1), few, 'cpu'))
    usual = recommender.recommend(3, k=5)
    torch.set_default_dtype(torch.float64)
    try:
        assert recommender.recommend(3, k=5).equals(usual)
        assert np.isfinite(train(Recipe(epochs=1), few, 'cpu').training_log.loss).all()
    finally: torch.set_default_dtype(torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        coarse = recommender.predict(3, usual.item.tolist())
        assert len(recommender.recommend(3, k=5)) == 5 and len(recommender.explain(3, usual.item[0]))
    assert np.allclose(coarse.expected, usual.expected, atol=.1)
