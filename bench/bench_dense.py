"""Dense kernels against BLAS and an epilogue, on one thread; and against the machine's peak of multiply-adds."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop.kernels import dense
from hotloop.kernels.activations import RELU

Array = NDArray[Any]
Compare = Callable[..., None]
Work = Callable[..., None]

SHAPES = [(1, 784, 128), (32, 64, 32), (32, 784, 128), (128, 784, 512), (1024, 1024, 1024)]
ROW_SHAPES = [(64, 32), (784, 128), (1024, 1024)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids="x".join("%d" for _ in range(3)).__mod__)
row_shapes = pytest.mark.parametrize("shape", ROW_SHAPES, ids="%dx%d".__mod__)


def arrays(*shape: int) -> tuple[Array, Array, Array, Array, Array]:
    """x, weight, bias, a small delta (repeated updates stay finite), and an empty output of the layer."""
    rng = np.random.default_rng(0)
    *rows, fan_in, fan_out = shape
    x, weight = rng.normal(size=(*rows, fan_in)), rng.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in)
    bias, delta = rng.normal(size=fan_out), 1e-6 * rng.normal(size=(*rows, fan_out))
    return tuple(a.astype(np.float32) for a in (x, weight, bias, delta, np.zeros((*rows, fan_out))))  # type: ignore


def run(compare: Compare, work: str, shape: tuple[int, ...], ours: Work, numpy: Work, *arrays: Array) -> None:
    compare(f"{work} {'x'.join(map(str, shape))} float32", ours, numpy, *arrays, flops=2 * prod(shape))


def numpy_forward(x: Array, weight: Array, bias: Array, out: Array) -> None:
    np.matmul(x, weight, out=out)
    np.add(out, bias, out=out)
    np.maximum(out, 0, out=out)


def numpy_input_gradient(delta: Array, weight: Array, out: Array) -> None:
    np.matmul(delta, weight.T, out=out)


def numpy_gradient(x: Array, delta: Array, dweight: Array, dbias: Array) -> None:
    np.matmul(x.T, delta, out=dweight)
    np.sum(delta, axis=0, out=dbias)


def numpy_update(x: Array, delta: Array, weight: Array, bias: Array) -> None:
    weight += x.T @ delta
    bias += delta.sum(axis=0)


def numpy_update_row(x: Array, delta: Array, weight: Array, bias: Array) -> None:
    weight += np.outer(x, delta)
    bias += delta


def numpy_gradient_row(x: Array, delta: Array, dweight: Array, dbias: Array) -> None:
    np.outer(x, delta, out=dweight)
    dbias[:] = delta


@shapes
def test_forward(compare: Compare, shape: tuple[int, ...]) -> None:
    x, weight, bias, _, out = arrays(*shape)

    def ours(x: Array, weight: Array, bias: Array, out: Array) -> None:
        dense.forward(x, weight, bias, RELU, out)

    run(compare, "forward, relu", shape, ours, numpy_forward, x, weight, bias, out)


@row_shapes
def test_forward_row(compare: Compare, shape: tuple[int, ...]) -> None:
    x, weight, bias, _, out = arrays(*shape)

    def ours(x: Array, weight: Array, bias: Array, out: Array) -> None:
        dense.forward_row(x, weight, bias, RELU, out)

    run(compare, "forward_row, relu", shape, ours, numpy_forward, x, weight, bias, out)


@shapes
def test_input_gradient(compare: Compare, shape: tuple[int, ...]) -> None:
    x, weight, _, delta, _ = arrays(*shape)
    out = np.zeros_like(x)
    run(compare, "input_gradient", shape, dense.input_gradient, numpy_input_gradient, delta, weight, out)


@row_shapes
def test_input_gradient_row(compare: Compare, shape: tuple[int, ...]) -> None:
    x, weight, _, delta, _ = arrays(*shape)
    out = np.zeros_like(x)
    run(compare, "input_gradient_row", shape, dense.input_gradient_row, numpy_input_gradient, delta, weight, out)


@shapes
def test_weight_gradient(compare: Compare, shape: tuple[int, ...]) -> None:
    x, weight, bias, delta, _ = arrays(*shape)
    run(compare, "weight_gradient", shape, dense.weight_gradient, numpy_gradient, x, delta, weight, bias)


@row_shapes
def test_weight_gradient_row(compare: Compare, shape: tuple[int, ...]) -> None:
    x, weight, bias, delta, _ = arrays(*shape)
    run(compare, "weight_gradient_row", shape, dense.weight_gradient_row, numpy_gradient_row, x, delta, weight, bias)


@shapes
def test_update(compare: Compare, shape: tuple[int, ...]) -> None:
    x, weight, bias, delta, _ = arrays(*shape)
    run(compare, "update", shape, dense.update, numpy_update, x, delta, weight, bias)


@row_shapes
def test_update_row(compare: Compare, shape: tuple[int, ...]) -> None:
    x, weight, bias, delta, _ = arrays(*shape)
    run(compare, "update_row", shape, dense.update_row, numpy_update_row, x, delta, weight, bias)
