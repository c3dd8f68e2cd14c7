"""Parameter updates on the GPU, over flat buffers on the device, in place; the formulas of `hotloop.kernels.updates`.

The same names and arguments as on the CPU, and a stream. `move` is the step of one element by the code of its rule, for
kernels to call; `constants` makes the numbers that it reads.
"""

from math import sqrt

import numpy as np

from hotloop.kernels import updates as cpu
from hotloop.kernels.cuda.shim import cuda, device, kernel, launch, shared

THREADS = 64

sgd_element, momentum_element = shared(cpu.sgd_element), shared(cpu.momentum_element)
nesterov_element, adam_element = shared(cpu.nesterov_element), shared(cpu.adam_element)
rmsprop_element, adagrad_element = shared(cpu.rmsprop_element), shared(cpu.adagrad_element)
adadelta_element, lion_element = shared(cpu.adadelta_element), shared(cpu.lion_element)
averaged_element = shared(cpu.averaged_element)

# Places of the numbers that `move` reads. ROOT is Adam's 1 / sqrt(1 - beta2 ** step), or the share of AVERAGED.
LR, KEEP, BETA1, REST1, BETA2, REST2, EPS, ROOT = range(8)


def constants(code, lr, beta1, beta2, eps, weight_decay, step):
    """(8,) float64: what `move` reads in step number `step`, counted from 1, of a rule with these constants."""
    rate, root = lr, 1.0
    if code == cpu.ADAM:
        rate, root = lr / (1.0 - beta1**step), 1.0 / sqrt(1.0 - beta2**step)
    elif code == cpu.AVERAGED:
        root = 1.0 / max(1.0, step - eps)
    return np.array([rate, 1.0 - lr * weight_decay, beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps, root])


@device
def move(code, c, param, grad, first, second):
    """The parameter after a step of the rule `code` with the numbers c, and what the rule remembers."""
    if code == cpu.SGD:
        return sgd_element(param, grad, c[LR]), first, second
    if code == cpu.MOMENTUM:
        param, first = momentum_element(param, grad, first, c[LR], c[BETA1])
        return param, first, second
    if code == cpu.NESTEROV:
        param, first = nesterov_element(param, grad, first, c[LR], c[BETA1])
        return param, first, second
    if code == cpu.ADAM:
        return adam_element(
            param, grad, first, second, c[LR], c[KEEP], c[BETA1], c[REST1], c[BETA2], c[REST2], c[EPS], c[ROOT]
        )
    if code == cpu.RMSPROP:
        return rmsprop_element(param, grad, first, second, c[LR], c[BETA1], c[BETA2], c[REST2], c[EPS])
    if code == cpu.ADAGRAD:
        param, first = adagrad_element(param, grad, first, c[LR], c[EPS])
        return param, first, second
    if code == cpu.ADADELTA:
        return adadelta_element(param, grad, first, second, c[LR], c[BETA2], c[REST2], c[EPS])
    if code == cpu.LION:
        param, first = lion_element(param, grad, first, c[LR], c[KEEP], c[BETA1], c[REST1], c[BETA2], c[REST2])
        return param, first, second
    param, first = averaged_element(param, grad, first, c[LR], c[ROOT])
    return param, first, second


@kernel
def move_kernel(code, c, params, grad, first, second):
    """A step of every parameter, one thread for each; first and second (0,) where the rule has none."""
    i = cuda.grid(1)
    if i < params.shape[0]:
        zero = params.dtype.type(0)
        a = first[i] if first.shape[0] > 0 else zero
        b = second[i] if second.shape[0] > 0 else zero
        params[i], a, b = move(code, c, params[i], grad[i], a, b)
        if first.shape[0] > 0:
            first[i] = a
        if second.shape[0] > 0:
            second[i] = b


def _step(code, numbers, params, grad, first, second, stream):
    n = params.shape[0]
    if n > 0:
        c = tuple(params.dtype.type(number) for number in numbers)
        launch(move_kernel, -(-n // THREADS), THREADS, stream)(code, c, params, grad, first, second)


def sgd(params, grad, lr, stream=0):
    """params -= lr grad."""
    empty = params[:0]
    _step(cpu.SGD, constants(cpu.SGD, lr, 0.0, 0.0, 0.0, 0.0, 1), params, grad, empty, empty, stream)


def momentum(params, grad, velocity, lr, momentum, stream=0):
    """velocity = momentum velocity + grad; params -= lr velocity."""
    numbers = constants(cpu.MOMENTUM, lr, momentum, 0.0, 0.0, 0.0, 1)
    _step(cpu.MOMENTUM, numbers, params, grad, velocity, params[:0], stream)


def nesterov(params, grad, velocity, lr, momentum, stream=0):
    """velocity = momentum velocity + grad; params -= lr (grad + momentum velocity)."""
    numbers = constants(cpu.NESTEROV, lr, momentum, 0.0, 0.0, 0.0, 1)
    _step(cpu.NESTEROV, numbers, params, grad, velocity, params[:0], stream)


def adam(params, grad, first, second, lr, beta1, beta2, eps, weight_decay, power1, power2, stream=0):
    """Adam, and AdamW with a weight_decay; power: beta ** steps, this one counted."""
    numbers = constants(cpu.SGD, lr, beta1, beta2, eps, weight_decay, 1)
    numbers[LR], numbers[ROOT] = lr / (1.0 - power1), 1.0 / sqrt(1.0 - power2)
    _step(cpu.ADAM, numbers, params, grad, first, second, stream)


def rmsprop(params, grad, first, second, lr, momentum, rho, eps, stream=0):
    """second = rho second + (1 - rho) grad^2; first = momentum first + grad / (sqrt(second) + eps);

    params -= lr first.
    """
    numbers = constants(cpu.RMSPROP, lr, momentum, rho, eps, 0.0, 1)
    _step(cpu.RMSPROP, numbers, params, grad, first, second, stream)


def adagrad(params, grad, first, lr, eps, stream=0):
    """first += grad^2; params -= lr grad / (sqrt(first) + eps)."""
    _step(cpu.ADAGRAD, constants(cpu.ADAGRAD, lr, 0.0, 0.0, eps, 0.0, 1), params, grad, first, params[:0], stream)


def adadelta(params, grad, first, second, lr, rho, eps, stream=0):
    """second = rho second + (1 - rho) grad^2; move = grad sqrt(first + eps) / sqrt(second + eps); params -= lr move."""
    _step(cpu.ADADELTA, constants(cpu.ADADELTA, lr, 0.0, rho, eps, 0.0, 1), params, grad, first, second, stream)


def lion(params, grad, first, lr, beta1, beta2, weight_decay, stream=0):
    """params = (1 - lr weight_decay) params - lr sign(beta1 first + (1 - beta1) grad); first: the mean of gradients."""
    numbers = constants(cpu.LION, lr, beta1, beta2, 0.0, weight_decay, 1)
    _step(cpu.LION, numbers, params, grad, first, params[:0], stream)


def averaged(params, grad, mean, lr, share, stream=0):
    """params -= lr grad; mean += share (params - mean)."""
    numbers = constants(cpu.SGD, lr, 0.0, 0.0, 0.0, 0.0, 1)
    numbers[ROOT] = share
    _step(cpu.AVERAGED, numbers, params, grad, mean, params[:0], stream)
