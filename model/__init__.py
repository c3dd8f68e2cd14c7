"""Hotloop: perceptrons and multi-layer perceptrons, trained in one compiled loop.

>>> from hotloop import MLP, SGD, Trainer
>>> from hotloop.data import load_digits
>>> X, y = load_digits()
>>> model = MLP([64, 32, 10], output="softmax")
>>> history = Trainer(optimizer=SGD(lr=0.05), batch_size=1, epochs=10).fit(model, X, y)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotloop.history import History
    from hotloop.mlp import MLP
    from hotloop.optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, AveragedSGD, Lion, PassiveAggressive, RMSprop
    from hotloop.schedules import Constant, CosineDecay, ExponentialDecay, StepDecay
    from hotloop.stopping import EarlyStopping
    from hotloop.trainer import DivergenceWarning, Trainer

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AveragedSGD",
    "Constant",
    "CosineDecay",
    "DivergenceWarning",
    "EarlyStopping",
    "ExponentialDecay",
    "History",
    "Lion",
    "PassiveAggressive",
    "RMSprop",
    "StepDecay",
    "Trainer",
]

# Loaded when first used: `hotloop --help` need not wait for the compiler to be imported.
_HOME = {
    "MLP": "mlp",
    "AdamW": "optimizers",
    "Adam": "optimizers",
    "Adadelta": "optimizers",
    "Adagrad": "optimizers",
    "AveragedSGD": "optimizers",
    "Lion": "optimizers",
    "PassiveAggressive": "optimizers",
    "RMSprop": "optimizers",
    "SGD": "optimizers",
    "Constant": "schedules",
    "CosineDecay": "schedules",
    "DivergenceWarning": "trainer",
    "EarlyStopping": "stopping",
    "ExponentialDecay": "schedules",
    "History": "history",
    "StepDecay": "schedules",
    "Trainer": "trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hotloop' has no attribute {name!r}")
    return getattr(import_module(f"hotloop.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
