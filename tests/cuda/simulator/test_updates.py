"""Parameter updates on the simulated GPU: against their twins, and the bits of the CPU's kernels."""

import numpy as np
import pytest
import reference_updates

from hotloop.kernels import updates as cpu
from hotloop.kernels.cuda import updates

SIZES = (1, 63, 65)
LR, MOMENTUM = 0.05, 0.9
# name: number of buffers, the arguments behind them
RULES = {
    "sgd": (0, (LR,)),
    "momentum": (1, (LR, MOMENTUM)),
    "nesterov": (1, (LR, MOMENTUM)),
    "adam": (2, (LR, 0.9, 0.99, 1e-8, 0.01, 0.9**3, 0.99**3)),
    "rmsprop": (2, (LR, MOMENTUM, 0.99, 1e-8)),
    "adagrad": (1, (LR, 1e-8)),
    "adadelta": (2, (LR, 0.9, 1e-6)),
    "lion": (1, (LR, 0.9, 0.99, 0.01)),
    "averaged": (1, (LR, 0.25)),
}

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


def buffers(n, count, dtype):
    rng = np.random.default_rng(n)
    return [rng.normal(size=n).astype(dtype) for _ in range(2)] + [rng.random(n).astype(dtype) for _ in range(count)]


@both
@pytest.mark.parametrize("name", list(RULES))
def test_twins(name, dtype):
    count, arguments = RULES[name]
    for n in SIZES:
        arrays = buffers(n, count, dtype)
        theirs = (3, *arguments[:5]) if name == "adam" else arguments  # the twin of Adam counts steps, not powers
        exact = getattr(reference_updates, name)(*arrays, *theirs)
        getattr(updates, name)(*arrays, *arguments)
        for result, value in zip([arrays[0], *arrays[2:]], exact if count else [exact], strict=True):
            np.testing.assert_allclose(result, value, rtol=4 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


@both
@pytest.mark.parametrize("name", list(RULES))
def test_bits_of_the_cpu(name, dtype):
    count, arguments = RULES[name]
    for n in SIZES:
        arrays, expected = buffers(n, count, dtype), buffers(n, count, dtype)
        getattr(updates, name)(*arrays, *arguments)
        getattr(cpu, name)(*expected, *arguments)
        for array, value in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(array, value)
        getattr(updates, name)(*(array[:0] for array in arrays), *arguments)  # nothing is nothing


def test_constants_of_a_step():
    rate, keep, beta1, rest1, beta2, rest2, eps, root = updates.constants(cpu.ADAM, 0.1, 0.9, 0.99, 1e-8, 0.5, 2)
    assert rate == 0.1 / (1 - 0.9**2) and root == 1 / np.sqrt(1 - 0.99**2)
    assert (keep, beta1, rest1, beta2, rest2, eps) == (0.95, 0.9, 1 - 0.9, 0.99, 1 - 0.99, 1e-8)
    assert updates.constants(cpu.AVERAGED, 0.1, 0.0, 0.0, 3.0, 0.0, 7)[updates.ROOT] == 0.25
    assert updates.constants(cpu.AVERAGED, 0.1, 0.0, 0.0, 3.0, 0.0, 2)[updates.ROOT] == 1.0
