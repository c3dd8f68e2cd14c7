"""Dense layers against their twins, and where a tile makes them, against the bits of the CPU's kernels."""

import numpy as np
import pytest
import reference
from reference import Array

from hotloop.kernels import activations
from hotloop.kernels import dense as cpu
from hotloop.kernels.cuda import dense
from hotloop.kernels.cuda.shim import launch

# (rows, fan_in, fan_out): single and several tiles and strips, whole and torn, read wide and element by element.
SHAPES = [(1, 1, 1), (3, 7, 17), (5, 20, 12), (9, 17, 3), (17, 1, 33), (20, 24, 36), (2, 100, 5)]
TILED = [shape for shape in SHAPES if shape[0] >= dense.FEW]
FENCE = 8

both = pytest.mark.parametrize(
    ("shape", "dtype"), [(shape, "float32") for shape in SHAPES] + [(shape, "float64") for shape in SHAPES[2:4]]
)


def fenced(values: Array) -> Array:
    """A copy in a field of NaN, 16-byte aligned: what is read beyond its edges spoils the result."""
    field = np.full(values.size + 2 * FENCE, np.nan, values.dtype)
    field[FENCE : FENCE + values.size] = values.ravel()
    return field[FENCE : FENCE + values.size].reshape(values.shape)


def assert_fence(*arrays: Array) -> None:
    for array in arrays:
        field = array.base
        assert np.isnan(field[:FENCE]).all() and np.isnan(field[FENCE + array.size :]).all()


def layer(rows: int, fan_in: int, fan_out: int, dtype: str) -> tuple[Array, Array, Array, Array]:
    """x, weight, bias and delta of a layer, fenced."""
    rng = np.random.default_rng([rows, fan_in, fan_out])
    shapes = (rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out)
    x, weight, bias, delta = (fenced(rng.normal(size=shape).astype(dtype)) for shape in shapes)
    return x, weight, bias, delta


def close(actual: Array, expected: Array) -> None:
    """Equal up to the rounding of a chain of some hundred terms."""
    np.testing.assert_allclose(actual, expected, atol=200 * np.finfo(actual.dtype).eps)


@both
def test_forward(shape, dtype):
    x, weight, bias, _ = layer(*shape, dtype)
    out = fenced(np.zeros((shape[0], shape[2]), dtype))
    dense.forward(x, weight, bias, activations.IDENTITY, out)
    close(out, reference.dense_forward(x, weight, bias))
    if shape in TILED:
        cpu.forward(x, weight, bias, activations.IDENTITY, twin := np.empty_like(out))
        assert np.array_equal(out, twin)
    assert_fence(out)


@pytest.mark.parametrize("name", reference.ACTIVATIONS)
@pytest.mark.parametrize("shape", [(2, 3, 3), (9, 2, 4)])
def test_activations(name, shape):
    x, weight, bias, _ = layer(*shape, "float32")
    out = np.zeros((shape[0], shape[2]), np.float32)
    dense.forward(x, weight, bias, activations.CODES[name], out)
    np.testing.assert_allclose(out, reference.dense_forward(x, weight, bias, name), atol=2e-5)


@pytest.mark.parametrize("rows", [2, 9])
def test_softmax(rows):
    x, weight, bias, _ = layer(rows, 5, 7, "float32")
    out = np.zeros((rows, 7), np.float32)
    dense.forward(x, weight, bias, activations.SOFTMAX, out)
    np.testing.assert_allclose(out, reference.softmax(reference.dense_forward(x, weight, bias)), atol=1e-6)


@both
def test_input_gradient(shape, dtype):
    _, weight, _, delta = layer(*shape, dtype)
    out = fenced(np.zeros(shape[:2], dtype))
    dense.input_gradient(delta, weight, out)
    close(out, reference.dense_input_gradient(delta, weight))
    assert_fence(out)


@both
def test_update(shape, dtype):
    x, weight, bias, delta = layer(*shape, dtype)
    expected, twin = reference.dense_update(x, delta, weight, bias), (weight.copy(), bias.copy())
    dense.update(x, delta, weight, bias)
    cpu.update(x, delta, *twin)
    for actual, value, bits in zip((weight, bias), expected, twin, strict=True):
        close(actual, value)
        assert np.array_equal(actual, bits)
    assert_fence(weight, bias)


@pytest.mark.parametrize("shape", SHAPES[2:5])
def test_weight_gradient(shape):
    x, weight, bias, delta = layer(*shape, "float32")
    expected = reference.dense_weight_gradient(x, delta)
    dense.weight_gradient(x, delta, weight, bias)  # what they held is not added to
    close(weight, expected[0])
    close(bias, expected[1])
    assert_fence(weight, bias)


def test_rows():
    x, weight, bias, delta = layer(1, 12, 5, "float32")
    out, back = np.zeros(5, np.float32), np.zeros(12, np.float32)
    dense.forward_row(x[0], weight, bias, activations.TANH, out)
    close(out, reference.dense_forward(x, weight, bias, "tanh")[0])
    dense.input_gradient_row(delta[0], weight, back)
    close(back, reference.dense_input_gradient(delta, weight)[0])
    expected = reference.dense_update(x, delta, weight, bias)
    dense.update_row(x[0], delta[0], weight, bias)
    close(weight, expected[0])
    close(bias, expected[1])
    dense.weight_gradient_row(x[0], delta[0], weight, bias)
    close(weight, np.outer(x, delta))
    close(bias, delta[0])


def test_no_rows():
    x, weight, bias, delta = layer(0, 3, 2, "float32")
    before = weight.copy()
    dense.forward(x, weight, bias, activations.RELU, np.zeros((0, 2), np.float32))
    dense.input_gradient(delta, weight, np.zeros((0, 3), np.float32))
    dense.update(x, delta, weight, bias)
    assert np.array_equal(weight, before)


@pytest.mark.parametrize("each", [2, 4, 8])
@pytest.mark.parametrize("wide", [True, False])
def test_every_tile(each, wide):
    """The tiles that the launch of small shapes would not choose."""
    rows, fan_in, fan_out = (20, 24, 36) if wide else (18, 21, 35)
    x, weight, bias, delta = layer(rows, fan_in, fan_out, "float32")
    z, back = fenced(np.zeros_like(delta)), fenced(np.zeros_like(x))
    gradient, moved, twin = reference.dense_input_gradient(delta, weight), weight.copy(), np.empty_like(z)
    cpu.forward(x, weight, bias, activations.IDENTITY, twin)
    cpu.update(x, delta, moved, bias.copy())

    def run(kernel, shape, *args):
        blocks = dense.tiles(*shape, each)
        launch(kernel, blocks, dense.THREADS)(*(a.reshape(-1) if isinstance(a, np.ndarray) else a for a in args))

    U = dense.U
    run(dense.forward_kernel(each, wide), z.shape, x, weight, bias, 0, z, U(rows), U(fan_in), U(fan_out))
    assert np.array_equal(z, twin)
    run(dense.input_gradient_kernel(each, wide), x.shape, delta, weight, back, U(rows), U(fan_out), U(fan_in))
    close(back, gradient)
    run(dense.update_kernel(each, wide, False), weight.shape, x, delta, weight, bias, U(rows), U(fan_in), U(fan_out))
    assert np.array_equal(weight, moved)
    assert_fence(z, back, weight)
