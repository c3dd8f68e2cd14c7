"""Hotloop: perceptrons and multi-layer perceptrons, trained in one compiled loop.

>>> from hotloop import MLP, SGD, Trainer
>>> from hotloop.data import load_digits
>>> X, y = load_digits()
>>> model = MLP([64, 32, 10], output="softmax")
>>> history = Trainer(optimizer=SGD(lr=0.05), batch_size=1, epochs=10).fit(model, X, y)
"""

from hotloop.history import History
from hotloop.mlp import MLP
from hotloop.optimizers import SGD
from hotloop.schedules import Constant, CosineDecay, ExponentialDecay, StepDecay
from hotloop.stopping import EarlyStopping
from hotloop.trainer import DivergenceWarning, Trainer

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "Constant",
    "CosineDecay",
    "DivergenceWarning",
    "EarlyStopping",
    "ExponentialDecay",
    "History",
    "StepDecay",
    "Trainer",
]
