"""Schedules: reference values, bad constants, and the learning rate a training really used."""

import math
from itertools import pairwise

import numpy as np
import pytest

from hotloop import (
    MLP,
    SGD,
    Constant,
    CosineDecay,
    CosineRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    OneCycle,
    PolynomialDecay,
    ReduceOnPlateau,
    StepDecay,
    Trainer,
    Warmup,
)
from hotloop.schedules import Curve, Schedule, begin

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
        (CosineRestarts(2), [1, 0.5, 1, 0.5, 1]),
        (CosineRestarts(1, 2, floor=0.5), [1, 1, 0.75, 1, 0.5 + 0.25 * (1 + math.sqrt(0.5))]),
        (InverseTimeDecay(1.0), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
        (InverseTimeDecay(3.0, power=0.5), [1, 1 / 2, 1 / math.sqrt(7), 1 / math.sqrt(10), 1 / math.sqrt(13)]),
        (PolynomialDecay(), [1, 0.8, 0.6, 0.4, 0.2]),
        (PolynomialDecay(2.0, length=2, floor=0.2), [1, 0.4, 0.2, 0.2, 0.2]),
        (PolynomialDecay(1.5, length=4), [1, 0.75**1.5, 0.5**1.5, 0.125, 0]),
        (Warmup(2, start=0.0), [0, 0.5, 1, 1, 1]),
        (Warmup(2, ExponentialDecay(0.5), start=0.5), [0.5, 0.75, 1, 0.5, 0.25]),
        (Warmup(2, CosineDecay(), start=0.0), [0, 0.5, 1, 0.75, 0.25]),
        (Warmup(2, lambda epoch, epochs: 8.0 / (epochs - epoch), start=0.25), [2 / 3, 5 / 3, 8 / 3, 4, 8]),
        (Warmup(9, CosineDecay(), start=0.1), [0.1, 0.2, 0.3, 0.4, 0.5]),
        (OneCycle(0.6, 10.0, 100.0), [0.1, 0.55, 1, 0.5005, 0.001]),
        (OneCycle(0.2, 10.0, 100.0, length=3), [1 - 0.999 * 0.5 * (1 - math.cos(math.pi * 4 / 24)), None, 1e-3, 1e-3]),
        (OneCycle(0.2), [1, None, None, None, 4e-6]),
        (OneCycle(1.0, 4.0), [0.25, 0.25 + 0.375 * (1 - math.sqrt(0.5)), 0.625, None, 1]),
    ],
)
def test_factors(schedule: Schedule, factors: list[float | None]) -> None:
    for epoch, factor in enumerate(factors):
        if factor is not None:
            assert schedule(epoch, 5) == pytest.approx(factor, rel=1e-12)


CURVES: list[Curve] = [
    Constant(),
    StepDecay(7, 0.3),
    ExponentialDecay(0.97),
    CosineDecay(),
    CosineDecay(50, 0.1),
    CosineRestarts(7, 2, 0.05),
    InverseTimeDecay(0.3, 0.5),
    PolynomialDecay(0.7),
    OneCycle(),
    Warmup(20, CosineDecay()),
    Warmup(5, Warmup(5, PolynomialDecay(2.5))),
]


@pytest.mark.parametrize("schedule", CURVES, ids=str)
def test_many_factors_at_once_are_those_one_by_one(schedule: Curve) -> None:
    steps = np.arange(130)
    assert schedule.factors(steps, 100).tolist() == [schedule(int(step), 100) for step in steps]
    assert schedule.factors(steps, 100).min() >= 0.0 and schedule.factors(steps, 100).max() <= 1.0


@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("power", [0.1, 0.5, 1.0, 1.7, 2.0, 63.99])
def test_powers_are_those_of_the_mathematical_library(share: float, power: float) -> None:
    factor = PolynomialDecay(power)(round(1000 * share), 1000)
    assert factor == pytest.approx((1.0 - round(1000 * share) / 1000) ** power, rel=1e-13)


def torch_factors(name: str, steps: int, *arguments: object) -> list[float]:
    """The rates of one of PyTorch's schedulers, from 1."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    if name == "Warmup":
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, arguments[0], 1.0, arguments[1])
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - arguments[1])
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [arguments[1]])
    else:
        scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, *arguments)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return found


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # PyTorch's own, within SequentialLR
@pytest.mark.parametrize(
    ("schedule", "name", "arguments"),
    [
        (StepDecay(7, 0.3), "StepLR", (7, 0.3)),
        (ExponentialDecay(0.97), "ExponentialLR", (0.97,)),
        (CosineDecay(), "CosineAnnealingLR", (400,)),
        (CosineDecay(floor=0.1), "CosineAnnealingLR", (400, 0.1)),
        (CosineRestarts(9), "CosineAnnealingWarmRestarts", (9,)),
        (CosineRestarts(7, 2, 0.05), "CosineAnnealingWarmRestarts", (7, 2, 0.05)),
        (CosineRestarts(1, 3), "CosineAnnealingWarmRestarts", (1, 3)),
        (InverseTimeDecay(0.3, 0.5), "LambdaLR", (lambda step: (1 + 0.3 * step) ** -0.5,)),
        (PolynomialDecay(0.7), "PolynomialLR", (400, 0.7)),
        (PolynomialDecay(3.3, 100), "PolynomialLR", (100, 3.3)),
        (Warmup(20, CosineDecay(), 0.25), "Warmup", (0.25, 20)),
        (OneCycle(), "OneCycleLR", (1.0, 400)),
        (OneCycle(0.41, 3.0, 7.0), "OneCycleLR", (1.0, 400, None, None, 0.41, "cos", True, 0.85, 0.95, 3.0, 7.0)),
    ],
    ids=str,
)
def test_schedules_are_those_of_pytorch(schedule: Schedule, name: str, arguments: tuple[object, ...]) -> None:
    expected = torch_factors(name, 400, *arguments)
    np.testing.assert_allclose([schedule(step, 400) for step in range(400)], expected, rtol=2e-12, atol=1e-15)


def plateau_factors(schedule: ReduceOnPlateau, figures: list[float]) -> list[float]:
    course, found = begin(schedule), []
    for epoch, figure in enumerate(figures):
        found.append(course(epoch, len(figures)))
        course.see({schedule.monitor: figure})  # type: ignore[attr-defined]
    return found


def test_plateau_worked_out() -> None:
    losses = [4.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0]
    schedule = ReduceOnPlateau(0.5, patience=1)
    assert plateau_factors(schedule, losses) == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    schedule = ReduceOnPlateau(0.5, patience=1, cooldown=2)
    assert plateau_factors(schedule, losses) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    schedule = ReduceOnPlateau(0.5, patience=0, floor=0.3)
    assert plateau_factors(schedule, losses[:6]) == [1, 1, 1, 0.5, 0.3, 0.3]
    assert plateau_factors(schedule, losses[:6]) == [1, 1, 1, 0.5, 0.3, 0.3]  # a second run starts afresh
    rising = ReduceOnPlateau(0.5, 0, monitor="val_accuracy")
    assert plateau_factors(rising, [0.1, 0.2, 0.3, 0.3, 0.3]) == [1, 1, 1, 1, 0.5]
    assert plateau_factors(ReduceOnPlateau(0.5, 0), [math.nan, math.nan, 1.0]) == [1, 0.5, 0.25]
    assert plateau_factors(ReduceOnPlateau(0.5, 0, 0.1), [-1.0, -1.05, -1.2]) == [1, 1, 0.5]  # a loss below zero
    assert schedule(0, 10) == 1.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("patience", [0, 3])
@pytest.mark.parametrize("cooldown", [0, 4])
def test_plateau_is_that_of_pytorch(seed: int, monitor: str, relative: bool, patience: int, cooldown: int) -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "min" if monitor == "val_loss" else "max", 0.7, patience, 0.01, "rel" if relative else "abs",
        cooldown, 0.01, 0.0,
    )  # fmt: skip
    figures = (1.0 + np.random.default_rng(seed).normal(size=200) / (2 + np.arange(200))).tolist()
    expected = []
    for figure in figures:
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(figure)
    schedule = ReduceOnPlateau(0.7, patience, 0.01, cooldown, 0.01, monitor, relative)
    np.testing.assert_allclose(plateau_factors(schedule, figures), expected, rtol=1e-12)


def test_warm_up_into_a_plateau() -> None:
    course = begin(Warmup(2, ReduceOnPlateau(0.5, 0, monitor="loss"), start=0.5))
    found = []
    for epoch in range(5):
        found.append(course(epoch, 5))
        course.see({"loss": 1.0})  # type: ignore[attr-defined]
    assert found == [0.5, 0.75, 0.5, 0.25, 0.125]


def test_what_a_schedule_counts() -> None:
    assert CosineDecay().per == "epoch" and OneCycle().per == "step" and ExponentialDecay(0.9, per="step").per == "step"
    assert Warmup(3).per == "epoch" and Warmup(3, per="step").per == "step"
    assert Warmup(3, CosineDecay(per="step")).per == "step"
    assert Warmup(3, ReduceOnPlateau(), per="step").per == "step"
    assert Warmup(3, lambda step, steps: 1.0, per="step").per == "step"
    for make in (lambda: CosineDecay(per="batch"), lambda: Warmup(3, per="batch"), lambda: OneCycle(per="batch")):
        with pytest.raises(ValueError, match="per: got 'batch'"):
            make()
    with pytest.raises(ValueError, match=r"per: got 'step', but CosineDecay\(.*\) counts by the epoch"):
        Warmup(3, CosineDecay(), per="step")
    with pytest.raises(TypeError, match=r"then: got 0.5, expected a schedule such as CosineDecay\(\)"):
        Warmup(3, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [CosineDecay(), PolynomialDecay(), OneCycle(), Warmup(3, CosineDecay())], ids=str)
def test_a_schedule_to_the_end_must_know_the_end(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"schedule: .* expected its length in steps"):
        schedule(0, 0)
    assert 0 < OneCycle(length=10)(0, 0) < 1 and CosineDecay(4)(4, 0) == 0.0 and Warmup(2, start=0.5)(1, 0) == 0.75


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
        (lambda: CosineRestarts(length=0), "length: got 0"),
        (lambda: CosineRestarts(multiplier=0), "multiplier: got 0"),
        (lambda: CosineRestarts(floor=-1), "floor: got -1"),
        (lambda: InverseTimeDecay(rate=0), "rate: got 0"),
        (lambda: InverseTimeDecay(power=9), "power: got 9"),
        (lambda: PolynomialDecay(power=0), "power: got 0"),
        (lambda: PolynomialDecay(length=0), "length: got 0"),
        (lambda: PolynomialDecay(floor=2), "floor: got 2"),
        (lambda: Warmup(length=0), "length: got 0"),
        (lambda: Warmup(start=-0.1), "start: got -0.1"),
        (lambda: OneCycle(rise=1.1), "rise: got 1.1"),
        (lambda: OneCycle(initial=0.5), "initial: got 0.5"),
        (lambda: OneCycle(final=0.5), "final: got 0.5"),
        (lambda: OneCycle(length=0), "length: got 0"),
        (lambda: ReduceOnPlateau(factor=1.0), "factor: got 1"),
        (lambda: ReduceOnPlateau(factor=-1.0), "factor: got -1"),
        (lambda: ReduceOnPlateau(patience=-1), "patience: got -1"),
        (lambda: ReduceOnPlateau(min_delta=-1), "min_delta: got -1"),
        (lambda: ReduceOnPlateau(cooldown=-1), "cooldown: got -1"),
        (lambda: ReduceOnPlateau(floor=1.5), "floor: got 1.5"),
        (lambda: ReduceOnPlateau(monitor="val_accuray"), "monitor: got 'val_accuray'; did you mean 'val_accuracy'"),
        (lambda: ReduceOnPlateau(monitor="mine", mode="up"), "mode: got 'up'"),
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
