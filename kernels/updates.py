"""Parameter updates over flat buffers, in place: what a step does with a gradient.

params, grad, first and second are (n,) of one dtype; the other arguments are scalars. Definitions are PyTorch's, so
that trajectories can be compared. Each rule is a formula of one element, shared with the GPU, and a loop over it.
Zero gradients move no zero parameter, so the padding of a network stays zero.
"""

from math import sqrt  # not np.sqrt, which numba-cuda lacks
from typing import Any, NamedTuple

from hotloop.kernels.jit import inner, jit
from hotloop.kernels.simd import cast, fma

(
    SGD,
    MOMENTUM,
    NESTEROV,
    ADAM,
    RMSPROP,
    ADAGRAD,
    ADADELTA,
    LION,
    AVERAGED,
    PASSIVE_AGGRESSIVE,
    GRADIENT_ONLY,
) = range(11)

# How many buffers of the size of the parameters each rule remembers.
BUFFERS = {
    SGD: 0,
    MOMENTUM: 1,
    NESTEROV: 1,
    ADAM: 2,
    RMSPROP: 2,
    ADAGRAD: 1,
    ADADELTA: 2,
    LION: 1,
    AVERAGED: 1,
    PASSIVE_AGGRESSIVE: 0,
    GRADIENT_ONLY: 0,
}


# What fades step by step is set to zero below this, where float32 becomes subnormal: with momentum, batch 1, a step of
# 784-128-10 took 770 us after a thousand rows, and takes 50 so.
FADED = 2.0**-126


class Rule(NamedTuple):
    """How a gradient moves the parameters: the code, its constants and its buffers."""

    code: int  # GRADIENT_ONLY adds each batch's gradient to grad and moves nothing
    rates: Any  # (m,) float64: the learning rate of each step of an epoch, the last one from step m - 1 on
    beta1: float  # momentum, or how long first remembers
    beta2: float  # how long second remembers; PASSIVE_AGGRESSIVE: 1 or 2, the variant
    eps: float  # AVERAGED: steps before the mean begins
    weight_decay: float  # decoupled: the share of lr that every parameter loses in a step
    grad: Any  # (n_params,), zero between steps; (0,) where plain SGD moves the parameters directly
    first: Any  # (n_params,) velocity, mean of gradients or of parameters; (0,) where the rule has none
    second: Any  # (n_params,) mean of squares; (0,) where the rule has none
    clock: Any  # (3,) float64: steps done, beta1 ** steps, beta2 ** steps
    part: int = 0  # where its code is, see `steps.ready`; 0: it moves no parameters by the gradient
    move: int = 0  # where the code is that moves a thread's share of all layers by it; 0: no gradient buffer


@inner
def sgd_element(param, grad, lr):
    """The parameter after the step, as in every formula here, followed by what the rule remembers."""
    return fma(-lr, grad, param)


@inner
def momentum_element(param, grad, velocity, lr, momentum):
    velocity = fma(momentum, velocity, grad)
    velocity = cast(0.0, grad) if abs(velocity) < cast(FADED, grad) else velocity
    return fma(-lr, velocity, param), velocity


@inner
def nesterov_element(param, grad, velocity, lr, momentum):
    velocity = fma(momentum, velocity, grad)
    velocity = cast(0.0, grad) if abs(velocity) < cast(FADED, grad) else velocity
    return fma(-lr, fma(momentum, velocity, grad), param), velocity


@inner
def adam_element(param, grad, first, second, lr, keep, beta1, rest1, beta2, rest2, eps, root):
    """keep: 1 - the decay; rest: 1 - beta; lr and root hold the corrections of the bias."""
    first = fma(beta1, first, rest1 * grad)
    second = fma(beta2, second, rest2 * grad * grad)
    first = cast(0.0, grad) if abs(first) < cast(FADED, grad) else first
    second = cast(0.0, grad) if abs(second) < cast(FADED, grad) else second
    return fma(-lr, first / fma(sqrt(second), root, eps), keep * param), first, second


@inner
def rmsprop_element(param, grad, first, second, lr, momentum, rho, rest, eps):
    second = fma(rho, second, rest * grad * grad)
    first = fma(momentum, first, grad / (sqrt(second) + eps))
    first = cast(0.0, grad) if abs(first) < cast(FADED, grad) else first
    second = cast(0.0, grad) if abs(second) < cast(FADED, grad) else second
    return fma(-lr, first, param), first, second


@inner
def adagrad_element(param, grad, first, lr, eps):
    first = fma(grad, grad, first)
    return fma(-lr, grad / (sqrt(first) + eps), param), first


@inner
def adadelta_element(param, grad, first, second, lr, rho, rest, eps):
    second = fma(rho, second, rest * grad * grad)
    move = grad * (sqrt(first + eps) / sqrt(second + eps))
    first = fma(rho, first, rest * move * move)
    first = cast(0.0, grad) if abs(first) < cast(FADED, grad) else first
    second = cast(0.0, grad) if abs(second) < cast(FADED, grad) else second
    return fma(-lr, move, param), first, second


@inner
def lion_element(param, grad, first, lr, keep, beta1, rest1, beta2, rest2):
    zero, direction = cast(0.0, grad), fma(beta1, first, rest1 * grad)
    move = lr if direction > zero else (-lr if direction < zero else direction)
    first = fma(beta2, first, rest2 * grad)
    first = cast(0.0, grad) if abs(first) < cast(FADED, grad) else first
    return keep * param - move, first


@inner
def averaged_element(param, grad, mean, lr, share):
    param = fma(-lr, grad, param)
    return param, fma(share, param - mean, mean)


@inner
def passive_aggressive_share(cost, square, lr, variant):
    """The share of the step by lr that the smallest one has which ends the loss `cost` of a sample, at most 1.

    The step of one layer along -dloss/dparams is cost / square, square = |dloss/dparams|^2: at most lr (variant 1), or
    with 1 / (2 lr) added to the square (variant 2). Crammer, Dekel, Keshet, Shalev-Shwartz and Singer 2006, equation 9.
    """
    zero = cast(0.0, square)
    if variant == cast(2.0, variant):
        step = cost / (square + cast(0.5, lr) / lr)
    else:
        step = min(lr, cost / square) if square > zero else zero
    return step / lr


@jit
def sgd(params, grad, lr):
    """params -= lr grad."""
    for i in range(params.shape[0]):
        params[i] = sgd_element(params[i], grad[i], cast(lr, params[i]))


@jit
def momentum(params, grad, velocity, lr, momentum):
    """velocity = momentum velocity + grad; params -= lr velocity (Polyak 1964)."""
    for i in range(params.shape[0]):
        p = params[i]
        params[i], velocity[i] = momentum_element(p, grad[i], velocity[i], cast(lr, p), cast(momentum, p))


@jit
def nesterov(params, grad, velocity, lr, momentum):
    """velocity = momentum velocity + grad; params -= lr (grad + momentum velocity) (Sutskever et al. 2013, eq. 3-4)."""
    for i in range(params.shape[0]):
        p = params[i]
        params[i], velocity[i] = nesterov_element(p, grad[i], velocity[i], cast(lr, p), cast(momentum, p))


@jit
def adam(params, grad, first, second, lr, beta1, beta2, eps, weight_decay, power1, power2):
    """Adam (Kingma and Ba 2015, algorithm 1), and AdamW with a weight_decay (Loshchilov and Hutter 2019, algorithm 2).

    first = beta1 first + (1 - beta1) grad; second = beta2 second + (1 - beta2) grad^2; params = (1 - lr weight_decay)
    params - lr first / (1 - power1) / (sqrt(second / (1 - power2)) + eps); power: beta ** steps, this one counted.
    """
    rate, root = lr / (1.0 - power1), 1.0 / sqrt(1.0 - power2)
    for i in range(params.shape[0]):
        p = params[i]
        params[i], first[i], second[i] = adam_element(
            p,
            grad[i],
            first[i],
            second[i],
            cast(rate, p),
            cast(1.0 - lr * weight_decay, p),
            cast(beta1, p),
            cast(1.0 - beta1, p),
            cast(beta2, p),
            cast(1.0 - beta2, p),
            cast(eps, p),
            cast(root, p),
        )


@jit
def rmsprop(params, grad, first, second, lr, momentum, rho, eps):
    """second = rho second + (1 - rho) grad^2; first = momentum first + grad / (sqrt(second) + eps); params -= lr first.

    Tieleman and Hinton 2012, lecture 6e.
    """
    for i in range(params.shape[0]):
        p = params[i]
        params[i], first[i], second[i] = rmsprop_element(
            p,
            grad[i],
            first[i],
            second[i],
            cast(lr, p),
            cast(momentum, p),
            cast(rho, p),
            cast(1.0 - rho, p),
            cast(eps, p),
        )


@jit
def adagrad(params, grad, first, lr, eps):
    """first += grad^2; params -= lr grad / (sqrt(first) + eps) (Duchi, Hazan and Singer 2011)."""
    for i in range(params.shape[0]):
        p = params[i]
        params[i], first[i] = adagrad_element(p, grad[i], first[i], cast(lr, p), cast(eps, p))


@jit
def adadelta(params, grad, first, second, lr, rho, eps):
    """second = rho second + (1 - rho) grad^2; move = grad sqrt(first + eps) / sqrt(second + eps); params -= lr move.

    first = rho first + (1 - rho) move^2 (Zeiler 2012, algorithm 1).
    """
    for i in range(params.shape[0]):
        p = params[i]
        params[i], first[i], second[i] = adadelta_element(
            p, grad[i], first[i], second[i], cast(lr, p), cast(rho, p), cast(1.0 - rho, p), cast(eps, p)
        )


@jit
def lion(params, grad, first, lr, beta1, beta2, weight_decay):
    """params = (1 - lr weight_decay) params - lr sign(beta1 first + (1 - beta1) grad); sign(0) = 0.

    first = beta2 first + (1 - beta2) grad (Chen et al. 2023, algorithm 2).
    """
    for i in range(params.shape[0]):
        p = params[i]
        params[i], first[i] = lion_element(
            p,
            grad[i],
            first[i],
            cast(lr, p),
            cast(1.0 - lr * weight_decay, p),
            cast(beta1, p),
            cast(1.0 - beta1, p),
            cast(beta2, p),
            cast(1.0 - beta2, p),
        )


@jit
def averaged(params, grad, mean, lr, share):
    """params -= lr grad; mean += share (params - mean): with share 1/t the mean of t steps (Polyak, Juditsky 1992)."""
    for i in range(params.shape[0]):
        p = params[i]
        params[i], mean[i] = averaged_element(p, grad[i], mean[i], cast(lr, p), cast(share, p))
