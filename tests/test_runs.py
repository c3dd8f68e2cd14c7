"""Epochs in one call: the steps, the history and the end are those of one epoch after another."""

import gc
import itertools
import math
import signal
import time
import warnings
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotloop import (
    MLP,
    SGD,
    Adam,
    AveragedSGD,
    CosineDecay,
    DivergenceWarning,
    EarlyStopping,
    Lion,
    OneCycle,
    PassiveAggressive,
    ReduceOnPlateau,
    Trainer,
    Warmup,
    together,
)
from hotloop.engine import Engine
from hotloop.fitting import Fitting
from hotloop.history import History
from hotloop.kernels import runs
from hotloop.progress import Progress
from hotloop.schedules import Curve
from hotloop.together import Together

RNG = np.random.default_rng(3)
X = RNG.normal(size=(60, 7)) * (RNG.random((60, 7)) < 0.7)
Y = np.sin(X[:, :2] * 2.0)
LABELS = X[:, :3].argmax(axis=1)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many epochs each call took."""
    original, seen = Engine.run_epochs, []

    def watched(self: Engine, rule: Any, course: Any) -> tuple[int, int]:
        result = original(self, rule, course)
        seen.append(result[0])
        return result

    monkeypatch.setattr(Engine, "run_epochs", watched)
    monkeypatch.setattr(together, "PAYS", 0.0)
    return seen


def in_calls_of(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Have all epochs but the first run in calls of so many."""

    def at_once(self: Together, fitting: Fitting, epoch: int) -> int:
        return min(epochs, fitting.trainer.epochs - epoch)

    monkeypatch.setattr(Together, "at_once", at_once)


def train(watched: bool, model: MLP, y: Any = LABELS, rows: Any = X, **options: Any) -> History:
    """Train; a callback has every epoch come back to Python."""
    options = {"epochs": 40, "seed": 5, "progress": False} | options
    trainer = Trainer(callbacks=[lambda run: None] if watched else [], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)
        return trainer.fit(model, rows, y)


CASES: dict[str, dict[str, Any]] = {
    "per-sample": {"batch_size": 1},
    "mini-batch": {"batch_size": 16},
    "full batch": {"batch_size": None},
    "in order": {"batch_size": 1, "shuffle": False},
    "by the epoch": {"batch_size": 7, "schedule": CosineDecay()},
    "by the step": {"batch_size": 7, "schedule": Warmup(20, OneCycle(), per="step")},
    "a rule with a clock": {"batch_size": 7, "optimizer": Adam(lr=0.01)},
    "a rule without one": {"batch_size": 7, "optimizer": Lion(lr=0.01)},
    "the mean of all steps": {"batch_size": 7, "optimizer": AveragedSGD(lr=0.05, start=30)},
    "draws": {"batch_size": 7, "dropout": 0.3, "input_noise": 0.1},
    "draws per sample": {"batch_size": 1, "dropout": 0.3},
    "bounds": {"batch_size": 7, "l2": 0.01, "clip_norm": 0.5, "max_norm": 1.0},
    "validation": {"batch_size": 7, "validation_split": 0.2},
    "validation of the mean of all steps": {"optimizer": AveragedSGD(lr=0.05), "validation_split": 0.2},
    "validation of values": {"loss": "mse", "validation_split": 0.2},
    "validation of signs": {"loss": "hinge", "validation_split": 0.2},
    "validation of shares": {"loss": "logistic", "validation_split": 0.2},
}
TRUTHS = {"mse": Y, "hinge": np.where(Y > 0.0, 1.0, -1.0), "logistic": 0.3 + 0.6 * (Y > 0.0)}


def equal(one: History, other: History) -> bool:
    """Whether all but the time is the same."""
    assert list(one) == list(other) and one.stopped == other.stopped
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one if name != "seconds")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_bits_and_history_are_those_of_single_epochs(
    counts: list[int], monkeypatch: pytest.MonkeyPatch, name: str, dtype: str
) -> None:
    in_calls_of(monkeypatch, 13)
    options = CASES[name]
    loss = options.get("loss", "cross_entropy")
    y, output = TRUTHS.get(loss, LABELS), {"cross_entropy": "softmax", "logistic": "sigmoid"}.get(loss, "identity")
    one, other = (MLP([7, 18, 3 if y is LABELS else 2], "tanh", output, seed=2, dtype=dtype) for _ in range(2))
    single = train(True, one, y, **options)
    assert counts == []
    together = train(False, other, y, **options)
    assert counts == [0, 13, 13, 13]  # compiled; all but the first
    assert one.params.tobytes() == other.params.tobytes() and equal(one=single, other=together)
    assert together.epochs == 40 and together.stopped == "finished" and min(together["seconds"]) > 0.0


ENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "patience": ("early stopping", {"early_stopping": EarlyStopping(3)}),
    "patience with the loss": ("early stopping", {"early_stopping": EarlyStopping(2, 0.01, monitor="loss")}),
    "patience with accuracy": ("early stopping", {"early_stopping": EarlyStopping(6, monitor="val_accuracy")}),
    "what was learned last": ("early stopping", {"early_stopping": EarlyStopping(3, restore_best=False)}),
    "target": ("target", {"early_stopping": EarlyStopping(99, target=0.8, monitor="val_accuracy")}),
    "target of the loss": ("target", {"early_stopping": EarlyStopping(99, target=0.3, monitor="loss")}),
    "target that is no progress": ("target", {"early_stopping": EarlyStopping(99, 5.0, target=0.5)}),
    "time enough": ("finished", {"early_stopping": EarlyStopping(149)}),
    "hardly a move": ("tol", {"tol": 0.03, "optimizer": Adam(0.01), "schedule": CosineDecay()}),
}


@pytest.mark.parametrize("at_once", [4, 150])
@pytest.mark.parametrize("name", ENDS)
def test_they_end_where_single_epochs_do(
    counts: list[int], monkeypatch: pytest.MonkeyPatch, name: str, at_once: int
) -> None:
    in_calls_of(monkeypatch, at_once)
    stopped, options = ENDS[name]
    options = {"epochs": 150, "validation_split": 0.3, "batch_size": 5, "optimizer": SGD(0.03), **options}
    one, other = (MLP([7, 18, 3], "tanh", "softmax", seed=2) for _ in range(2))
    single, together = train(True, one, **options), train(False, other, **options)
    assert equal(single, together) and together.stopped == stopped and max(counts) > 1
    assert one.params.tobytes() == other.params.tobytes()
    assert (together.epochs < 150) == (stopped != "finished")


def test_sparse_rows_and_restrained_steps(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    in_calls_of(monkeypatch, 39)
    sparse = pytest.importorskip("scipy.sparse")
    rows, y = (
        sparse.random_array((60, 300), density=0.02, random_state=1, format="csr"),
        np.where(LABELS > 0, 1.0, -1.0),
    )
    for options in ({"optimizer": PassiveAggressive()}, {"optimizer": SGD(0.1, momentum=0.5), "batch_size": 8}):
        one, other = (MLP([300, 1], seed=1) for _ in range(2))
        options = {"loss": "hinge", "batch_size": 1} | options
        assert train(True, one, y, rows, **options)["loss"] == train(False, other, y, rows, **options)["loss"]
        assert one.params.tobytes() == other.params.tobytes()
    assert counts == [0, 39] * 2


@dataclass(frozen=True)
class Stages(Curve):
    """A rate that is good for 25 epochs, one that makes the loss rise for 10, and then another."""

    worse: float = 1.0
    then: float = 1.0

    def factors(self, step: Any, steps: int) -> Any:
        return np.where(step < 25, 1.0, np.where(step < 35, self.worse, self.then))


@pytest.mark.parametrize("at_once", [3, 40])
@pytest.mark.parametrize(
    ("batch_size", "worse", "then"),
    [(4, 16.0, 60.0), (4, 12.0, 1e35), (None, 1.0, 1e45)],
    ids=["large loss", "no loss", "infinite parameter"],
)
def test_divergence_is_seen_in_its_epoch_and_the_best_weights_come_back(
    counts: list[int], monkeypatch: pytest.MonkeyPatch, batch_size: int, worse: float, then: float, at_once: int
) -> None:
    in_calls_of(monkeypatch, at_once)
    one, other = MLP([7, 2], seed=2), MLP([7, 2], seed=2)
    options: dict[str, Any] = {"batch_size": batch_size, "optimizer": SGD(lr=0.02), "schedule": Stages(worse, then)}
    single, together = train(True, one, Y, **options), train(False, other, Y, **options)
    assert single.stopped == together.stopped == "diverged"
    assert single.epochs == together.epochs == 36 and max(counts) == min(at_once, 35)
    assert np.array_equal(single["loss"], together["loss"], equal_nan=True)
    assert one.params.tobytes() == other.params.tobytes() and np.isfinite(one.params).all()
    assert Trainer().evaluate(other, X, Y)["loss"] < 1.1 * np.nanmin(together["loss"])


def test_one_version_is_compiled_for_each_dtype(counts: list[int], tmp_path: Path) -> None:
    """Whatever rows, options and numbers it is given."""
    np.save(tmp_path / "X.npy", X)
    forms: list[Any] = [X, np.float32(X), np.asfortranarray(X), np.load(tmp_path / "X.npy", mmap_mode="r")]
    whole: dict[str, Any] = {"early_stopping": EarlyStopping(2, 1, target=1), "tol": 0, "validation_split": 0.5}
    known = None
    for _ in range(2):
        for rows, options in itertools.product(forms, (whole, {"seed": 2**40}, *CASES.values())):
            if "loss" not in options:
                train(False, MLP([7, 3], output="softmax"), rows=rows, **options)
        known = known or list(runs.run_epochs.signatures)
        assert list(runs.run_epochs.signatures) == known


def test_a_fit_leaves_nothing_to_the_garbage_collector(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = Together.__init__, []

    def noted(self: Together, fitting: Fitting) -> None:
        original(self, fitting)
        seen.extend([weakref.ref(self), weakref.ref(fitting), weakref.ref(fitting.engine)])

    monkeypatch.setattr(Together, "__init__", noted)
    gc.disable()
    try:
        train(False, MLP([7, 3], output="softmax"), validation_split=0.2)
        assert [one() for one in seen] == [None] * 3
    finally:
        gc.enable()


def test_a_later_fit_draws_the_same_orders() -> None:
    one, other = MLP([7, 3], output="softmax"), MLP([7, 3], output="softmax")
    trainer = Trainer(epochs=9, batch_size=1, progress=False)
    for _ in range(2):
        trainer.fit(one, X, LABELS)
        train(True, other, epochs=9, batch_size=1, seed=0)
    assert one.params.tobytes() == other.params.tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"validation_split": 0.2, "metrics": ("f1",)},
        {"early_stopping": EarlyStopping(50, monitor="lr", mode="min")},
        {"schedule": lambda epoch, epochs: 1.0},
        {"schedule": ReduceOnPlateau(monitor="loss")},
        {"schedule": Warmup(3, ReduceOnPlateau(monitor="loss"))},
        {"schedule": Warmup(3, lambda epoch, epochs: 1.0)},
        {"epochs": 1},
    ],
    ids=["metric", "early stopping", "function", "plateau", "warmed plateau", "warmed function", "one epoch"],
)
def test_what_python_has_to_see_comes_back_behind_every_epoch(counts: list[int], options: dict[str, Any]) -> None:
    history = train(False, MLP([7, 3], output="softmax"), **options)
    assert counts == [] and history.epochs == options.get("epochs", 40)


def test_time_is_up_behind_a_call() -> None:
    began = time.perf_counter()
    history = train(False, MLP([7, 3], output="softmax"), epochs=10**8, max_seconds=0.2)
    assert history.stopped == "time" and 10 < history.epochs < 10**8
    assert time.perf_counter() - began - history.compile_seconds < 10.0


def test_ctrl_c_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Engine.run_epochs

    def interrupted(self: Engine, rule: Any, course: Any) -> tuple[int, int]:
        if len(course.rates):
            signal.raise_signal(signal.SIGINT)
        return original(self, rule, course)

    monkeypatch.setattr(Engine, "run_epochs", interrupted)
    model, trainer = MLP([7, 3], output="softmax"), Trainer(epochs=10**6, progress=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background ignore it
    try:
        with pytest.raises(KeyboardInterrupt, match=r"stopped in epoch \d+ of 1000000, after 60 of 60 samples"):
            trainer.fit(model, X, LABELS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert trainer.history.stopped == "interrupted" and trainer.history.epochs > 1
    assert math.isfinite(trainer.history["loss"][-1]) and np.isfinite(model.params).all()


def test_progress_is_shown_behind_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    in_calls_of(monkeypatch, 13)
    shown: list[tuple[int, int]] = []
    monkeypatch.setattr(Progress, "update", lambda self, epoch, sample: shown.append((epoch, sample)))
    train(False, MLP([7, 3], output="softmax"))
    assert shown == [(0, 60), (13, 60), (26, 60), (39, 60)]


def test_compiling_waits_until_it_pays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is compiled or kept: a training of a few epochs does not wait for it, many of them do."""
    calls: list[Together] = []
    monkeypatch.setattr(together, "CACHE_FOLDER", tmp_path)
    monkeypatch.setattr(runs.run_epochs, "overloads", {})
    monkeypatch.setattr(together.Spent, "seconds", 0.0)
    monkeypatch.setattr(together, "Together", lambda fitting: calls.append(fitting))
    for _ in range(24):
        train(False, MLP([7, 3], output="softmax"), validation_split=0.2)
        assert not calls
    for _ in range(2):
        train(False, MLP([7, 3], output="softmax"), validation_split=0.2)
    assert calls
    monkeypatch.setattr(together.Spent, "seconds", 0.0)
    calls.clear()
    (tmp_path / "runs.run_epochs-86.py311.nbi").touch()
    train(False, MLP([7, 3], output="softmax"))
    assert calls
