"""Test the trackers that start a service or a database; TensorBoard's test is in nbs/07c_tracking.ipynb.

Each record is read with the tracker's own tools.
"""
import pytest
import torch
from helpers import Toy
from torch import nn
from torchmetrics import MeanAbsoluteError

from bst_nbdev.core import show_progress
from bst_nbdev.tracking import Tracking
from bst_nbdev.training import TrainingConfig, fit

def tracked(name, folder):
    "Train for two epochs with a tracker; return the training log"
    before = show_progress(False)
    batches = [(dict(x=torch.randn(8, 4)), torch.randn(8)) for _ in range(6)]
    tracking = Tracking(name, folder, dict(recipe=dict(data='toy')), every=2)
    metrics, config = dict(mae_mean=MeanAbsoluteError()), TrainingConfig(epochs=2)
    try:
        return fit(Toy(), batches, batches[:2], nn.functional.mse_loss, metrics, config, monitor='mae_mean',
                   callbacks=[tracking])
    finally: show_progress(before)

def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    log = tracked('mlflow', tmp_path/'toy')
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path/'mlflow.db'}")
    [found] = client.search_runs([client.get_experiment_by_name('bst_nbdev').experiment_id])
    params = found.data.params
    assert (found.info.status, params['training.epochs'], params['recipe.data']) == ('FINISHED', '2', 'toy')
    points = client.get_metric_history(found.info.run_id, 'epoch/mae_mean')
    assert [point.value for point in points] == pytest.approx(log.mae_mean.tolist())
    assert {'loss', 'learning_rate', 'labels_per_second'} <= set(found.data.metrics)

def entries(data, block=2**15, head=7):
    "Yield the records of a Weights & Biases file (LevelDB's log format); its own protocol reads them"
    at, parts = head, []
    while at + head <= len(data):
        if block - at % block < head: at += block - at % block
        length, kind = int.from_bytes(data[at + 4:at + 6], 'little'), data[at + 6]
        parts.append(data[at + head:at + head + length])
        at += head + length
        if kind in (1, 4): yield b''.join(parts)
        if kind in (1, 4): parts = []

def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip('wandb')
    for name in 'WANDB_MODE', 'WANDB_API_KEY': monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))  # a key may be in the home folder
    tracked('wandb', tmp_path/'toy')
    wandb.teardown()  # `finish` returns before the service has written the end of the file
    [file] = (tmp_path/'toy'/'wandb').glob('offline-run-*/*.wandb')
    kinds = pytest.importorskip('wandb.proto.wandb_internal_pb2')
    found = [kinds.Record.FromString(data) for data in entries(file.read_bytes())]
    keys = {item.key or '/'.join(item.nested_key) for record in found for item in record.history.item}
    assert {'epoch/mae_mean', 'loss', 'learning_rate', 'labels_per_second'} <= keys and wandb.run is None
