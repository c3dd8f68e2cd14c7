"""Schedules: reference values, bad constants, and the learning rate a training really used."""

import math
from itertools import pairwise

import numpy as np
import pytest

from hotloop import MLP, SGD, Constant, CosineDecay, ExponentialDecay, StepDecay, Trainer
from hotloop.schedules import Schedule

X = np.array([[0.0], [1.0]])
Y = np.array([0.0, 1.0])


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), [1, 1, 1, 1, 1]),
        (StepDecay(every=2, rate=0.1), [1, 1, 0.1, 0.1, 0.01]),
        (StepDecay(every=1, rate=1.0), [1, 1, 1, 1, 1]),
        (ExponentialDecay(rate=0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
        (CosineDecay(), [1, (1 + math.cos(math.pi / 5)) / 2, (1 + math.cos(2 * math.pi / 5)) / 2, None, None]),
        (CosineDecay(epochs=2, floor=0.2), [1, 0.6, 0.2, 0.2, 0.2]),
        (CosineDecay(floor=1.0), [1, 1, 1, 1, 1]),
    ],
)
def test_factors(schedule: Schedule, factors: list[float | None]) -> None:
    for epoch, factor in enumerate(factors):
        if factor is not None:
            assert schedule(epoch, 5) == pytest.approx(factor, rel=1e-12)


def test_cosine_falls_from_1_to_its_floor() -> None:
    schedule = CosineDecay(floor=0.25)
    factors = [schedule(epoch, 100) for epoch in range(101)]
    assert factors[0] == 1.0 and factors[100] == pytest.approx(0.25) and factors[50] == pytest.approx(0.625)
    assert all(a > b for a, b in pairwise(factors))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepDecay(every=0), "every: got 0"),
        (lambda: StepDecay(rate=0.0), "rate: got 0"),
        (lambda: StepDecay(rate=1.5), "rate: got 1.5"),
        (lambda: ExponentialDecay(rate=-0.1), "rate: got -0.1"),
        (lambda: ExponentialDecay(rate=math.nan), "rate: got nan"),
        (lambda: CosineDecay(epochs=0), "epochs: got 0"),
        (lambda: CosineDecay(floor=1.1), "floor: got 1.1"),
    ],
)
def test_bad_constants_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    "make", [lambda: StepDecay(every=2.0), lambda: ExponentialDecay(rate="0.5"), lambda: CosineDecay(floor=True)]
)
def test_bad_types_are_named(make: object) -> None:
    with pytest.raises(TypeError, match=r"^(every|rate|floor): got .* of type"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    "schedule", [None, StepDecay(2, 0.5), ExponentialDecay(0.9), CosineDecay(), lambda epoch, epochs: 1 / (1 + epoch)]
)
@pytest.mark.parametrize("batch_size", [1, None])
def test_training_follows_the_schedule(schedule: Schedule | None, batch_size: int | None) -> None:
    lr, epochs = 0.125, 6
    model, twin = MLP([1, 1], dtype="float64", seed=1), MLP([1, 1], dtype="float64", seed=1)
    trainer = Trainer(optimizer=SGD(lr=lr), schedule=schedule, batch_size=batch_size, epochs=epochs)
    history = trainer.fit(model, X, Y)
    factors = [1.0 if schedule is None else schedule(epoch, epochs) for epoch in range(epochs)]
    assert history["lr"] == [lr * factor for factor in factors]
    for factor in factors:  # the same, an epoch at a time; the order is given, so that it can be
        Trainer(optimizer=SGD(lr=lr * factor), batch_size=batch_size, epochs=1, shuffle=False).fit(twin, X, Y)
    if batch_size is None:  # the order of two rows in a sum cannot matter
        np.testing.assert_array_equal(model.params, twin.params)


def test_a_factor_of_zero_holds_the_weights() -> None:
    model = MLP([1, 1], seed=1)
    before = model.params.copy()
    Trainer(schedule=lambda epoch, epochs: 0.0, epochs=3).fit(model, X, Y)
    np.testing.assert_array_equal(model.params, before)


@pytest.mark.parametrize("factor", [math.nan, math.inf, -0.5])
def test_a_bad_factor_is_refused_before_anything_changes(factor: float) -> None:
    model = MLP([1, 1], seed=1)
    before = model.params.copy()
    with pytest.raises(ValueError, match=r"schedule: gave .* for epoch 0, expected a finite factor"):
        Trainer(loss="mae", schedule=lambda epoch, epochs: factor).fit(model, X, Y)
    np.testing.assert_array_equal(model.params, before)
    assert model.loss is None


@pytest.mark.parametrize("result", ["fast", None, 1j])
def test_a_factor_that_is_no_number_names_the_schedule(result: object) -> None:
    with pytest.raises((TypeError, ValueError), match="schedule"):
        Trainer(schedule=lambda epoch, epochs: result).fit(MLP([1, 1]), X, Y)  # type: ignore[arg-type, return-value]


def test_a_schedule_is_asked_once_for_each_epoch() -> None:
    asked = []

    def schedule(epoch: int, epochs: int) -> float:
        asked.append((epoch, epochs))
        return 1.0

    Trainer(schedule=schedule, epochs=4).fit(MLP([1, 1]), X, Y)
    assert asked == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_no_schedule() -> None:
    with pytest.raises(TypeError, match=r"schedule: got 0.9, expected a schedule such as CosineDecay\(\)"):
        Trainer(schedule=0.9)  # type: ignore[arg-type]
