"""Experiments measure what they say: strangers are unseen, ranks are those of the package, groups are parts of all users."""
import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bst_nbdev.core import show_progress
from bst_nbdev.prepared import load
from bst_nbdev.presets import build_model
from bst_nbdev.ranking import ModelScores, rank_targets, ranking_scores, shares_second
from bst_nbdev.splits import make_split

SCRIPTS = Path(__file__).resolve().parent.parent/'experiments'

@pytest.fixture
def script(monkeypatch):
    "Import a script of the folder by its name"
    monkeypatch.syspath_prepend(SCRIPTS)
    bars = show_progress(False)
    yield importlib.import_module
    show_progress(bars)

@pytest.fixture(scope='module')
def sample(): return load('sample')

# --- Ranking

def test_each_way_ranks_as_the_package_does(script, sample):
    ranking, rows = script('ranking'), make_split(sample, 'leave-last-out').test[:40]
    model = build_model(sample).eval()
    for moment in 'known', 'unknown':
        found = ranking.rank_all(ranking.ModelAnswers(model, sample, moment), sample, rows)
        assert set(found) == {'liked', 'next', 'rating'}
        for way, columns in found.items():
            ranks, candidates = rank_targets(ModelScores(model, sample, None, moment, way), sample, rows)
            assert (columns['rank'] == ranks).all() and (columns['candidates'] == candidates).all()
            hits = [item in listed for item, listed in zip(sample.item[rows], columns['listed'])]
            assert (np.array(hits) >= (ranks <= 10)).all()
            assert columns['expected'].min() >= 1 and columns['expected'].max() <= 5

def test_rows_of_a_baseline_are_those_of_each_group(script, sample):
    ranking, split = script('ranking'), make_split(sample, 'leave-last-out')
    rows = pd.DataFrame(ranking.popularity(sample, split, 0, None)).query('part == "test"').set_index('users')
    assert list(rows.index) == ['all', 'own second', 'liked', 'disliked'] and (rows.ranked_by == '').all()
    alone = ~shares_second(sample, split.test)
    assert rows.targets.tolist()[:2] == [len(split.test), alone.sum()]
    best = np.bincount(sample.item[np.setdiff1d(np.arange(len(sample)), [*split.validation, *split.test])])
    ranks, _ = rank_targets(lambda rows: np.tile(best, (len(rows), 1)), sample, split.test)
    for name, chosen in ('all', alone | True), ('own second', alone):
        assert rows.ndcg_50[name] == pytest.approx(ranking_scores(ranks[chosen], 50)['ndcg'])
    assert rows.mean_popularity['all'] > best.mean() and rows.distinct_films.notna().tolist() == [True] + [False] * 3

def test_rows_of_the_same_job_are_replaced(script, tmp_path):
    ranking, path = script('ranking'), tmp_path/'ranking.csv'
    def rows(model, seed, value):
        row = dict(dataset='d', protocol='p', model=model, seed=seed, hit_rate=value, commit='06452e5')
        return ranking.with_texts(pd.DataFrame([row]).reindex(columns=ranking.COLUMNS))
    for job in ('a', 0, .1), ('a', 1, .2), ('b', 0, .3), ('a', 0, .4): ranking.merge(path, rows(*job))
    found = pd.read_csv(path, dtype=str)
    assert found.hit_rate.tolist() == ['0.4', '0.2', '0.3'] and list(found) == ranking.COLUMNS
    assert (found.commit == '06452e5').all()  # not a number

# --- Strangers

def test_strangers_are_kept_out(script, sample):
    cold = script('cold_users')
    split, strangers, learnt = cold.keep_out(sample)
    for rows in split.train, split.validation, split.test, learnt: assert not np.isin(sample.user[rows], strangers).any()
    assert len(strangers) > 20 and (np.diff(sample.offsets)[strangers] >= cold.LEAST).all()
    rows, exist = cold.next_rows(sample, strangers, 50)
    assert (sample.user[rows] == strangers[:, None]).all() and exist[:, :10].all()
    assert len(cold.first_ratings(sample, strangers[0], 3, True)) == 3
    assert cold.first_ratings(sample, strangers[0], 3, False).profile == (0, 0, 0)

def test_strangers_are_served_better_than_by_averages(script, sample):
    "Answers to strangers beat the film's mean, and biases where there are more ratings; lists beat popularity"
    cold, compare = script('cold_users'), script('compare')
    split, strangers, learnt = cold.keep_out(sample)
    rows = pd.DataFrame([dict(row, model=name) for name, row in cold.by_baselines(sample, strangers, learnt)])
    baseline = {name: of_model.set_index('k') for name, of_model in rows.groupby('model')}
    model, _ = compare.train_on(sample, cold.Recipe('sample', cold.PRESET, cold.PROTOCOL), split)
    ours = pd.DataFrame(cold.by_model(model.eval(), sample, strangers)).set_index(['profile', 'k'])
    assert set(ours.index.levels[0]) == {'none', 'given'}
    for profile in 'none', 'given':
        found, mean = ours.loc[profile], baseline['mean of the film'].rmse
        assert (found.rmse < 1.02 * mean).all() and (found.rmse.loc[2:] < mean.loc[2:]).all(), profile
        assert found.rmse[5] < baseline['user + item bias'].rmse[5], profile
        assert found.rmse[50] < found.rmse[10] < found.rmse[1] + .02 and found.mae[50] < found.mae[0], profile
        assert found.hit_rate.mean() > 1.5 * baseline['popularity'].hit_rate.mean(), profile

def test_a_stranger_without_ratings_has_no_bias(script, sample):
    cold = script('cold_users')
    _, strangers, learnt = cold.keep_out(sample)
    fitted = cold.UserItemBias().fit(sample, learnt)
    assert (cold.stranger_biases(fitted, sample, strangers, 0) == 0).all()
    known = np.unique(sample.user[learnt])[:5]
    count = int(np.diff(sample.offsets)[known].min()) - 2  # of the training ratings
    refit = cold.stranger_biases(fitted, sample, known, count)
    assert np.abs(refit - fitted.user[known]).max() < .3

# --- What was tried

def test_each_change_makes_a_model_and_a_training(script, sample):
    tune = script('tune_stream')
    assert list(tune.TRIED) == list(tune.PROTOCOL) == ['both', 'rating', 'fill-in']
    for preset, changes in tune.TRIED.items():
        for settings, training in changes.values():
            build_model(sample, preset, **settings)
            tune.TrainingConfig(**{**tune.training_settings(preset, 1000), **training})

def test_the_next_item_is_ranked_with_and_without_the_moment(script, sample):
    tune, rows = script('tune_stream'), make_split(sample, 'leave-last-out').validation
    found = tune.ranking_on(build_model(sample).eval(), sample, rows[:30])
    assert list(found) == ['hit_rate', 'ndcg', 'hit_rate_unknown', 'ndcg_unknown']
    known = build_model(sample, moment_dropout=0.).eval()
    assert list(tune.ranking_on(known, sample, rows[:30])) == ['hit_rate', 'ndcg']

# --- New items

def test_new_films_are_neither_targets_nor_history(script, sample):
    new_items = script('new_items')
    is_new = new_items.new_films(sample)
    split, rows = new_items.keep_out(sample, is_new)
    assert is_new.sum() == round(sample.num_items * new_items.SHARE) and not is_new[0]
    first = pd.Series(sample.timestamp).groupby(sample.item).min()
    assert first[is_new[first.index]].min() >= first[~is_new[first.index]].max()
    for part in split.train, split.validation, split.test, split.history_rows: assert not is_new[sample.item[part]].any()
    assert len(split.history_rows) + len(rows) == len(sample) and is_new[sample.item[rows]].all()

def test_genres_predict_by_hand(script, sample):
    rows = np.arange(500)
    means = script('new_items').genre_means(sample, rows)
    film, mean = sample.item[7], sample.rating[rows].mean()
    of_genre = [sample.rating[rows][sample.genres[sample.item[rows], g] > 0].mean() - mean
                for g in np.flatnonzero(sample.genres[film])]
    assert np.isclose(means[film], mean + np.mean(of_genre), atol=1e-5)

# --- Updates

def test_slices_follow_each_other_in_time(script, sample):
    updates = script('updates')
    known = list(updates.prefixes(sample))
    assert [len(data) for data in known] == [round(cut * len(sample)) for cut in updates.CUTS]
    for before, after in zip(known, known[1:]):
        assert before.users == after.users == sample.users and before.items == sample.items
        rows = updates.rows_since(after, updates.counts(before))
        assert len(rows) == len(after) - len(before)
        assert after.timestamp[rows].min() >= before.timestamp.max()
    assert (known[-1].item == sample.item).all() and (known[-1].genres == sample.genres).all()
