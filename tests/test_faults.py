"""Ten faults of other implementations of this model. Each is impossible here, and its test fails where it is made again."""
import ast
import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchmetrics import MeanSquaredError

from bst_nbdev import evaluation, windows
from bst_nbdev.core import ConfigError, show_progress
from bst_nbdev.sample import make_sample
from bst_nbdev.data import from_frame
from bst_nbdev.movielens import read_movielens
from bst_nbdev.names import PROTOCOLS
from bst_nbdev.splits import make_split, window_targets
from bst_nbdev.windows import Windows, make_batches
from bst_nbdev.packing import Chunks, make_packed_batches
from bst_nbdev.bst import BSTConfig
from bst_nbdev.presets import PRESETS, build_model
from bst_nbdev.training import predict, score
from bst_nbdev.evaluation import rating_scores
from bst_nbdev.pipeline import Recipe, build, train
from bst_nbdev.runs import load_model, save_run

PACKAGE = Path(__file__).resolve().parent.parent/'bst_nbdev'
MODEL_FILES = [PACKAGE/f'{name}.py' for name in ('embedding', 'transformer', 'mlp', 'model', 'heads', 'bst', 'relative_attention', 'two_stream', 'top_items')]
each_preset = pytest.mark.parametrize('preset', [name for name, preset in PRESETS.items() if preset.config is BSTConfig])
each_kind = pytest.mark.parametrize('preset', ['both', 'single-sequence'])  # one that reads in chunks, one that reads windows
each_protocol = pytest.mark.parametrize('protocol', PROTOCOLS)

@pytest.fixture(scope='module', autouse=True)
def no_bars():
    before = show_progress(False)
    yield
    show_progress(before)

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "Twelve users of the synthetic sample's world"
    return read_movielens(make_sample(tmp_path_factory.mktemp('tiny'), n_users=12, n_movies=150))

def model_and_batch(interactions, preset, length=5, rows=(0, 2, 60, 200, 500)):
    "A preset in eval mode with all its weights awake and its answers not clamped, and a batch whose first rows have short histories"
    torch.manual_seed(0)
    model = build_model(interactions, preset, sequence_length=length).eval()
    for parameter in model.parameters(): nn.init.normal_(parameter, std=.3) if parameter.ndim > 1 else None
    model.to_scale = lambda y: y
    inputs, _ = Windows(interactions, np.array(rows), length)[torch.arange(len(rows))]
    return model, inputs


# --- 1. Attention across the batch

def others_matter(model, inputs):
    "Whether the answer for row 0 depends on who else is in the batch"
    others = {name: torch.cat([value[:1], value[1:].flip(0)]) for name, value in inputs.items()}
    for name in 'user', 'item': others[name][1:] = 1
    others['rating'][1:] = 5 - others['rating'][1:]
    return not torch.equal(model(**inputs)[0], model(**others)[0])

class AcrossTheBatch(nn.Module):
    "The fault itself: `nn.MultiheadAttention` that takes the batch for the sequence"
    def __init__(self, width):
        super().__init__()
        self.layer = nn.MultiheadAttention(width, 1)
    def forward(self, x, padding_mask=None, last=False):
        found = self.layer(x, x, x)[0]
        return found[:, -1:] if last else found

@each_preset
def test_attention_does_not_run_across_the_batch(tiny, preset):
    "What is predicted for one user does not depend on who else is in the batch."
    model, inputs = model_and_batch(tiny, preset)
    assert not others_matter(model, inputs)
    for block in model.encoder.blocks: block.attention = AcrossTheBatch(block.norm1.normalized_shape[0])
    assert others_matter(model.eval(), inputs)  # the test sees the fault


# --- 2. An RMSE that is none

def test_rmse_is_a_root_and_pooled():
    "RMSE is the root of the mean over all examples at once, however they are batched."
    errors = torch.tensor([0., 0, 0, 0, 2])
    labels = torch.full((5,), 3.)
    batches = [({'x': (labels + errors)[a:b]}, labels[a:b]) for a, b in ((0, 4), (4, 5))]  # uneven, all of the error in the last
    class Same(nn.Module):
        def forward(self, x): return x
    found = score(*predict(Same(), batches), dict(rmse=MeanSquaredError(squared=False)))['rmse']
    assert found == pytest.approx((4 / 5) ** .5)  # not 4/5, the mean square, and not (0 + 2) / 2, the mean over batches
    assert rating_scores(labels + errors, labels, (1., 2., 3., 4., 5.))['rmse'] == pytest.approx(found)


# --- 3. The same target twice, or in two parts

def repeated(split):
    "Targets that stand in a split more than once"
    rows, times = np.unique(np.concatenate([split.train, split.validation, split.test]), return_counts=True)
    return rows[times > 1].tolist()

@each_protocol
@pytest.mark.parametrize('step', [1, 2, 3, 7])
def test_no_target_twice(tiny, protocol, step):
    "No rating is a target twice, in one part or in two."
    assert repeated(make_split(tiny, protocol, 4, step)) == []

@pytest.mark.parametrize('ratings', range(2, 12))
def test_last_window_is_not_emitted_twice(ratings):
    "Also where the last step lands exactly on a user's last rating, there is one window that ends there."
    offsets = np.array([0, 0, ratings, 2 * ratings])
    for step in 1, 2, 3:
        targets = window_targets(offsets, 4, step).tolist()
        assert len(targets) == len(set(targets)) and {ratings - 1, 2 * ratings - 1} <= set(targets)

def test_repeated_sees_the_fault(tiny):
    split = make_split(tiny, 'random-windows', 4)
    assert repeated(replace(split, test=np.append(split.test, split.train[0]))) == [split.train[0]]
    assert repeated(replace(split, train=np.append(split.train, split.train[-1]))) == [split.train[-1]]


# --- 4. Chosen on the test set

@pytest.mark.parametrize('protocol', [name for name in PROTOCOLS if name != 'random-windows'])  # there, test ratings are histories too
@each_kind
def test_best_checkpoint_is_chosen_on_validation(tiny, protocol, preset):
    "Other ratings in the test part change the test score, and neither the history nor one weight."
    recipe = Recipe(preset=preset, protocol=protocol, sequence_length=4, epochs=2)
    honest = train(recipe, tiny, 'cpu', baselines=())
    rating = tiny.rating.copy()
    rating[honest.split.test] = 6 - rating[honest.split.test]
    blind = train(recipe, replace(tiny, rating=rating), 'cpu', baselines=())
    pd.testing.assert_frame_equal(honest.training_log.drop(columns='seconds'), blind.training_log.drop(columns='seconds'), check_exact=True)
    assert all(torch.equal(value, blind.model.state_dict()[name]) for name, value in honest.model.state_dict().items())
    assert honest.table.mae_mean.iloc[-1] != blind.table.mae_mean.iloc[-1] and honest.table.mae_mean.iloc[0] == blind.table.mae_mean.iloc[0]

@each_protocol
@each_kind
def test_training_never_meets_a_test_target(tiny, protocol, preset, monkeypatch):
    "What is given to the training loop ends in no test target."
    def fit(model, train, validation, *args, **kwargs):
        for batches in train, validation: seen.update(getattr(batches, 'windows' if preset == 'single-sequence' else 'chunks').targets.tolist())
        return original(model, train, validation, *args, **kwargs)
    seen, original = set(), evaluation.fit
    monkeypatch.setattr(evaluation, 'fit', fit)
    run = train(Recipe(preset=preset, protocol=protocol, sequence_length=4, epochs=1), tiny, 'cpu', baselines=())
    assert seen == {*run.split.train.tolist(), *run.split.validation.tolist()} and not seen & set(run.split.test.tolist())


@pytest.mark.parametrize('visibility', ['causal', 'bidirectional'])
def test_no_hidden_rating_is_an_input(tiny, visibility):
    "By random-ratings, what is in a batch stays the same when all validation and test ratings change."
    split = make_split(tiny, 'random-ratings')
    rating, hidden = tiny.rating.copy(), np.concatenate([split.validation, split.test])
    rating[hidden] = 6 - rating[hidden]
    batches, others = (make_packed_batches(data, split, chunk=8, min_history=8, visibility=visibility) for data in (tiny, replace(tiny, rating=rating)))
    for part in batches:
        for (inputs, label), (other, other_label) in zip(batches[part], others[part], strict=True):
            assert all(torch.equal(value, other[name]) for name, value in inputs.items())
            assert torch.equal(label, other_label) == (part == 'train')

def test_later_ratings_are_refused_where_the_task_is_prediction():
    for protocol in PROTOCOLS:
        if protocol == 'random-ratings': Recipe(protocol=protocol, visibility='bidirectional')
        else:
            with pytest.raises(ConfigError, match='is a prediction task'): Recipe(protocol=protocol, visibility='bidirectional')


# --- 5. A rating of 1 erases the film

@each_preset
def test_a_rating_of_one_keeps_film_and_position(tiny, preset):
    "Of a behaviour rated 1, the film and the position still matter to the answer."
    model, inputs = model_and_batch(tiny, preset, rows=(60, 200))
    inputs['rating'][:, :-1] = 1.
    x = model.sequence(inputs['item'], inputs['rating'], inputs['time_gap'], inputs['padding_mask'])
    assert (x[:, :-1].abs().sum(-1) > 0).all()
    film, gap = inputs['item'].clone(), inputs['time_gap'].clone()
    film[:, 1] = film[:, 1] % 100 + 1
    assert (model(**inputs | {'item': film}) != model(**inputs)).all()
    gap[:, 1] *= 1000
    swapped = {name: inputs[name].clone() for name in ('item', 'rating', 'time_gap')}
    for value in swapped.values(): value[:, [0, 1]] = value[:, [1, 0]]
    moved = inputs | ({'time_gap': gap} if model.config.position == 'time-gap' else swapped)
    assert (model(**moved) != model(**inputs)).any()


# --- 6. Padding that is seen

@each_preset
def test_padding_is_masked_and_not_averaged(tiny, preset):
    "What stands in padded positions changes nothing."
    model, inputs = model_and_batch(tiny, preset)
    padded = inputs['padding_mask']
    assert padded[:2].any(1).all() and not padded[2:].any()
    filled = inputs | {'item': inputs['item'].masked_fill(padded, 7), 'rating': inputs['rating'].masked_fill(padded, 5.),
                       'time_gap': inputs['time_gap'].masked_fill(padded, 9e6)}
    torch.testing.assert_close(model(**filled), model(**inputs), rtol=0, atol=0)
    seen = filled | {'padding_mask': torch.zeros_like(padded)}
    assert (model(**seen)[:2] != model(**inputs)[:2]).any()  # unmasked, it would matter


# --- 7. Python for each example

def test_a_batch_is_one_gather(tiny, monkeypatch):
    "An epoch takes one gather for each batch, not one for each example."
    calls, gather = [], windows.Windows.__getitem__
    monkeypatch.setattr(windows.Windows, '__getitem__', lambda self, positions: (calls.append(len(positions)),
                                                                                   gather(self, positions))[1])
    batches = make_batches(tiny, make_split(tiny, 'temporal', 4), 4, batch_size=64)['train']
    assert len(list(batches)) == len(calls) == len(batches) and sum(calls) == len(batches.windows) > 64

def slow_or_unsafe(code):
    "Lines that use `.iloc[` for each example, or run text as code"
    def walk(node, inside):
        inside = inside or isinstance(node, (ast.For, ast.While, ast.comprehension, ast.ListComp, ast.GeneratorExp, ast.DictComp,
                                             ast.SetComp))
        inside = inside or isinstance(node, ast.FunctionDef) and node.name == '__getitem__'
        if inside and isinstance(node, ast.Subscript) and isinstance(node.value,
                                                                     ast.Attribute) and node.value.attr == 'iloc': yield node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ('eval', 'exec'): yield node.lineno
        for child in ast.iter_child_nodes(node): yield from walk(child, inside)
    return list(walk(ast.parse(code), False))

def test_no_row_by_row_tables_and_no_eval():
    "No module reads a table row by row, and none evaluates text."
    assert slow_or_unsafe('for i in x:\n    y = t.iloc[i]\nz = [t.iloc[i] for i in x]\neval(s)\nm.eval()\nt.iloc[0]') == [2, 3, 4]
    assert slow_or_unsafe('class D:\n    def __getitem__(self, i):\n        return self.t.iloc[i]') == [3]
    assert {path.name: found for path in PACKAGE.glob('*.py') if (found := slow_or_unsafe(path.read_text()))} == {}


# --- 8. Typed-in sizes and globals

def defaults_of(node):
    "Defaults of parameters and of fields, and the last value of `x or …`, which is the default where `x` is None"
    if isinstance(node, ast.arguments): return [*node.defaults, *node.kw_defaults]
    if isinstance(node, ast.AnnAssign): return [node.value]
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or): return node.values[-1:]
    return []

def literals(code):
    "Lines of classes with a whole number above 8 that is no default"
    for klass in [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ClassDef)]:
        defaults = {id(part) for node in ast.walk(klass) for default in defaults_of(node) if default for part in ast.walk(default)}
        yield from (node.lineno for node in ast.walk(klass) if isinstance(node, ast.Constant) and type(node.value) is int
                    and node.value > 8 and id(node) not in defaults)

def module_state(code):
    "Lists, dictionaries and sets of a module, in small letters, that functions of its classes read; constants are in capitals"
    tree = ast.parse(code)
    loose = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)
             and not target.id.lstrip('_').isupper() and not target.id.startswith('__')}
    return [node.lineno for klass in tree.body if isinstance(klass, ast.ClassDef) for node in ast.walk(klass)
            if isinstance(node, ast.Global) or isinstance(node, ast.Name) and node.id in loose and isinstance(node.ctx, ast.Load)]

def test_no_typed_in_sizes_and_no_globals():
    "Classes of the model hold no sizes of their own, and read no variables of the module."
    bad = 'sizes = {}\nclass A:\n    w: int = 32\n    def f(self, n=84):\n        return nn.Linear(661, sizes["d"], n or 1024)'
    assert (list(literals(bad)), module_state(bad)) == ([5], [5])
    for path in MODEL_FILES: assert (list(literals(path.read_text())), module_state(path.read_text())) == ([], []), path.name

@each_preset
def test_any_size_of_data_fits(preset):
    "All presets build and answer for data of odd sizes, with and without profiles and genres."
    n = np.arange(61)
    ratings = pd.DataFrame(dict(user=n % 7, item=n % 13, rating=n % 5 + 1, timestamp=n))
    for users, items in [(None, None), (pd.DataFrame(dict(user=range(7), town=list('abcabcd'))),
                                        pd.DataFrame(dict(item=range(13), genres='a|b|c', year=1990)))]:
        data = from_frame(ratings, users, items)
        for length in 2, 7:
            model, inputs = model_and_batch(data, preset, length, rows=(0, 11, 60))
            assert model(**inputs).shape == (3,) and model(**inputs).isfinite().all()


# --- 9. Unknown users and films

@each_preset
def test_unknown_users_and_films(tiny, preset):
    "Unknown ids are row 0 and get a finite answer; so do films that training has never shown."
    assert tiny.users.encode([10**9, -1, None, 'x']).tolist() == tiny.items.encode([10**9, -1, float('nan'), 'x']).tolist() == [0] * 4
    model, inputs = model_and_batch(tiny, preset)
    unknown = {name: torch.zeros_like(inputs[name]) for name in ('user', 'user_features', 'item')}
    assert model(**inputs | unknown).isfinite().all()
    film = int(inputs['item'][0, -1])
    known = np.arange(len(tiny.items)) != film
    model.init_from_training(np.ones(len(tiny.users), bool), known, torch.tensor([1., 2., 4., 5.]))
    assert torch.equal(model.item.id(torch.tensor([film])), model.item.id(torch.tensor([0])))
    assert model(**inputs).isfinite().all()


@pytest.mark.parametrize('objective', ['rating', 'click'])
def test_two_streams_have_none_of_these_faults(tiny, objective):
    "Others in the batch and what is padded do not matter; a film rated 1 does, and so does its position; unknown ids get a finite answer."
    torch.manual_seed(0)
    model = build_model(tiny, width=16, objective=objective).eval()
    for parameter in model.parameters(): nn.init.normal_(parameter, std=.3)
    inputs, _ = Chunks(tiny, np.array([0, 2, 60, 200, 500]), chunk=1, min_history=5)[torch.arange(5)]
    answer = model(**inputs)
    others = {name: torch.cat([value[:1], value[1:].flip(0)]) for name, value in inputs.items()}
    assert torch.equal(model(**others)[0], answer[0])
    for name, value in dict(item=3, rating=2., time=10**9, position=1).items():
        assert torch.equal(model(**inputs | {name: inputs[name].masked_fill(inputs['padding_mask'], value)}), answer)
    ones = inputs | {'rating': inputs['rating'].masked_fill(~inputs['padding_mask'], 1.)}
    for name in 'item', 'time', 'position':
        other = ones[name].clone()
        other[:, 1] = other[:, 1] % 100 + 1 if name == 'item' else other[:, 1] - 1000
        assert (model(**ones | {name: other}) != model(**ones))[2:].all(), name
    unknown = {name: torch.zeros_like(inputs[name]) for name in ('user', 'user_features', 'item', 'target_item')}
    assert model(**inputs | unknown).isfinite().all()


# --- 10. Inference that never calls eval()

def test_inference_is_in_eval_mode(tiny, tmp_path):
    "A model left in training mode answers without dropout, keeps its mode, and is in eval mode when it is loaded."
    recipe = Recipe(preset='pytorch', sequence_length=4, epochs=1)
    run = train(recipe, tiny, 'cpu', baselines=())
    batches = build(recipe, tiny)[1]['test']
    quiet = predict(run.model, batches)[0]
    loud = copy.deepcopy(run.model).train()
    assert not torch.equal(*(torch.cat([loud(**inputs).detach() for inputs, _ in batches]) for _ in range(2)))  # dropout is there
    assert torch.equal(predict(loud, batches)[0], quiet) and torch.equal(predict(loud, batches)[0], quiet) and loud.training
    loaded = load_model(save_run(run, tmp_path/'run'))
    assert not run.model.training and not any(module.training for module in loaded.modules())
    assert torch.equal(predict(loaded, batches)[0], quiet)
