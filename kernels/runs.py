"""Whole epochs one after another, validation and early stopping with them, and nothing of Python's in between."""

from functools import partial
from math import isfinite, nan
from typing import Any, NamedTuple

from hotloop.kernels import figures
from hotloop.kernels.inference import all_finite, total_loss
from hotloop.kernels.jit import call, inner, jit
from hotloop.kernels.plan import Inputs, Network
from hotloop.kernels.random import permutation

LOSS, HELD_LOSS, FIGURE = range(3)  # the columns of Course.figures
ON, DIVERGED, TARGET, WAITED, STILL = range(5)  # why no further epoch is run
BEST, SINCE = range(2)  # the places of Watch.state


class Held(NamedTuple):
    """Samples that are held out, for `predict` and `total_loss`, and room for what comes of them; or none."""

    predict: int  # where inference.predict is
    plan: Any
    inputs: Inputs
    targets: Any  # (n, k), or (0, k)
    labels: Any  # (n,) int32, or (0,)
    weights: Any  # (0,)
    loss: int  # a `ready` code
    decision: int  # see figures
    bound: float
    target_bound: float
    block: int
    work: Any
    outputs: Any  # (n, k)
    delta: Any  # (k,)


class Watch(NamedTuple):
    """Which figure must fall, or rise, and what is kept when it does."""

    monitor: int  # a column of the figures
    sign: float  # -1 for one that rises
    min_delta: float
    patience: int  # 0: any; then the parameters from before the best epoch are kept, and else those behind it
    target: float  # what sign times the figure must reach; -infinity for none
    tol: float  # the least that some parameter must move in an epoch
    state: Any  # (2,) float64: the best of sign times the figure so far, and the epochs since


class Course(NamedTuple):
    """What changes from each of some epochs to the next, and what they leave."""

    seed: int
    first: int  # how many epochs are done
    shuffle: bool
    limit: float  # a larger mean loss is divergence
    rates: Any  # (epochs, 1) float64: learning rates; or (epochs, steps), another in each step
    start: Any  # (n_params,) the parameters from before the last epoch
    kept: Any  # (n_params,) those to go back to
    learned: Any  # (n_params,) those that are validated: a mean of all steps, or the network's own
    figures: Any  # (epochs, 3) float64: each sample's loss before its step, the mean; loss and figure of those held out
    held: Held
    watch: Watch


@inner
def _copy(source, to):
    for i in range(source.shape[0]):
        to[i] = source[i]


@inner
def _farthest(a, b):
    """max |a - b|."""
    most = abs(a[0] - b[0])
    for i in range(a.shape[0]):
        most = max(most, abs(a[i] - b[i]))
    return most


@inner
def _validate(held, params, found):
    """found[1:] = the mean loss of the samples held out, and their figure."""
    n, out = held.outputs.shape[0], held.outputs
    call(held.predict, (Network(held.plan, params), held.inputs, 0, n, held.block, held.work, out))
    total = total_loss(held.loss, out, held.targets, held.labels, held.weights, held.delta)
    found[HELD_LOSS] = total / n
    found[FIGURE] = figures.figure(held.decision, out, held.targets, held.labels, held.bound, held.target_bound)


@inner
def _judge(course, params, found):
    """Whether to go on, by an epoch's figures; what is better than before is kept. As `fitting.Fitting._reason`."""
    watch = course.watch
    score = watch.sign * found[watch.monitor]
    if score < watch.state[BEST] - watch.min_delta:
        watch.state[BEST], watch.state[SINCE] = score, 0.0
        _copy(course.learned if watch.patience > 0 else course.start, course.kept)
    else:
        watch.state[SINCE] += 1.0
    if score <= watch.target:
        _copy(course.learned, course.kept)
        return TARGET
    if 0 < watch.patience <= watch.state[SINCE]:
        return WAITED
    return STILL if watch.tol > 0.0 and _farthest(params, course.start) <= watch.tol else ON


@partial(jit, _nrt=False)
def run_epochs(kernel, net, samples, size, loss, rule, regular, scratch, course):
    """Train epoch after epoch on this thread; (how many it took, why it ended before the others or ON).

    kernel: where epochs.per_sample is, or epochs.mini_batch; size: of its windows or batches; the rest is as for them.
    rule.rates (m,), regular.epoch, samples.order and the arrays of the course change in place, as params do.
    Python takes 10 to 25 us between two epochs, and 50 to 100 with validation: `bench/short.py`.
    """
    params, n, found, held = net.params, samples.order.shape[0], course.figures, course.held
    for epoch in range(found.shape[0]):
        _copy(params, course.start)
        for step in range(rule.rates.shape[0]):
            rule.rates[step] = course.rates[epoch, step]
        scratch.total[0], regular.epoch[0] = 0.0, course.first + epoch
        if course.shuffle:
            permutation(course.seed, course.first + epoch, samples.order)
        call(kernel, (net, samples, 0, n, size, loss, rule, regular, scratch, 0, 1))
        found[epoch, LOSS] = scratch.total[0] / n
        found[epoch, HELD_LOSS] = found[epoch, FIGURE] = nan
        sound = isfinite(found[epoch, LOSS]) and all_finite(params)
        if sound and held.outputs.shape[0] > 0:
            _validate(held, course.learned, found[epoch])
        if not sound or found[epoch, LOSS] > course.limit:
            return epoch + 1, DIVERGED
        reason = _judge(course, params, found[epoch])
        if reason != ON:
            return epoch + 1, reason
    return found.shape[0], ON
