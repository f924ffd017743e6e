"""One library's Behavior Sequence Transformer, trained and asked on command: started by others.py, with the Python that has the library.

    python benchmarks/others_worker.py NAME FOLDER

FOLDER holds `windows.npz` and `setting.json`. Each line on stdin, `train` or `answer`, is one pass over the windows, and each answer a line of JSON.
Nothing but NumPy and the library itself is imported, since its environment need not have anything else.
"""
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

class Rechub:
    "torch-rechub's BST, with the trainer and the loaders that it comes with"
    package = 'torch-rechub'

    def __init__(self, w, s):
        os.environ['TQDM_DISABLE'] = '1'
        import torch
        from torch_rechub.basic.features import SequenceFeature, SparseFeature
        from torch_rechub.models.ranking import BST
        from torch_rechub.trainers import CTRTrainer
        from torch_rechub.utils.data import DataGenerator
        torch.set_num_threads(s['threads'])
        torch.manual_seed(0)
        rows, profile = s['rows'], [SparseFeature('user', s['rows']['user'], s['user_width'])]
        profile += [SparseFeature(name, rows[name], s['feature_width']) for name in s['features']]
        target = [SparseFeature('item', rows['item'], s['width'], padding_idx=0)]
        history = [SequenceFeature('history', rows['item'], s['width'], pooling='concat', shared_with='item', padding_idx=0)]
        self.network = BST(profile, history, target, dict(dims=s['mlp'], activation='leakyrelu', dropout=s['dropout']), nhead=s['heads'],
                           dropout=s['dropout'], num_layers=s['layers'], max_seq_len=w['item'].shape[1])
        self.trainer = CTRTrainer(self.network, optimizer_params=dict(lr=s['learning_rate']))
        x = {name: w[name] for name in ('user', *s['features'])} | dict(item=w['item'][:, -1], history=w['item'][:, :-1])
        y = w['click'].astype(np.float32)
        self.batches, self.asked, _ = DataGenerator(x, y).generate_dataloader(x_val=x, y_val=y, x_test=x, y_test=y, batch_size=s['batch_size'])
        self.parameters = sum(p.numel() for p in self.network.parameters())

    def train(self): self.trainer.train_one_epoch(self.batches)

    def answer(self): return np.ravel(self.trainer.predict(self.network, self.asked))

class RechubNetwork(Rechub):
    "The same network, given batches of tensors: what is left when its loaders and its trainer cost nothing"
    def __init__(self, w, s):
        super().__init__(w, s)
        import torch
        self.torch, self.size, self.y = torch, s['batch_size'], torch.from_numpy(w['click'].astype(np.float32))
        self.x = {name: torch.from_numpy(w[name]) for name in ('user', *s['features'])}
        self.x |= dict(item=torch.from_numpy(w['item'][:, -1].copy()), history=torch.from_numpy(w['item'][:, :-1].copy()))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=s['learning_rate'], fused=True)

    def train(self):
        self.network.train()
        for rows in self.torch.randperm(len(self.y)).split(self.size):
            loss = self.torch.nn.functional.binary_cross_entropy(self.network({name: x[rows] for name, x in self.x.items()}), self.y[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def answer(self):
        self.network.eval()
        with self.torch.inference_mode():
            rows = self.torch.arange(len(self.y)).split(self.size)
            return self.torch.cat([self.network({name: x[r] for name, x in self.x.items()}) for r in rows]).numpy()

class DeepCTR:
    "DeepCTR's BST in TensorFlow, with Keras's own fit and predict"
    package = 'deepctr'

    def __init__(self, w, s):
        os.environ |= dict(TF_USE_LEGACY_KERAS='1', TF_CPP_MIN_LOG_LEVEL='3', CUDA_VISIBLE_DEVICES='')
        import tensorflow as tf
        tf.config.threading.set_intra_op_parallelism_threads(s['threads'])
        tf.config.threading.set_inter_op_parallelism_threads(s['threads'])
        from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        from deepctr.models import BST
        tf.keras.utils.set_random_seed(0)
        rows, length = s['rows'], w['item'].shape[1] - 1
        columns = [SparseFeat('user', rows['user'], s['user_width']), SparseFeat('item', rows['item'], s['width'])]
        columns += [SparseFeat(name, rows[name], s['feature_width']) for name in s['features']]
        columns += [VarLenSparseFeat(SparseFeat('hist_item', rows['item'], s['width'], embedding_name='item'), length, length_name='seq_length')]
        self.network = BST(columns, ['item'], s['layers'], s['heads'], dnn_hidden_units=s['mlp'], dnn_dropout=s['dropout'], l2_reg_embedding=0)
        self.network.compile(tf.keras.optimizers.Adam(s['learning_rate']), 'binary_crossentropy')
        known = (~w['padding_mask'][:, :-1]).sum(1)
        first = np.argsort(w['padding_mask'][:, :-1], axis=1, kind='stable')               # it wants the padding behind
        self.x = {name: w[name] for name in ('user', *s['features'])} | dict(item=w['item'][:, -1], seq_length=known)
        self.x['hist_item'] = np.take_along_axis(w['item'][:, :-1], first, 1)
        self.y, self.size, self.parameters = w['click'].astype(np.float32), s['batch_size'], self.network.count_params()

    def train(self): self.network.fit(self.x, self.y, self.size, verbose=0)

    def answer(self): return np.ravel(self.network.predict(self.x, self.size, verbose=0))

KINDS = {'torch-rechub': Rechub, 'torch-rechub, network': RechubNetwork, 'deepctr': DeepCTR}

def serve(model, out):
    "Do what each line asks, and say how long it took"
    print(json.dumps(dict(version=importlib.metadata.version(model.package), parameters=int(model.parameters))), file=out, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        found = getattr(model, line.strip())()
        seconds = time.perf_counter() - start
        answers = {} if found is None else dict(answers=len(found), spread=float(np.std(found)))
        print(json.dumps(dict(seconds=seconds, **answers)), file=out, flush=True)

def main():
    name, folder = sys.argv[1], Path(sys.argv[2])
    out, sys.stdout = sys.stdout, sys.stderr                                               # libraries print as they like; ours is JSON only
    with np.load(folder/'windows.npz') as found: windows = {key: found[key] for key in found.files}
    model = KINDS[name](windows, json.loads((folder/'setting.json').read_text()))
    model.train()                                                                          # compiled, allocated, warm
    model.answer()
    serve(model, out)

if __name__ == '__main__': main()
