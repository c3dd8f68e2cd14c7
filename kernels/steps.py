"""The step of a rule over a range of the parameters: each rule a part of its own, called by its address.

Only the rule that a training asks for is compiled; see `jit.apart`.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import carray, typeof, types
from numba.np.numpy_support import from_dtype
from numpy.typing import DTypeLike

from hotloop.kernels import network, updates
from hotloop.kernels.dense import add_rows
from hotloop.kernels.jit import address, apart, apart_uncounted, call, inner, inner_with_arrays
from hotloop.kernels.loading import LISTED, kind
from hotloop.kernels.plan import BIAS, HAS_BIAS, PADDED, SLOPE, STRIDE, WEIGHT, WIDTH, Network
from hotloop.kernels.shares import bounds
from hotloop.kernels.simd import LANES, cast, fma, make_buffer, pointer

NEAR = 1 << 14  # parameters whose gradients stay in a cache anyway
FUSED = 4096  # parameters that are moved as soon as their gradient is summed
CHUNK = 2048  # parameters whose gradients are still in the first-level cache when they are set to zero

fused_buffer = make_buffer(FUSED)


class Memory(NamedTuple):
    """Pointers to the first of the elements that a step moves."""

    param: Any
    grad: Any
    first: Any
    second: Any


class Numbers(NamedTuple):
    """The numbers of one step; see updates.Rule."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    step: float  # counted from 1
    power1: float  # beta1 ** step
    power2: float  # beta2 ** step


@inner_with_arrays
def _vectors(memory, n):
    """The memory as arrays (n,)."""
    p, g, first, second = memory
    return carray(p, (n,)), carray(g, (n,)), carray(first, (n,)), carray(second, (n,))


@apart
def _sgd(memory, n, c):
    p, g, _, _ = _vectors(memory, n)
    updates.sgd(p, g, c.lr)


@apart
def _momentum(memory, n, c):
    p, g, first, _ = _vectors(memory, n)
    updates.momentum(p, g, first, c.lr, c.beta1)


@apart
def _nesterov(memory, n, c):
    p, g, first, _ = _vectors(memory, n)
    updates.nesterov(p, g, first, c.lr, c.beta1)


@apart
def _adam(memory, n, c):
    p, g, first, second = _vectors(memory, n)
    updates.adam(p, g, first, second, c.lr, c.beta1, c.beta2, c.eps, c.weight_decay, c.power1, c.power2)


@apart
def _rmsprop(memory, n, c):
    p, g, first, second = _vectors(memory, n)
    updates.rmsprop(p, g, first, second, c.lr, c.beta1, c.beta2, c.eps)


@apart
def _adagrad(memory, n, c):
    p, g, first, _ = _vectors(memory, n)
    updates.adagrad(p, g, first, c.lr, c.eps)


@apart
def _adadelta(memory, n, c):
    p, g, first, second = _vectors(memory, n)
    updates.adadelta(p, g, first, second, c.lr, c.beta2, c.eps)


@apart
def _lion(memory, n, c):
    p, g, first, _ = _vectors(memory, n)
    updates.lion(p, g, first, c.lr, c.beta1, c.beta2, c.weight_decay)


@apart
def _averaged(memory, n, c):
    p, g, first, _ = _vectors(memory, n)
    updates.averaged(p, g, first, c.lr, 1.0 / max(1.0, c.step - c.eps))


_PARTS = {
    updates.SGD: _sgd,
    updates.MOMENTUM: _momentum,
    updates.NESTEROV: _nesterov,
    updates.ADAM: _adam,
    updates.RMSPROP: _rmsprop,
    updates.ADAGRAD: _adagrad,
    updates.ADADELTA: _adadelta,
    updates.LION: _lion,
    updates.AVERAGED: _averaged,
}


@apart
def _restrain(x, count, delta, k, bias, cost, scale, variant):
    zero = cast(0.0, scale)
    if scale == zero:
        return
    square, slopes = cast(bias, scale), zero
    for i in range(count):
        square = fma(x[i], x[i], square)
    for j in range(k):
        slope = delta[j] / scale  # delta holds scale dloss/dz; the square of a large rate would be infinite
        slopes = fma(slope, slope, slopes)
    share = updates.passive_aggressive_share(cost, square * slopes, -scale, variant)
    for j in range(k):
        delta[j] *= share


@cache
def _address(code: int, dtype: DTypeLike) -> int:
    """Where the step of a rule is in this process; compiled, or loaded, when first asked for."""
    real, size = from_dtype(np.dtype(dtype)), types.int64
    vector = types.CPointer(real)
    if code == updates.PASSIVE_AGGRESSIVE:
        return address(_restrain, vector, size, vector, size, size, real, real, types.float64)
    memory = types.NamedUniTuple(vector, len(Memory._fields), Memory)
    numbers = types.NamedUniTuple(types.float64, len(Numbers._fields), Numbers)
    return address(_PARTS[code], memory, size, numbers)


@cache
def _move_address(dtype: DTypeLike) -> int:
    """Where `_move` is, for parameters of this dtype."""
    vector, number, whole = np.zeros(0, dtype), np.zeros(0), types.int64
    rule = typeof(updates.Rule(0, number, 0.0, 0.0, 0.0, 0.0, vector, vector, vector, number))
    net = typeof(Network(np.zeros((0, 0), np.int64), vector))
    share = types.UniTuple(whole, 3)
    return address(_move, rule, net, typeof(vector), whole, whole, whole, share, types.float64, types.boolean)


def ready(rule: updates.Rule) -> updates.Rule:
    """The rule with the addresses of its code: the step by a gradient buffer, or what `restrain` calls."""
    dtype = rule.grad.dtype
    if len(rule.grad) > 0:
        known = rule.code in _PARTS
        return rule._replace(part=_address(rule.code, dtype), move=_move_address(dtype)) if known else rule
    return rule._replace(part=_address(rule.code, dtype)) if rule.code == updates.PASSIVE_AGGRESSIVE else rule


@inner
def restrain(rule, plan, work, x, count, r, cost, scale):
    """Make the step the smallest that ends the loss of row r, whose inputs x are, and no larger than the rate allows.

    For PASSIVE_AGGRESSIVE; see updates.passive_aggressive_share.
    """
    delta, bias = pointer(work, plan[1, SLOPE] + r * plan[1, STRIDE]), plan[1, HAS_BIAS]
    call(rule.part, (x, count, delta, plan[1, WIDTH], bias, cost, scale, rule.beta2))


@inner
def apply_block(rule, params, at, n, grad, lr):
    """Move params[at : at + n] by the gradient on a pointer; the clock is left to `tick`."""
    clock = rule.clock
    step, power1, power2 = clock[0] + 1.0, clock[1] * rule.beta1, clock[2] * rule.beta2
    numbers = Numbers(lr, rule.beta1, rule.beta2, rule.eps, rule.weight_decay, step, power1, power2)
    call(rule.part, (Memory(pointer(params, at), grad, pointer(rule.first, at), pointer(rule.second, at)), n, numbers))


@inner
def clear(grad, n):
    """Set a gradient on a pointer to zero."""
    for i in range(n):
        grad[i] = cast(0.0, grad[i])


@inner
def apply(rule, params, begin, end, lr):
    """Move params[begin:end] by the gradient buffer, block by block, and set it back to zero."""
    if rule.part == 0:
        return
    for at in range(begin, end, CHUNK):
        n, grad = min(CHUNK, end - at), pointer(rule.grad, at)
        apply_block(rule, params, at, n, grad, lr)
        clear(grad, n)


@inner
def fuses(net, inputs):
    """Whether `move` can be fused for these inputs and layers of this width, and so many parameters gain by it."""
    plan, params = net
    widest = 0
    for layer in range(1, plan.shape[0]):
        widest = max(widest, plan[layer, PADDED])
    return inputs != LISTED and widest * LANES <= FUSED and params.shape[0] > NEAR


@inner
def _accumulate_and_apply(rule, net, work, inputs, update, rows, share, lr):
    """network.accumulate and _apply_share, a few rows of weights at a time: their gradient never leaves the cache.

    784-128-10, batch 32, momentum: 2.0 us a sample instead of 2.3 by way of a buffer for all; Adam, bound by divisions
    and roots, 2.5 instead of 2.7 on two threads.
    """
    plan, params = net
    grad = fused_buffer(pointer(params, 0))
    for layer in range(1, plan.shape[0]):
        padded, weight = plan[layer, PADDED], plan[layer, WEIGHT]
        first, last = bounds(plan[layer - 1, WIDTH], share, LANES)
        some = FUSED // padded // LANES * LANES
        for k in range(first, last, some):
            stop = min(last, k + some)
            clear(grad, (stop - k) * padded)
            network.accumulate_rows(plan, layer, grad, work, inputs, update, rows, share, k, stop)
            apply_block(rule, params, weight + k * padded, (stop - k) * padded, grad, lr)
        if share[1] == share[2] and plan[layer, HAS_BIAS] != 0:
            delta = pointer(work, plan[layer, SLOPE])
            clear(grad, padded)
            add_rows(delta, plan[layer, STRIDE], rows, padded, grad)
            apply_block(rule, params, plan[layer, BIAS], padded, grad, lr)


@inner
def _apply_share(rule, net, lr, share):
    """`apply` to one thread's share of every layer: the weights whose gradients it has summed, see network.accumulate.

    What another core has written comes slowly: with shares of equal size 784-128-10 with batch 32 and Adam took 3.1 us
    a sample on two threads, with these 2.7. Gradients that were bounded in other shares need a barrier before.
    """
    plan, params = net
    for layer in range(1, plan.shape[0]):
        units, padded = plan[layer - 1, WIDTH], plan[layer, PADDED]
        first, last = bounds(units, share, LANES)
        last += 1 if share[1] == share[2] else 0  # the bias, which follows the weights
        weight = plan[layer, WEIGHT]
        apply(rule, params, weight + first * padded, weight + last * padded, lr)


@apart_uncounted
def _move(rule, net, work, inputs, update, rows, share, lr, fused):
    if fused:
        _accumulate_and_apply(rule, net, work, inputs, update, rows, share, lr)
    else:
        _apply_share(rule, net, lr, share)


@inner
def move(rule, net, work, samples, rows, share, lr, fused):
    """Move one thread's share of every layer by the gradient buffer, or, fused, by the gradient of these rows.

    Nothing for a rule that moves nothing by the gradient.
    """
    if rule.move != 0:
        call(rule.move, (rule, net, work, kind(samples, 0), samples.parts.update, rows, share, lr, fused))


@inner
def tick(rule):
    """A step is done."""
    rule.clock[0] += 1.0
    rule.clock[1] *= rule.beta1
    rule.clock[2] *= rule.beta2
