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
    from hotloop.callbacks import BestModel, Callback
    from hotloop.custom import Activation, Loss
    from hotloop.encoder import TableEncoder
    from hotloop.fitting import DivergenceWarning
    from hotloop.gradcheck import check_gradients
    from hotloop.history import History
    from hotloop.loggers import CSVLog, JSONLLog, LivePlot, TensorBoard
    from hotloop.mlp import MLP
    from hotloop.optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, AveragedSGD, Lion, PassiveAggressive, RMSprop
    from hotloop.plateau import ReduceOnPlateau
    from hotloop.range_test import LRRange, lr_range
    from hotloop.schedules import (
        Constant,
        CosineDecay,
        CosineRestarts,
        ExponentialDecay,
        InverseTimeDecay,
        OneCycle,
        PolynomialDecay,
        StepDecay,
        Warmup,
    )
    from hotloop.standardizer import Standardizer
    from hotloop.stopping import EarlyStopping
    from hotloop.trainer import Trainer
    from hotloop.warm import warmup

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "Activation",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AveragedSGD",
    "BestModel",
    "CSVLog",
    "Callback",
    "Constant",
    "CosineDecay",
    "CosineRestarts",
    "DivergenceWarning",
    "EarlyStopping",
    "ExponentialDecay",
    "History",
    "InverseTimeDecay",
    "JSONLLog",
    "LRRange",
    "Lion",
    "LivePlot",
    "Loss",
    "OneCycle",
    "PassiveAggressive",
    "PolynomialDecay",
    "RMSprop",
    "ReduceOnPlateau",
    "Standardizer",
    "StepDecay",
    "TableEncoder",
    "TensorBoard",
    "Trainer",
    "Warmup",
    "check_gradients",
    "lr_range",
    "warmup",
]

# Loaded when first used: `hotloop --help` need not wait for the compiler to be imported.
_HOME = {
    "Activation": "custom",
    "Loss": "custom",
    "check_gradients": "gradcheck",
    "Adadelta": "optimizers",
    "Adagrad": "optimizers",
    "Adam": "optimizers",
    "AdamW": "optimizers",
    "AveragedSGD": "optimizers",
    "BestModel": "callbacks",
    "CSVLog": "loggers",
    "Callback": "callbacks",
    "Constant": "schedules",
    "CosineDecay": "schedules",
    "CosineRestarts": "schedules",
    "DivergenceWarning": "fitting",
    "EarlyStopping": "stopping",
    "ExponentialDecay": "schedules",
    "History": "history",
    "InverseTimeDecay": "schedules",
    "JSONLLog": "loggers",
    "LRRange": "range_test",
    "Lion": "optimizers",
    "LivePlot": "loggers",
    "MLP": "mlp",
    "OneCycle": "schedules",
    "PassiveAggressive": "optimizers",
    "PolynomialDecay": "schedules",
    "RMSprop": "optimizers",
    "ReduceOnPlateau": "plateau",
    "SGD": "optimizers",
    "StepDecay": "schedules",
    "TensorBoard": "loggers",
    "Standardizer": "standardizer",
    "TableEncoder": "encoder",
    "Trainer": "trainer",
    "Warmup": "schedules",
    "lr_range": "range_test",
    "warmup": "warm",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hotloop' has no attribute {name!r}")
    return getattr(import_module(f"hotloop.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
