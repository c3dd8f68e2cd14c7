"""Parameter updates over flat buffers against NumPy, and against a stream that reads and writes as many numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop.kernels import updates

Array = NDArray[Any]
Compare = Callable[..., None]

LR, MU = 1e-6, 0.9  # a small rate: the parameters stay finite however often the step is repeated
sizes = pytest.mark.parametrize("n", [2_410, 101_770, 4_000_000], ids="{:,}".format)


def buffers(n: int, count: int) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) for _ in range(count)]


@sizes
def test_sgd(compare: Compare, n: int) -> None:
    def ours(params: Array, grad: Array) -> None:
        updates.sgd(params, grad, LR)

    def numpy(params: Array, grad: Array) -> None:
        params -= np.float32(LR) * grad

    compare(f"sgd {n:,}", ours, numpy, *buffers(n, 2), n=n)


@sizes
def test_momentum(compare: Compare, n: int) -> None:
    def ours(params: Array, grad: Array, velocity: Array) -> None:
        updates.momentum(params, grad, velocity, LR, MU)

    def numpy(params: Array, grad: Array, velocity: Array) -> None:
        velocity *= np.float32(MU)
        velocity += grad
        params -= np.float32(LR) * velocity

    compare(f"momentum {n:,}", ours, numpy, *buffers(n, 3), n=2 * n)


@sizes
def test_nesterov(compare: Compare, n: int) -> None:
    def ours(params: Array, grad: Array, velocity: Array) -> None:
        updates.nesterov(params, grad, velocity, LR, MU)

    def numpy(params: Array, grad: Array, velocity: Array) -> None:
        velocity *= np.float32(MU)
        velocity += grad
        params -= np.float32(LR) * (grad + np.float32(MU) * velocity)

    compare(f"nesterov {n:,}", ours, numpy, *buffers(n, 3), n=2 * n)
