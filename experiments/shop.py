"""What the order of events and each feature is worth, in the made-up shop -> results/shop.csv.

    python experiments/shop.py --seeds 0 1 2
    python experiments/shop.py --quick --out shop.csv

Events are split by `temporal`. The question is which product comes next, asked at its moment: HR and NDCG of a
list of 10 from the whole catalogue, and, as in the table of the paper, AUC: does the product stand above one that
is drawn as often as it occurs in training, the same for all methods? Beside the default stand popularity, the
item that most often followed the last one, the paper's network, and the same without the sequence, which then is
embeddings and an MLP. In the rows "order shuffled" the products of each user are in a random order. The other
rows leave out one feature each.
"""
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from bst_nbdev.core import device_name, progress, seed_everything, show_progress, source_commit
from bst_nbdev.prepared import load
from bst_nbdev.splits import make_split
from bst_nbdev.windows import PairedWindows
from bst_nbdev.presets import build_model, training_settings
from bst_nbdev.training import TrainingConfig
from bst_nbdev.evaluation import click_scores, fit_model, init_from_split
from bst_nbdev.ranking import ModelScores, Popularity, rank_targets, ranking_scores
from cold_users import make_parser, merge

PROTOCOL = 'temporal'
GROUP = 64  # targets that are scored together
COLUMNS = ['dataset', 'model', 'variant', 'seed', 'targets', 'auc', 'hit_rate', 'ndcg', 'epochs', 'device', 'commit']
ITEM, USER = ('category', 'brand', 'price', 'tags'), ('country', 'age')

def has_earlier(data, rows):
    "Whether each event follows another one of the same user"
    return rows > data.offsets[data.user[rows]]

class ItemToItem:
    "Ranking by what most often followed the last item"
    def __init__(self, data, rows):
        self.data = data
        later = rows[has_earlier(data, rows)]
        count = len(data.items)
        self.popularity = np.bincount(data.item[rows], minlength=count) / len(rows)
        self.follows = np.zeros((count, count), np.float32)
        np.add.at(self.follows, (data.item[later - 1], data.item[later]), 1)

    def __call__(self, rows):
        "Score the whole catalogue for each target"
        last = np.where(has_earlier(self.data, rows), self.data.item[rows - 1], 0)
        return self.follows[last] + self.popularity

def shuffled(data, seed):
    "The same events with the products of each user in a random order"
    draw = np.random.default_rng(seed)
    order = np.lexsort([draw.random(len(data)), data.user])
    return replace(data, item=data.item[order], event_values=data.event_values[order])

def without(data, feature):
    "The same data without a feature"
    if feature in data.event_features: return replace(data, event_features={}, event_values=None)
    kept = {name: {key: x for key, x in getattr(data, name).items() if key != feature}
            for name in ('user_features', 'item_features')}
    return replace(data, **kept)

def train_on(data, split, preset, seed, quick):
    "Train a preset on a split"
    config = TrainingConfig(**training_settings(preset, len(split.train)) | dict(seed=seed) | (dict(epochs=1) if quick else {}))
    seed_everything(seed)
    model = init_from_split(build_model(data, preset), data, split)
    batches = model.config.batches(data, split, config.batch_size, seed=seed)
    log = fit_model(model, batches, config)
    return model.eval(), len(log)

def scores_of(score, data, split):
    "AUC against drawn items, and ranking, of a function that scores the whole catalogue"
    drawn = PairedWindows(data, split.test, 2, drawn_from=split.train, anew=False).drawn.numpy()
    pairs = np.stack([data.item[split.test], drawn], -1)                          # (n, 2): what came next, and what did not
    wanted = [np.take_along_axis(np.asarray(score(split.test[some])), pairs[some], 1)
              for some in np.array_split(np.arange(len(pairs)), -(-len(pairs) // GROUP))]
    labels = torch.tensor([1., 0.]).expand(len(pairs), 2)
    found = click_scores(torch.from_numpy(np.concatenate(wanted)).flatten(), labels.flatten(), 1.)
    ranks, _ = rank_targets(score, data, split.test)
    ranking = {name: value for name, value in ranking_scores(ranks).items() if name != 'mrr'}
    return found | ranking | dict(targets=len(pairs))

def jobs(data, seed):
    "Name, variant, data and preset of each row; None for methods that are only counted"
    yield 'popularity', '', data, None
    yield 'item to item', '', data, None
    for preset in 'both', 'paper':
        yield f'BST ({preset})', '', data, preset
        yield f'BST ({preset})', 'order shuffled', shuffled(data, seed), preset
    yield 'BST (paper)', 'without the sequence', data, 'paper'
    for feature in (*data.event_features, *ITEM, *USER): yield 'BST (both)', f'without {feature}', without(data, feature), 'both'

def measure(data, seed, quick):
    "Yield the rows of one seed"
    for name, variant, given, preset in progress(list(jobs(data, seed)), 'methods'):
        split, epochs = make_split(given, PROTOCOL), None
        if variant == 'without the sequence': split = replace(split, history_rows=np.zeros(0, np.int64))
        if name == 'popularity': score = partial(Popularity().fit(given, split.train).scores, given)
        elif name == 'item to item': score = ItemToItem(given, split.train)
        else:
            model, epochs = train_on(given, split, preset, seed, quick)
            score = ModelScores(model, given, split.history_rows)
        yield dict(model=name, variant=variant, seed=seed, epochs=epochs, **scores_of(score, given, split))

def main():
    parser = make_parser(__doc__, 'results/shop.csv', '')
    parser.set_defaults(data='sample-shop')
    args = parser.parse_args()
    show_progress(False)
    torch.set_num_threads(args.threads)
    data = load(args.data)
    rows = pd.DataFrame(row for seed in args.seeds for row in measure(data, seed, args.quick))
    rows = rows.assign(dataset=data.name, device=device_name('cpu', args.threads), commit=source_commit())
    merge(args.out, rows.reindex(columns=COLUMNS))
    print(rows[COLUMNS[1:-2]].to_string(index=False, float_format='{:.4f}'.format, na_rep=''))

if __name__ == '__main__': main()
