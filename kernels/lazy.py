"""Sparse first layers under rules with a memory: only the rows of weights that a batch meets are moved.

A row of weights whose inputs were all zero has a zero gradient, and what a rule does with it is known for any number of
steps at once: Adagrad nothing, RMSprop and Adadelta let the mean of squares fade, momentum coasts along a geometric
series. So a row is brought up to date when a batch meets it again, and at the end of every piece: the same result as
moving all rows in each step, to rounding, without reading them.
"""

from typing import Any, NamedTuple

from hotloop.kernels import updates
from hotloop.kernels.jit import inner
from hotloop.kernels.network import BIAS, PADDED, WEIGHT, WIDTH
from hotloop.kernels.simd import cast, fma, pointer

RULES = (updates.MOMENTUM, updates.NESTEROV, updates.RMSPROP, updates.ADAGRAD, updates.ADADELTA)


class Lazy(NamedTuple):
    """What a lazy first layer remembers; all empty for one that is not."""

    done: Any  # (n_features,) int64, the steps each row of the first weight has made
    met: Any  # (n_features,) int32, the rows that the present batch meets, in the order it meets them
    number: Any  # (1,) int64, how many they are


@inner
def meet(lazy, samples, position, rows):
    """List the rows of the first weight that this batch meets; marks them as having made -1 - their steps."""
    index, start, order = samples.inputs.index, samples.inputs.start, samples.order
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
def _idle(rule, params, at, width, steps, lr):
    """Do `steps` steps of zero gradient on params[at : at + width]."""
    if rule.code == updates.ADAGRAD or steps == 0:
        return
    first, second, param = pointer(rule.first, at), pointer(rule.second, at), pointer(params, at)
    if rule.code == updates.RMSPROP or rule.code == updates.ADADELTA:
        fade = _power(rule.beta2, steps)
        for j in range(width):
            second[j] *= cast(fade, second[j])
            if rule.code == updates.ADADELTA:
                first[j] *= cast(fade, first[j])
    if rule.beta1 > 0.0:
        fade = _power(rule.beta1, steps)
        way = rule.beta1 * (1.0 - fade) / (1.0 - rule.beta1)  # beta1 + beta1^2 + ... + beta1^steps
        if rule.code == updates.NESTEROV:
            way *= rule.beta1
        for j in range(width):
            param[j] = fma(cast(-lr * way, param[j]), first[j], param[j])
            first[j] *= cast(fade, first[j])


@inner
def catch_up(net, rule, lazy, lr, step, thread, threads):
    """Bring the rows that the batch meets up to `step`, this thread's share of them."""
    plan, params = net
    number, width = lazy.number[0], plan[1, PADDED]
    for i in range(number * thread // threads, number * (thread + 1) // threads):
        row = lazy.met[i]
        _idle(rule, params, plan[1, WEIGHT] + row * width, width, step - (-1 - lazy.done[row]), lr)
        lazy.done[row] = step


@inner
def move(net, rule, lazy, lr, step, thread, threads):
    """One step of the rows that the batch met, and of everything above the first layer's weights."""
    plan, params = net
    number, width = lazy.number[0], plan[1, PADDED]
    for i in range(number * thread // threads, number * (thread + 1) // threads):
        row = lazy.met[i]
        at = plan[1, WEIGHT] + row * width
        updates.apply(rule, params, at, at + width, lr)
        lazy.done[row] = step + 1
    above = plan[1, BIAS]
    size = params.shape[0] - above
    updates.apply(rule, params, above + size * thread // threads, above + size * (thread + 1) // threads, lr)


@inner
def settle(net, rule, lazy, lr, step, thread, threads):
    """Bring all rows up to `step`."""
    plan, params = net
    features, width = plan[0, WIDTH], plan[1, PADDED]
    for row in range(features * thread // threads, features * (thread + 1) // threads):
        _idle(rule, params, plan[1, WEIGHT] + row * width, width, step - lazy.done[row], lr)
        lazy.done[row] = step
