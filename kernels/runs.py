"""Whole epochs one after another, with nothing of Python's between them."""

from functools import partial
from math import isfinite
from typing import Any, NamedTuple

from hotloop.kernels.inference import all_finite
from hotloop.kernels.jit import call, inner, jit
from hotloop.kernels.random import permutation


class Course(NamedTuple):
    """What changes from each of some epochs to the next, and what they leave."""

    seed: int
    first: int  # how many epochs are done
    shuffle: bool
    limit: float  # a larger mean loss is divergence
    rates: Any  # (epochs, 1) float64: learning rates; or (epochs, steps), another in each step
    start: Any  # (n_params,) the parameters from before the last epoch
    kept: Any  # (n_params,) those from before the epoch of lowest loss
    losses: Any  # (epochs,) float64: each sample's loss before its own step, the mean of an epoch
    lowest: Any  # (1,) float64: the lowest of these so far


@inner
def _copy(source, to):
    for i in range(source.shape[0]):
        to[i] = source[i]


@partial(jit, _nrt=False)
def run_epochs(kernel, net, samples, size, loss, rule, regular, scratch, course):
    """Train epoch after epoch on this thread; return how many it took: fewer than all if the last one diverged.

    kernel: where epochs.per_sample is, or epochs.mini_batch; size: of its windows or batches; the rest is as for them.
    rule.rates (m,), regular.epoch, samples.order and the arrays of the course change in place, as params do.
    Python would take 25 us between two epochs; one of 64-32-10, 1,792 rows, batch 32, takes 200 us.
    """
    params, n, epochs = net.params, samples.order.shape[0], course.losses.shape[0]
    for epoch in range(epochs):
        _copy(params, course.start)
        for step in range(rule.rates.shape[0]):
            rule.rates[step] = course.rates[epoch, step]
        scratch.total[0], regular.epoch[0] = 0.0, course.first + epoch
        if course.shuffle:
            permutation(course.seed, course.first + epoch, samples.order)
        call(kernel, (net, samples, 0, n, size, loss, rule, regular, scratch, 0, 1))
        mean = scratch.total[0] / n
        course.losses[epoch] = mean
        if mean > course.limit or not (isfinite(mean) and all_finite(params)):
            return epoch + 1
        if mean < course.lowest[0]:
            course.lowest[0] = mean
            _copy(course.start, course.kept)
    return epochs
