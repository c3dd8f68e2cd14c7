"""The learning-rate range test: a short training whose rate rises from far too low to far too high."""

import math
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import check
from hotloop.engine import Engine, Interrupts
from hotloop.fitting import Fitting
from hotloop.kernels import updates
from hotloop.kernels.random import permutation
from hotloop.mlp import MLP
from hotloop.schedules import Constant, Floats
from hotloop.trainer import Trainer

READINGS = 100  # points of the curve: 14 to a decade
LEAST_STEPS, LEAST_SAMPLES, MOST_SAMPLES = 200, 3000, 100_000
EXPLODED = 4.0  # times the lowest loss, and above the first: the test ends
TREND = 0.7  # of the losses so far in the one that is watched: a few hard samples are no explosion
WIDTH = 3.0  # of the smoothing, in readings
FALL, NOISE = 0.01, 1.0  # a loss that fell by less than this share, and so many times its noise, has shown nothing

# The best rate of a whole training, below the one at which the test's loss was lowest (measured: digits and MNIST,
# batch 1 and 32, test accuracy within 2 points of the best of a grid). Steps that are divided by the size of the
# gradient do not shrink with it as the loss falls, and so want to be smaller than a short test shows.
MARGIN, NORMALISED_MARGIN = 1.5, 4.0
NORMALISED = (updates.ADAM, updates.RMSPROP, updates.LION, updates.ADADELTA)


@dataclass(frozen=True)
class LRRange:
    """The curve of a range test: rates (m,), the mean loss at each, that loss smoothed, and the rate to use.

    suggestion is None where the loss never fell.
    """

    rates: Floats
    readings: Floats
    losses: Floats
    suggestion: float | None

    def __repr__(self) -> str:
        advice = "none" if self.suggestion is None else f"{self.suggestion:.2g}"
        return f"LRRange({len(self.rates)} rates, {self.rates[0]:.2g} to {self.rates[-1]:.2g}, suggestion {advice})"

    def plot(self, path: str | Path) -> None:
        """Draw the losses against the rates, with the suggestion, into a picture file."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("LRRange.plot needs matplotlib: pip install 'hotloop[plot]'") from None
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.readings, color="tab:blue", alpha=0.3, label="loss")
        axes.plot(self.rates, self.losses, color="tab:blue", label="loss, smoothed")
        if self.suggestion is not None:
            axes.axvline(self.suggestion, color="tab:red", linestyle="--", label=f"suggestion {self.suggestion:.2g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Learning-rate range test")
        axes.set_ylim(0.95 * self.losses.min(), 1.1 * self.losses[: self.losses.argmin() + 1].max())
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")
        figure.savefig(path, dpi=120)


def lr_range(
    model: MLP,
    X: ArrayLike,
    y: ArrayLike,
    trainer: Trainer,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int | None = None,
) -> LRRange:
    """Train with a rate that rises from low to high, by the same factor in each step, until the loss explodes.

    The trainer's optimiser, batch size and regularisation are used, its schedule and lr are not; the model ends as it
    was. steps: None: an epoch, but at least 200 steps and 3,000 samples, and no more than 100,000. Raises as fit does.
    Smith 2017, section 3.3.
    """
    if not isinstance(trainer, Trainer):
        raise TypeError(f"trainer: got {trainer!r}, expected a Trainer.")
    low = check.number("low", low, 0.0, open_below=True)
    high = check.number("high", high, low, open_below=True)
    if steps is not None:
        check.integer("steps", steps, 10)
    trainer = copy(trainer)
    trainer.schedule = Constant(per="step")  # its rates are those of the test, another for each step
    run = Fitting(trainer, model, trainer._smoothed(trainer._set(model, X, y)), None)
    usual = min(max(run.steps, LEAST_SAMPLES // run.batch_size), MOST_SAMPLES // run.batch_size)
    total = steps or max(LEAST_STEPS, usual)
    rates = low * (high / low) ** np.linspace(0.0, 1.0, total)
    try:
        places, readings = _sweep(run, rates)
    finally:
        model.params[:] = run.kept
        run.close()
    if not len(readings):
        raise ValueError(f"low: got {low:g}, expected a rate at which the first step does not diverge.")
    losses = _smooth(readings)
    return LRRange(rates[places], readings, losses, _suggest(rates[places], readings, losses, trainer))


def _sweep(run: Fitting, rates: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Train through all rates: the middle step of every reading, and its mean loss, until that explodes."""
    per = -(-len(rates) // READINGS)
    places, readings, trend, lowest = [], [], math.nan, math.inf
    with Interrupts() as interrupts:
        for first in range(0, len(rates), per):
            some = min(per, len(rates) - first)
            loss = _read(run, rates[first : first + some], interrupts)
            if not math.isfinite(loss):
                break
            places.append(first + some // 2)
            readings.append(loss)
            trend = TREND * trend + (1.0 - TREND) * loss if first else loss
            lowest = min(lowest, trend)
            if trend > max(EXPLODED * lowest, readings[0]):
                break
    return np.array(places, np.int64), np.array(readings)


def _read(run: Fitting, rates: Floats, interrupts: Interrupts) -> float:
    """Train one step at each of these rates, go on with the next epoch where one ends; the mean loss."""
    engine, trainer, n, size = run.engine, run.trainer, len(run.training.rows), run.batch_size
    assert engine is not None
    lost, samples, done = 0.0, 0, 0
    while done < len(rates):
        at = run.step % run.steps
        if at == 0:
            if trainer.shuffle:
                permutation(trainer.seed, run.step // run.steps, engine.order)
            engine.restart(run.step // run.steps)
        some = min(len(rates) - done, run.steps - at)
        course = np.zeros(run.steps)
        course[at : at + some] = rates[done : done + some]
        rule = trainer.optimizer.rule(course, run.grad, run.state)
        begin, end = at * size, min(n, (at + some) * size)
        before = float(engine.scratch.total[0])
        _stretch(engine, begin, end, rule, interrupts)
        lost, samples = lost + float(engine.scratch.total[0]) - before, samples + end - begin
        done, run.step = done + some, run.step + some
    return lost / samples


def _stretch(engine: Engine, begin: int, end: int, rule: updates.Rule, interrupts: Interrupts) -> None:
    """Train on positions begin .. end of the order, in pieces."""

    def after(stop: int, total: float) -> bool:
        interrupts.deliver("the range test was stopped; the model is as it was")
        return math.isfinite(total)

    engine.pieces.run(end - begin, lambda start, stop: engine.run(begin + start, begin + stop, rule), after)


def _smooth(readings: Floats) -> Floats:
    """The readings, each the mean of those around it, weighted by a normal curve; an explosion counts as a rise."""
    readings = np.minimum(readings, EXPLODED * readings[:5].mean())
    reach = np.arange(-3 * WIDTH, 3 * WIDTH + 1)
    kernel = np.exp(-0.5 * (reach / WIDTH) ** 2)
    ones = np.convolve(np.ones(len(readings)), kernel, "full")[len(reach) // 2 :][: len(readings)]
    return np.convolve(readings, kernel, "full")[len(reach) // 2 :][: len(readings)] / ones


def _suggest(rates: Floats, readings: Floats, losses: Floats, trainer: Trainer) -> float | None:
    """The rate of the lowest loss, and a margin."""
    lowest = int(losses.argmin())
    noise = float(np.std((readings - losses)[: lowest + 1]))
    if losses[lowest] > (1.0 - FALL) * losses[0] - NOISE * noise:
        return None
    normalised = trainer.optimizer.constants().code in NORMALISED
    return float(rates[lowest]) / (NORMALISED_MARGIN if normalised else MARGIN)
