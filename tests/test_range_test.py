"""The learning-rate range test: what it measures, what it suggests, and that the model is left as it was."""

import builtins
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop
from hotloop import MLP, SGD, Adam, CosineDecay, EarlyStopping, LRRange, OneCycle, Trainer, lr_range
from hotloop.data import load
from hotloop.kernels.random import permutation

RNG = np.random.default_rng(19)
X = RNG.normal(size=(50, 4))
Y = X @ RNG.normal(size=4)


def test_the_readings_are_those_of_a_training_step_by_step() -> None:
    """A linear model in NumPy."""
    steps, size = 40, 8
    model = MLP([4, 1], dtype="float64", seed=3)
    weight, bias = model.weights[0].copy(), model.biases[0].copy()
    found = lr_range(model, X, Y, Trainer(batch_size=size, seed=5), low=1e-4, high=1e-1, steps=steps)
    order, readings, rates = np.empty(50, np.int64), [], 1e-4 * 1000 ** (np.arange(steps) / (steps - 1))
    for step in range(steps):
        if step % 7 == 0:  # seven batches to an epoch
            permutation(5, step // 7, order)
        chosen = order[step % 7 * size :][:size]
        delta = X[chosen] @ weight + bias - Y[chosen, None]
        readings.append(np.mean(delta**2))
        move = rates[step] * 2.0 / len(chosen)
        weight, bias = weight - move * X[chosen].T @ delta, bias - move * delta.sum(axis=0)
    np.testing.assert_allclose(found.rates, rates, rtol=1e-12)
    np.testing.assert_allclose(found.readings, readings, rtol=1e-9)
    assert len(found.losses) == steps and found.suggestion is not None and found.suggestion < 0.1


@pytest.mark.parametrize("optimizer", [SGD(1.0), SGD(1.0, 0.9), Adam(1.0)], ids=str)
def test_the_readings_are_those_of_fit_with_the_same_rates(optimizer: Any) -> None:
    """Five steps to an epoch, with dropout: the same draws, the same order, the same optimiser's state."""
    rates = 1e-4 * 30 ** (np.arange(40) / 39)

    def schedule(step: int, steps: int) -> float:
        return float(rates[step])

    schedule.per = "step"  # type: ignore[attr-defined]
    trainer = Trainer(None, optimizer, schedule, 10, 8, dropout=0.3)
    found = lr_range(MLP([4, 9, 1], seed=1), X, Y, trainer, low=1e-4, high=3e-3, steps=40)
    history = trainer.fit(MLP([4, 9, 1], seed=1), X, Y)
    np.testing.assert_allclose(found.readings.reshape(8, 5).mean(axis=1), history["loss"], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 8, None])
@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam()], ids=str)
def test_model_and_trainer_are_left_as_they_were(batch_size: int | None, optimizer: Any) -> None:
    model = MLP([4, 8, 1], seed=1)
    before = model.params.tobytes()
    trainer = Trainer(None, optimizer, OneCycle(), batch_size, early_stopping=EarlyStopping(), dropout=0.1)
    options = vars(trainer).copy()
    found = lr_range(model, X, Y, trainer)
    assert model.params.tobytes() == before and model.loss is None and vars(trainer) == options
    assert (np.diff(found.rates) > 0).all() and np.isfinite(found.losses).all()
    again = lr_range(model, X, Y, trainer)
    assert found.readings.tobytes() == again.readings.tobytes() and found.suggestion == again.suggestion


def test_sparse_rows_are_read_as_dense_ones() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    rows = np.where(RNG.random((60, 2000)) < 0.002, 1.0, 0.0)  # so few that fit moves only the weights it meets
    trainer = Trainer(None, SGD(0.1, 0.9), batch_size=4)
    found = [
        lr_range(MLP([2000, 16, 1], seed=1), X, rows.sum(axis=1), trainer).readings
        for X in (rows, sparse.csr_array(rows))
    ]
    assert found[0].tobytes() == found[1].tobytes()


def test_it_stops_when_the_loss_explodes() -> None:
    found = lr_range(MLP([4, 1], seed=1), X, Y, Trainer(batch_size=8))
    assert found.rates[-1] < 10.0 and np.isfinite(found.readings).all()
    assert found.suggestion is not None and 1e-3 < found.suggestion < found.rates[-1]
    quiet = lr_range(MLP([4, 1], seed=1), X, Y, Trainer(batch_size=8), high=1e-5)
    assert quiet.rates[-1] == pytest.approx(1e-5, rel=0.05) and quiet.suggestion is None


@pytest.mark.parametrize(
    ("batch_size", "optimizer", "best"),
    [(32, SGD(), 0.972), (1, SGD(), 0.969), (32, Adam(), 0.967), (1, Adam(), 0.958)],
)
def test_the_suggestion_trains_digits_nearly_as_well_as_the_best_rate(
    batch_size: int, optimizer: Any, best: float
) -> None:
    """best: the highest test accuracy that any rate of a grid from 0.0001 to 1 gives in as many epochs."""
    digits, model = load("digits"), MLP([64, 32, 10], output="softmax", seed=1)
    found = lr_range(model, digits.X_train, digits.y_train, Trainer(optimizer=optimizer, batch_size=batch_size))
    assert found.suggestion is not None
    chosen = type(optimizer)(lr=found.suggestion)
    trainer = Trainer(optimizer=chosen, batch_size=batch_size, epochs=20 if batch_size == 32 else 10)
    trainer.fit(model, digits.X_train, digits.y_train)
    assert trainer.evaluate(model, digits.X_test, digits.y_test)["accuracy"] > best - 0.02


def test_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    found = lr_range(MLP([4, 1], seed=1), X, Y, Trainer(batch_size=8))
    found.plot(tmp_path / "range.png")
    LRRange(found.rates, found.readings, found.losses, None).plot(tmp_path / "none.png")
    for name in ("range.png", "none.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"hotloop\[plot\]"):
        found.plot(tmp_path / "range.png")


def test_text() -> None:
    ones = np.ones(2)
    assert repr(LRRange(np.array([1e-6, 0.5]), ones, ones, 0.0333)) == (
        "LRRange(2 rates, 1e-06 to 0.5, suggestion 0.033)"
    )
    assert repr(LRRange(ones, ones, ones, None)).endswith("suggestion none)")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"low": 0.0}, ValueError, "low: got 0"),
        ({"low": 1.0, "high": 0.5}, ValueError, "high: got 0.5, expected more than 1"),
        ({"steps": 5}, ValueError, "steps: got 5, expected at least 10"),
        ({"steps": 20.0}, TypeError, "steps: got 20.0"),
        ({"trainer": 3}, TypeError, "trainer: got 3, expected a Trainer"),
        ({"X": X[:, :2]}, ValueError, "X: got shape"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model = MLP([4, 1], seed=1)
    with pytest.raises(error, match=message):
        lr_range(**{"model": model, "X": X, "y": Y, "trainer": Trainer(), **arguments})
    assert model.params.tobytes() == MLP([4, 1], seed=1).params.tobytes()


def test_a_lowest_rate_that_is_too_high() -> None:
    model = MLP([4, 8, 1], seed=1)
    before = model.params.tobytes()
    with pytest.raises(ValueError, match=r"low: got 1e\+30, expected a rate at which the first step does not diverge"):
        lr_range(model, X, Y, Trainer(batch_size=1), low=1e30, high=1e31)
    assert model.params.tobytes() == before


def test_ctrl_c_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from hotloop.engine import Engine

    original, calls = Engine.run, []

    def interrupted(self: Engine, *arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 9:
            signal.raise_signal(signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(Engine, "run", interrupted)
    model = MLP([4, 1], seed=1)
    before, handler = model.params.tobytes(), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match="the model is as it was"):
            lr_range(model, X, Y, Trainer(schedule=CosineDecay()))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert model.params.tobytes() == before


def test_the_name_stays_a_function() -> None:
    assert callable(hotloop.lr_range) and hotloop.lr_range is lr_range
