"""The learning rates of a training: by epoch, by step, of a plain function, and what is refused."""

import math

import numpy as np
import pytest

from hotloop import MLP, SGD, Adam, Constant, CosineDecay, OneCycle, ReduceOnPlateau, Trainer, Warmup
from hotloop.rates import Rates
from hotloop.schedules import Schedule

RNG = np.random.default_rng(7)
X = RNG.normal(size=(20, 4))
Y = X @ RNG.normal(size=4)


def by_step(step: int, steps: int) -> float:
    return 1.0 / (1 + step)


by_step.per = "step"  # type: ignore[attr-defined]


def test_rates_by_epoch_are_asked_for_once() -> None:
    asked = []

    def schedule(epoch: int, epochs: int) -> float:
        asked.append((epoch, epochs))
        return 0.5

    rates = Rates(schedule, 0.1, 3, 30)
    for epoch, step in ((0, 0), (0, 5), (1, 10), (1, 15), (2, 20)):
        assert rates.at(epoch, step, 5).tolist() == [0.05]
    assert asked == [(0, 3), (1, 3), (2, 3)]


def test_rates_by_step() -> None:
    assert Rates(by_step, 12.0, 2, 8).at(0, 2, 3).tolist() == [4, 3, 12 * (1 / 5)]
    assert Rates(CosineDecay(per="step"), 1.0, 2, 8).at(1, 4, 4)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, None])
@pytest.mark.parametrize("schedule", [OneCycle(), Warmup(5, per="step"), by_step, Warmup(3, by_step, per="step")])
def test_every_step_has_its_own_rate(schedule: Schedule, batch_size: int | None) -> None:
    """A linear model in NumPy, step by step."""
    epochs, lr, size = 3, 0.05, batch_size or 20
    model = MLP([4, 1], dtype="float64", seed=3)
    weight, bias = model.weights[0].copy(), model.biases[0].copy()
    trainer = Trainer(None, SGD(lr), schedule, batch_size, epochs, shuffle=False)
    history = trainer.fit(model, X, Y)
    step, steps, last = 0, epochs * math.ceil(20 / size), []
    for _ in range(epochs):
        for start in range(0, 20, size):
            rows, wanted = X[start : start + size], Y[start : start + size, None]
            delta = 2.0 * (rows @ weight + bias - wanted) / len(rows)
            rate = lr * schedule(step, steps)
            weight, bias, step = weight - rate * rows.T @ delta, bias - rate * delta.sum(axis=0), step + 1
        last.append(rate)
    np.testing.assert_allclose(model.weights[0], weight, rtol=1e-11)
    np.testing.assert_allclose(model.biases[0], bias, rtol=1e-11)
    assert history["lr"] == pytest.approx(last, rel=1e-15)  # that of each epoch's last step


@pytest.mark.parametrize("optimizer", [SGD(0.05), SGD(0.01, 0.9), Adam(0.01)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_constant_by_step_is_a_constant(optimizer: SGD | Adam, batch_size: int) -> None:
    found = []
    for schedule in (None, Constant(), Constant(per="step")):
        model = MLP([4, 5, 1], seed=1)
        Trainer(None, optimizer, schedule, batch_size, 3).fit(model, X, Y)
        found.append(model.params.tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_on_any_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from hotloop import engine

    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    models = [MLP([4, 33, 1], seed=1) for _ in range(2)]
    for model, used in zip(models, (1, threads), strict=True):
        Trainer(schedule=OneCycle(), batch_size=4, epochs=3, threads=used).fit(model, X, Y)
    assert models[0].params.tobytes() == models[1].params.tobytes()


@pytest.mark.parametrize("factor", [math.nan, -1.0, math.inf])
def test_a_bad_factor_by_step_is_refused_before_anything_changes(factor: float) -> None:
    def schedule(step: int, steps: int) -> float:
        return factor if step == 3 else 1.0

    schedule.per = "step"  # type: ignore[attr-defined]
    model = MLP([4, 1], seed=1)
    before = model.params.tobytes()
    with pytest.raises(ValueError, match=r"schedule: gave .* for step 3, expected a finite factor of 0 or more"):
        Trainer(schedule=schedule, batch_size=4).fit(model, X, Y)
    assert model.params.tobytes() == before and model.loss is None


def test_a_schedule_that_counts_something_else() -> None:
    def schedule(step: int, steps: int) -> float:
        return 1.0

    schedule.per = "sample"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"schedule.per: got 'sample'"):
        Trainer(schedule=schedule)


def test_plateau_falls_with_the_validation_loss_and_begins_afresh() -> None:
    trainer = Trainer(schedule=ReduceOnPlateau(0.5, patience=0, min_delta=0.5), epochs=6, optimizer=SGD(0.01))
    for _ in range(2):
        history = trainer.fit(MLP([4, 1], init="zeros"), X, Y, validation_data=(X[:5], Y[:5]))
        expected, best, rate = [], math.inf, 0.01
        for loss in history["val_loss"]:
            expected.append(rate)
            if loss < 0.5 * best:
                best = loss
            else:
                rate *= 0.5
        assert history["lr"] == expected and len(set(expected)) > 1


def test_plateau_without_its_figure_is_refused() -> None:
    for schedule in (ReduceOnPlateau(), Warmup(2, ReduceOnPlateau())):
        with pytest.raises(ValueError, match=r"schedule: monitors 'val_loss', but there is no validation data"):
            Trainer(schedule=schedule).fit(MLP([4, 1]), X, Y)
    with pytest.raises(ValueError, match=r"schedule: monitors 'val_accuracy', but this training has only loss, lr"):
        Trainer(schedule=ReduceOnPlateau(monitor="val_accuracy"), validation_split=0.5).fit(MLP([4, 1]), X, Y)
