"""Learning-rate schedules: schedule(step, steps) is the factor of the optimiser's lr at a step, counted from 0.

Steps are epochs, or with per="step" the optimiser's own; steps is their number, 0 where it is not known beforehand.
Any function (epoch, epochs) -> factor is a schedule too. The formulas need only arithmetic and square roots, which
every machine rounds alike: no mathematical library has a say in the bits of a training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop import check

Schedule = Callable[[int, int], float]
Floats = NDArray[np.float64]
UNITS = ("epoch", "step")


def begin(schedule: Schedule) -> Schedule:
    """The schedule for a new run.

    One that remembers has a method `begin`, which gives the schedule of one run from its start; that one's
    `see(figures)`, if it has it, gets every row of the history.
    """
    start = getattr(schedule, "begin", None)
    return start() if callable(start) else schedule


def factors(schedule: Schedule, step: NDArray[np.int64], steps: int) -> Floats | list[Any]:
    """The factors at many steps."""
    return schedule.factors(step, steps) if isinstance(schedule, Curve) else [schedule(int(t), steps) for t in step]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A schedule that is a formula. per: what it counts, "epoch" or "step"; lengths are in that unit."""

    per: str = "epoch"

    def __post_init__(self) -> None:
        check.choice("per", self.per, UNITS)

    def __call__(self, step: int, steps: int) -> float:
        return float(self.factors(np.array([step]), steps)[0])

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        """The factors at many steps at once, (n,) each."""
        raise NotImplementedError

    def _length(self, length: int | None, steps: int) -> int:
        """The length given, or all there are."""
        if not (length or steps):
            raise ValueError(
                f"schedule: {self!r} is as long as the training, whose number of steps is not known beforehand; "
                "expected its length in steps."
            )
        return length or steps


@dataclass(frozen=True)
class Constant(Curve):
    """factor = 1."""

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        return np.ones(len(step))


@dataclass(frozen=True)
class StepDecay(Curve):
    """factor = rate ** (step // every): a cut every few epochs."""

    every: int = 10
    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer("every", self.every, 1)
        check.number("rate", self.rate, 0.0, 1.0, open_below=True)

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        return _whole_power(self.rate, step // self.every)


@dataclass(frozen=True)
class ExponentialDecay(Curve):
    """factor = rate ** step."""

    rate: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        check.number("rate", self.rate, 0.0, 1.0, open_below=True)

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        return _whole_power(self.rate, step)


@dataclass(frozen=True)
class InverseTimeDecay(Curve):
    """factor = 1 / (1 + rate step) ** power (Robbins and Monro 1951; power 0.5: Zinkevich 2003)."""

    rate: float = 0.1
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check.number("rate", self.rate, 0.0, open_below=True)
        check.number("power", self.power, 0.0, 8.0, open_below=True)

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        return 1.0 / _power(1.0 + self.rate * step.astype(np.float64), self.power)


@dataclass(frozen=True)
class PolynomialDecay(Curve):
    """factor = floor + (1 - floor) (1 - step / length) ** power, and floor from then on; power 1 is a straight line.

    length: None: to the end of the training. Definition of PyTorch's PolynomialLR.
    """

    power: float = 1.0
    length: int | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check.number("power", self.power, 0.0, 64.0, open_below=True)
        if self.length is not None:
            check.integer("length", self.length, 1)
        check.number("floor", self.floor, 0.0, 1.0)

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        left = 1.0 - np.minimum(1.0, step / self._length(self.length, steps))
        return self.floor + (1.0 - self.floor) * _power(left, self.power)


@dataclass(frozen=True)
class CosineDecay(Curve):
    """factor = floor + (1 - floor) (1 + cos(pi step / epochs)) / 2, from 1 down to floor (Loshchilov and Hutter 2017).

    epochs: where the floor is reached (a number of steps with per="step"); None: at the end of the training.
    """

    epochs: int | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is not None:
            check.integer("epochs", self.epochs, 1)
        check.number("floor", self.floor, 0.0, 1.0)

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        return _cosine(np.minimum(1.0, step / self._length(self.epochs, steps)), 1.0, self.floor)


@dataclass(frozen=True)
class CosineRestarts(Curve):
    """CosineDecay over and over: a period of `length`, each following one `multiplier` times as long (SGDR).

    factor = floor + (1 - floor) (1 + cos(pi t / period)) / 2, t counted from the last restart.
    Loshchilov and Hutter 2017, eq. 5; definition of PyTorch's CosineAnnealingWarmRestarts.
    """

    length: int = 10
    multiplier: int = 1
    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer("length", self.length, 1)
        check.integer("multiplier", self.multiplier, 1)
        check.number("floor", self.floor, 0.0, 1.0)

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        since, period = step % self.length, np.full(len(step), self.length)
        if self.multiplier > 1:
            since = step.copy()
            while (over := since >= period).any():
                since[over] -= period[over]
                period[over] *= self.multiplier
        return _cosine(since / period, 1.0, self.floor)


@dataclass(frozen=True)
class Warmup(Curve):
    """factor = start + (1 - start) step / length before `length`, then another schedule, which counts from there.

    The rise ends where that schedule begins: it is multiplied by that one's first factor. per: "auto": as the
    other counts. Definition of PyTorch's LinearLR, then a schedule in its SequentialLR. Goyal et al. 2017, section 2.2.
    Raises ValueError if both count, and not the same.
    """

    length: int = 5
    then: Schedule = Constant()
    start: float = 0.1
    per: str = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        check.integer("length", self.length, 1)
        check.number("start", self.start, 0.0, 1.0)
        if not callable(self.then):
            raise TypeError(f"then: got {self.then!r}, expected a schedule such as CosineDecay().")
        counts = getattr(self.then, "per", "epoch")
        if self.per == "auto":
            object.__setattr__(self, "per", counts)
        elif self.per != counts and hasattr(self.then, "per") and not isinstance(self.then, Constant):
            raise ValueError(f"per: got {self.per!r}, but {self.then!r} counts by the {counts}.")
        super().__post_init__()

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        rise = self.start + (1.0 - self.start) * np.minimum(1.0, step / self.length)
        rest = max(1, steps - self.length) if steps else 0
        return rise * np.asarray(factors(self.then, np.maximum(0, step - self.length), rest))

    def begin(self) -> "Warmup":
        """The same with `then` begun."""
        return Warmup(self.length, begin(self.then), self.start, per=self.per)

    def see(self, figures: Mapping[str, float]) -> None:
        """Hand an epoch's figures on; those of the warm-up count too."""
        if hasattr(self.then, "see"):
            self.then.see(figures)


def innermost(schedule: Schedule) -> Schedule:
    """The schedule behind all warm-ups."""
    return innermost(schedule.then) if isinstance(schedule, Warmup) else schedule


@dataclass(frozen=True)
class OneCycle(Curve):
    """Up to the optimiser's lr and far down again, once, along cosines; by the step (Smith and Topin 2018).

    factor: 1 / initial -> 1 over the share `rise` of the steps, then 1 -> 1 / (initial final). length: None: all steps
    of the training. Definition and defaults of PyTorch's OneCycleLR.
    """

    rise: float = 0.3
    initial: float = 25.0
    final: float = 1e4
    length: int | None = None
    per: str = field(default="step", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check.number("rise", self.rise, 0.0, 1.0)
        check.number("initial", self.initial, 1.0)
        check.number("final", self.final, 1.0)
        if self.length is not None:
            check.integer("length", self.length, 1)

    def factors(self, step: NDArray[np.int64], steps: int) -> Floats:
        last = (self.length or steps) - 1.0
        np.minimum(1.0, step / self._length(self.length, steps))
        top = self.rise * (last + 1.0) - 1.0
        up = _cosine(np.clip(step / top, 0.0, 1.0) if top > 0 else np.ones(len(step)), 1.0 / self.initial, 1.0)
        share = np.clip((step - top) / (last - top), 0.0, 1.0) if last > top else np.ones(len(step))
        return np.where(step <= top, up, _cosine(share, 1.0, 1.0 / (self.initial * self.final)))


def _cosine(share: Floats, first: float, last: float) -> Floats:
    """last + (first - last) (1 + cos(pi share)) / 2, for a share of 0 to 1; exact at both ends."""
    x = np.pi / 2 * np.minimum(share, 1.0 - share)  # (1 + cos(pi share)) / 2 is 1 - sin(x)^2, or sin(x)^2 behind 1/2
    sine = x.copy()
    term = x
    for k in range(2, 20, 2):  # Taylor: x is pi / 4 at most, the first term left out less than 1e-19 of the first
        term = -term * x * x / (k * (k + 1))
        sine = sine + term
    half = sine * sine
    return last + (first - last) * np.where(share <= 0.5, 1.0 - half, half)


def _whole_power(base: Floats | float, exponent: NDArray[np.int64]) -> Floats:
    """base ** exponent, exponent 0 or more, by repeated squaring."""
    power, square, left = np.ones(exponent.shape), np.asarray(base, np.float64), exponent
    while left.any():
        power = np.where(left % 2 == 1, power * square, power)
        square, left = square * square, left // 2
    return power


def _power(base: Floats, exponent: float) -> Floats:
    """base ** exponent, both 0 or more: the exponent's binary places before the point are squares, behind it roots."""
    whole, part = divmod(exponent, 1.0)
    power, root = _whole_power(base, np.full(base.shape, int(whole))), base
    while part > 0.0:
        root, part = np.sqrt(root), 2.0 * part
        if part >= 1.0:
            power, part = power * root, part - 1.0
    return power
