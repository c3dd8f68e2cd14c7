"""Sparse first layers under rules with a memory: only the rows of weights that a batch meets are moved.

A row of weights whose inputs were all zero has a zero gradient, and what a rule does with it is known for any number of
steps at once: Adagrad nothing, RMSprop and Adadelta let the mean of squares fade, momentum coasts along a geometric
series. So a row is brought up to date when a batch meets it again, and at the end of every piece: the same result as
moving all rows in each step, to rounding, without reading them.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types
from numpy.typing import DTypeLike

from hotloop.kernels import barrier, steps, updates
from hotloop.kernels.jit import address, apart, call, inner
from hotloop.kernels.plan import BIAS, PADDED, WEIGHT, WIDTH
from hotloop.kernels.simd import cast, fma, pointer

RULES = (updates.MOMENTUM, updates.NESTEROV, updates.RMSPROP, updates.ADAGRAD, updates.ADADELTA)


class Parts(NamedTuple):
    """Where the code of `before` and `after` is in this process, see `jit.apart`; 0 where nothing is lazy."""

    before: int = 0
    after: int = 0


class Batch(NamedTuple):
    """Where in the training a batch is."""

    position: int  # of its first row in the epoch
    rows: int
    lr: float
    step: int  # steps done before it


class Lazy(NamedTuple):
    """What a lazy first layer remembers; all empty for one that is not."""

    done: Any  # (n_features,) int64, the steps each row of the first weight has made
    met: Any  # (n_features,) int32, the rows that the present batch meets, in the order it meets them
    number: Any  # (1,) int64, how many they are
    parts: Parts = Parts()  # see `ready`


@inner
def _meet(lazy, index, start, order, position, rows):
    """List the rows of the first weight that this batch meets; marks them as having made -1 - their steps."""
    done, met, number = lazy.done, lazy.met, 0
    for r in range(rows):
        sample = order[position + r]
        for k in range(start[sample], start[sample + 1]):
            feature = index[k]
            if done[feature] >= 0:
                done[feature] = -1 - done[feature]
                met[number] = feature
                number += 1
    lazy.number[0] = number


@inner
def _power(base, exponent):
    """base ** exponent by squaring: the same bits everywhere."""
    result = 1.0
    while exponent > 0:
        if exponent & 1 == 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


@inner
def _idle(rule, params, at, width, count, lr):
    """Do `count` steps of zero gradient on params[at : at + width]."""
    if rule.code == updates.ADAGRAD or count == 0:
        return
    first, second, param = pointer(rule.first, at), pointer(rule.second, at), pointer(params, at)
    if rule.code == updates.RMSPROP or rule.code == updates.ADADELTA:
        fade = _power(rule.beta2, count)
        for j in range(width):
            second[j] *= cast(fade, second[j])
            if rule.code == updates.ADADELTA:
                first[j] *= cast(fade, first[j])
    if rule.beta1 > 0.0:
        fade = _power(rule.beta1, count)
        way = rule.beta1 * (1.0 - fade) / (1.0 - rule.beta1)  # beta1 + beta1^2 + ... + beta1^count
        if rule.code == updates.NESTEROV:
            way *= rule.beta1
        for j in range(width):
            param[j] = fma(cast(-lr * way, param[j]), first[j], param[j])
            first[j] *= cast(fade, first[j])


@inner
def _catch_up(plan, params, rule, lazy, lr, step, thread, threads):
    """Bring the rows that the batch meets up to `step`, this thread's share of them."""
    number, width = lazy.number[0], plan[1, PADDED]
    for i in range(number * thread // threads, number * (thread + 1) // threads):
        row = lazy.met[i]
        _idle(rule, params, plan[1, WEIGHT] + row * width, width, step - (-1 - lazy.done[row]), lr)
        lazy.done[row] = step


@inner
def _move(plan, params, rule, lazy, lr, step, thread, threads):
    """One step of the rows that the batch met, and of everything above the first layer's weights."""
    number, width = lazy.number[0], plan[1, PADDED]
    for i in range(number * thread // threads, number * (thread + 1) // threads):
        row = lazy.met[i]
        at = plan[1, WEIGHT] + row * width
        steps.apply(rule, params, at, at + width, lr)
        lazy.done[row] = step + 1
    above = plan[1, BIAS]
    size = params.shape[0] - above
    steps.apply(rule, params, above + size * thread // threads, above + size * (thread + 1) // threads, lr)


@inner
def _settle(plan, params, rule, lazy, lr, step, thread, threads):
    """Bring all rows up to `step`."""
    features, width = plan[0, WIDTH], plan[1, PADDED]
    for row in range(features * thread // threads, features * (thread + 1) // threads):
        _idle(rule, params, plan[1, WEIGHT] + row * width, width, step - lazy.done[row], lr)
        lazy.done[row] = step


@apart
def _before(plan, params, index, start, order, rule, lazy, batch, meeting, thread, threads):
    position, rows, lr, step = batch
    if thread == 0:
        _meet(lazy, index, start, order, position, rows)
    barrier.wait(meeting, threads)
    _catch_up(plan, params, rule, lazy, lr, step, thread, threads)
    barrier.wait(meeting, threads)


@apart
def _after(plan, params, n, rule, lazy, batch, meeting, thread, threads):
    position, rows, lr, step = batch
    _move(plan, params, rule, lazy, lr, step, thread, threads)
    barrier.wait(meeting, threads)
    if thread == 0:
        steps.tick(rule)
    if position + rows == n:  # at the end of an epoch: where pieces end must not change a bit
        _settle(plan, params, rule, lazy, rule.rates[0], step + 1, thread, threads)


@inner
def before(net, samples, rule, lazy, batch, meeting, thread, threads):
    """Bring the rows of the first weight that the batch meets up to its step."""
    index, start, order = samples.inputs.index, samples.inputs.start, samples.order
    plan, params = net
    call(lazy.parts.before, (plan, params, index, start, order, rule, lazy, batch, meeting, thread, threads))


@inner
def after(net, samples, rule, lazy, batch, meeting, thread, threads):
    """The step of the rows that the batch met and of everything above; behind the last batch, of all other rows."""
    plan, params = net
    n = samples.order.shape[0]
    call(lazy.parts.after, (plan, params, n, rule, lazy, batch, meeting, thread, threads))


@cache
def _addresses(dtype: DTypeLike) -> Parts:
    """Where the parts are, for parameters of this dtype."""
    vector, number, ints = np.zeros(0, dtype), np.zeros(0), types.int64[::1]
    rule = typeof(updates.Rule(0, number, 0.0, 0.0, 0.0, 0.0, vector, vector, vector, number))
    lazy = typeof(Lazy(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64)))
    net, rest = (types.int64[:, ::1], typeof(vector)), (ints, types.int64, types.int64)
    batch = rule, lazy, typeof(Batch(0, 0, 0.0, 0))
    return Parts(
        address(_before, *net, types.int32[::1], ints, ints, *batch, *rest),
        address(_after, *net, types.int64, *batch, *rest),
    )


def ready(lazy: Lazy, dtype: DTypeLike) -> Lazy:
    """The same with the addresses of its code, for parameters of this dtype."""
    return lazy._replace(parts=_addresses(np.dtype(dtype)))
