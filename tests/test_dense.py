"""Dense layer kernels against their twins: values within the rounding of a chain, and the same bits on every path."""

from itertools import product

import numba
import numpy as np
import pytest
import reference
from reference import Array

from hotloop.kernels import activations, dense
from hotloop.kernels.jit import jit
from hotloop.kernels.simd import pointer

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
# (rows, fan_in, fan_out): every pair of sizes meets in every two places, in 144 shapes instead of 1728.
SHAPES = [(SIZES[i], SIZES[j], SIZES[(i + j) % len(SIZES)]) for i, j in product(range(len(SIZES)), repeat=2)]
SHAPES += [(3, 300, 17), (300, 3, 33), (5, 600, 2), (600, 2, 7), (2, 9, 300)]  # beyond every block
SHAPES += [(257, 1024, 17), (300, 1024, 2)]  # rows of whole pages
SMALL_SHAPES = [
    (1, 1, 1),
    (2, 3, 1),
    (3, 7, 17),
    (7, 2, 9),
    (5, 9, 16),
    (9, 17, 3),
    (2, 33, 15),
    (17, 1, 33),
    (1, 5, 100),
    (2, 300, 3),
    (300, 2, 3),
]
SCALAR_ACTIVATIONS = list(reference.ACTIVATIONS)
FENCE = 40  # elements on either side of an array: more than two vectors

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


def fenced(values: Array) -> Array:
    """A copy in the middle of a field of NaN: what is read beyond the edges spoils the result."""
    field = np.full(values.size + 2 * FENCE + 1, np.nan, values.dtype)
    field[FENCE : FENCE + values.size] = values.ravel()
    return field[FENCE : FENCE + values.size].reshape(values.shape)


def assert_fence(*arrays: Array) -> None:
    """Nothing was written beyond the edges of fenced arrays."""
    for array in arrays:
        field = array.base
        assert np.isnan(field[:FENCE]).all() and np.isnan(field[FENCE + array.size :]).all()


def layer(rows: int, fan_in: int, fan_out: int, dtype: str, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """x (rows, fan_in) with some zeros, weight, bias and delta (rows, fan_out), all fenced."""
    rng = np.random.default_rng([seed, rows, fan_in, fan_out])
    x = rng.normal(size=(rows, fan_in)) * (rng.random((rows, fan_in)) < 0.8)
    weight, bias, delta = rng.normal(size=(fan_in, fan_out)), rng.normal(size=fan_out), rng.normal(size=(rows, fan_out))
    x, weight, bias, delta = (fenced(values.astype(dtype)) for values in (x, weight, bias, delta))
    return x, weight, bias, delta


def empty(shape: int | tuple[int, ...], dtype: str) -> Array:
    """A fenced array full of a number that no kernel computes."""
    return fenced(np.full(shape, 12345.0, dtype))


def forward(x: Array, weight: Array, bias: Array, activation: str = "identity") -> Array:
    out = empty((len(x), weight.shape[1]), x.dtype.name)
    dense.forward(x, weight, bias, activations.CODES[activation], out)
    assert_fence(out)
    return out


def assert_within_chain(result: Array, exact: Array, magnitude: Array, terms: int) -> None:
    """A chain of `terms` roundings is off by at most terms * eps * (the sum of the absolute terms)."""
    bound = (terms + 2) * np.finfo(result.dtype).eps * magnitude
    assert result.shape == exact.shape
    assert np.all(np.abs(result - exact) <= bound)


def same_bits(left: Array, right: Array) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@both
def test_forward_is_x_weight_plus_bias(dtype: str) -> None:
    for shape in SHAPES:
        x, weight, bias, _ = layer(*shape, dtype)
        magnitude = reference.dense_forward(abs(x), abs(weight), abs(bias))
        assert_within_chain(forward(x, weight, bias), reference.dense_forward(x, weight, bias), magnitude, shape[1])


@both
@pytest.mark.parametrize("activation", SCALAR_ACTIVATIONS)
def test_forward_applies_the_activation(activation: str, dtype: str) -> None:
    for shape in SHAPES[::7]:
        x, weight, bias, _ = layer(*shape, dtype)
        z = forward(x, weight, bias)
        tolerance = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(
            forward(x, weight, bias, activation), reference.activate(activation, z), rtol=tolerance, atol=tolerance
        )


@both
def test_forward_row_has_the_bits_of_forward(dtype: str) -> None:
    for i, shape in enumerate(SHAPES):
        x, weight, bias, _ = layer(*shape, dtype)
        activation = SCALAR_ACTIVATIONS[i % len(SCALAR_ACTIVATIONS)]
        batch = forward(x, weight, bias, activation)
        for b in range(len(x)):
            out = empty(shape[2], dtype)
            dense.forward_row(x[b], weight, bias, activations.CODES[activation], out)
            assert_fence(out)
            assert same_bits(out, batch[b]), (shape, b, activation)


@both
def test_forward_is_one_chain_of_fused_multiply_adds(dtype: str) -> None:
    for shape in SMALL_SHAPES:
        x, weight, bias, _ = layer(*shape, dtype)
        assert same_bits(forward(x, weight, bias), reference.dense_forward_bits(x, weight, bias)), shape


@both
def test_input_gradient_is_delta_weight_transposed(dtype: str) -> None:
    for shape in SHAPES:
        _, weight, _, delta = layer(*shape, dtype)
        out, row = empty((shape[0], shape[1]), dtype), empty(shape[1], dtype)
        dense.input_gradient(delta, weight, out)
        assert_fence(out)
        magnitude = reference.dense_input_gradient(abs(delta), abs(weight))
        assert_within_chain(out, reference.dense_input_gradient(delta, weight), magnitude, shape[2] // 16 + 5)
        for b in range(shape[0]):
            dense.input_gradient_row(delta[b], weight, row)
            assert same_bits(row, out[b]), (shape, b)
        assert_fence(row)


@both
def test_input_gradient_is_sixteen_lanes_and_a_tree(dtype: str) -> None:
    for shape in [*SMALL_SHAPES, (3, 5, 31), (2, 4, 32), (2, 3, 49)]:
        _, weight, _, delta = layer(*shape, dtype)
        out = empty((shape[0], shape[1]), dtype)
        dense.input_gradient(delta, weight, out)
        assert np.array_equal(out, reference.dense_input_gradient_bits(delta, weight)), shape


@jit
def back_product_narrow(delta, weight, out):  # type: ignore[no-untyped-def]
    """The kernel on whole arrays; rows of out are padded to whole lines of 16."""
    rows, out_row = out.shape
    units = weight.shape[0]
    dense.back_product_narrow(pointer(delta, 0), 16, rows, pointer(weight, 0), units, pointer(out, 0), out_row)


@both
def test_a_narrow_heads_input_gradient_has_the_bits_of_any_other(dtype: str) -> None:
    for rows, units in product((0, 1, 5, 16), (1, 15, 16, 17, 33, 64)):
        _, weight, _, delta = layer(rows, units, 16, dtype)
        slope = np.zeros((rows, -(-units // 16) * 16), dtype)
        slope[:, :units] = np.random.default_rng(rows).normal(size=(rows, units))
        slope = fenced(slope)
        plain = empty((rows, units), dtype)
        dense.input_gradient(delta, weight, plain)
        expected = (plain * slope[:, :units]).astype(dtype)
        np.testing.assert_allclose(plain, reference.dense_input_gradient(delta, weight), rtol=1e-3, atol=1e-4)
        back_product_narrow(delta, weight, slope)
        assert same_bits(np.ascontiguousarray(slope[:, :units]), expected), (rows, units)
        assert np.all(slope[:, units:] == 0)
        assert_fence(slope)


@both
def test_weight_gradient_is_x_transposed_delta(dtype: str) -> None:
    for shape in SHAPES:
        x, weight, bias, delta = layer(*shape, dtype)
        dweight, dbias = empty(weight.shape, dtype), empty(bias.shape, dtype)
        dense.weight_gradient(x, delta, dweight, dbias)
        assert_fence(dweight, dbias)
        exact_weight, exact_bias = reference.dense_weight_gradient(x, delta)
        weight_magnitude, bias_magnitude = reference.dense_weight_gradient(abs(x), abs(delta))
        assert_within_chain(dweight, exact_weight, weight_magnitude, shape[0])
        assert_within_chain(dbias, exact_bias, bias_magnitude, shape[0])


@both
def test_weight_gradient_row_has_the_bits_of_a_batch_of_one(dtype: str) -> None:
    for shape in SHAPES:
        x, weight, bias, delta = layer(*shape, dtype)
        dweight, dbias = empty(weight.shape, dtype), empty(bias.shape, dtype)
        row_dweight, row_dbias = empty(weight.shape, dtype), empty(bias.shape, dtype)
        dense.weight_gradient(x[:1], delta[:1], dweight, dbias)
        dense.weight_gradient_row(x[0], delta[0], row_dweight, row_dbias)
        assert_fence(row_dweight, row_dbias)
        assert np.array_equal(row_dweight, dweight) and np.array_equal(row_dbias, dbias), shape


@both
def test_weight_gradient_is_one_chain_over_the_rows(dtype: str) -> None:
    for shape in SMALL_SHAPES:
        x, weight, bias, delta = layer(*shape, dtype)
        dweight, dbias = empty(weight.shape, dtype), empty(bias.shape, dtype)
        dense.weight_gradient(x, delta, dweight, dbias)
        exact_dweight, exact_dbias = reference.dense_weight_gradient_bits(x, delta)
        assert np.array_equal(dweight, exact_dweight) and np.array_equal(dbias, exact_dbias), shape


@both
def test_update_adds_to_weight_and_bias(dtype: str) -> None:
    for shape in SHAPES:
        x, weight, bias, delta = layer(*shape, dtype)
        exact_weight, exact_bias = reference.dense_update(x, delta, weight, bias)
        weight_magnitude, bias_magnitude = reference.dense_update(abs(x), abs(delta), abs(weight), abs(bias))
        dense.update(x, delta, weight, bias)
        assert_fence(weight, bias)
        assert_within_chain(weight, exact_weight, weight_magnitude, shape[0])
        assert_within_chain(bias, exact_bias, bias_magnitude, shape[0])


@both
def test_rows_updated_in_turn_have_the_bits_of_one_update(dtype: str) -> None:
    for shape in SHAPES:
        x, weight, bias, delta = layer(*shape, dtype)
        row_weight, row_bias = fenced(weight), fenced(bias)
        dense.update(x, delta, weight, bias)
        for b in range(len(x)):
            dense.update_row(x[b], delta[b], row_weight, row_bias)
        assert_fence(row_weight, row_bias)
        assert same_bits(row_weight, weight) and same_bits(row_bias, bias), shape


@both
def test_update_is_one_chain_that_starts_at_the_weight(dtype: str) -> None:
    for shape in SMALL_SHAPES:
        x, weight, bias, delta = layer(*shape, dtype)
        exact_weight, exact_bias = reference.dense_update_bits(x, delta, weight, bias)
        dense.update(x, delta, weight, bias)
        assert same_bits(weight, exact_weight) and same_bits(bias, exact_bias), shape


@both
@pytest.mark.parametrize("scale", ["tiny", "huge"])
def test_extreme_magnitudes_are_rounded_like_any_other(scale: str, dtype: str) -> None:
    info = np.finfo(dtype)
    factor = (
        np.sqrt(info.tiny if scale == "tiny" else info.max) / 64
    )  # tiny: products are subnormal; huge: nearly infinite
    for shape in SMALL_SHAPES[:5]:
        x, weight, bias, delta = layer(*shape, dtype)
        for array in (x, weight, delta):
            array *= factor
        bias *= factor * factor
        assert np.array_equal(forward(x, weight, bias), reference.dense_forward_bits(x, weight, bias)), shape
        out = empty((shape[0], shape[1]), dtype)
        dense.input_gradient(delta, weight, out)
        assert np.array_equal(out, reference.dense_input_gradient_bits(delta, weight)), shape


@both
def test_nan_and_infinity_reach_their_own_row_and_no_other(dtype: str) -> None:
    for poison in (np.nan, np.inf):
        x, weight, bias, delta = layer(9, 17, 33, dtype)
        clean = forward(x, weight, bias)
        x[4, 3] = poison
        out = forward(x, weight, bias)
        assert not np.isfinite(out[4]).any()
        keep = np.arange(9) != 4
        assert same_bits(out[keep], clean[keep])
        weight[3, 5], x[4, 3] = poison, 0  # zero times infinity is NaN: a zero input hides nothing
        out = forward(x, weight, bias)
        assert not np.isfinite(out[:, 5]).any()
        keep = np.arange(33) != 5
        assert np.isfinite(out[:, keep]).all()
        gradient = empty((9, 17), dtype)
        dense.input_gradient(delta, weight, gradient)
        assert not np.isfinite(gradient[:, 3]).any()
        assert np.isfinite(gradient[:, np.arange(17) != 3]).all()


@both
def test_no_rows_change_nothing(dtype: str) -> None:
    x, weight, bias, delta = layer(1, 5, 3, dtype)
    before = weight.copy(), bias.copy()
    dense.update(x[:0], delta[:0], weight, bias)
    assert same_bits(weight, before[0]) and same_bits(bias, before[1])
    dweight, dbias = empty((5, 3), dtype), empty(3, dtype)
    dense.weight_gradient(x[:0], delta[:0], dweight, dbias)
    assert not dweight.any() and not dbias.any()
    assert forward(x[:0], weight, bias).shape == (0, 3)


def test_kernels_are_usable_from_compiled_user_code() -> None:
    @numba.njit
    def two_layers(x, w0, b0, w1, b1, hidden, out):  # type: ignore[no-untyped-def]
        dense.forward(x, w0, b0, activations.TANH, hidden)
        dense.forward(hidden, w1, b1, activations.IDENTITY, out)

    x, w0, b0, _ = layer(4, 5, 6, "float32")
    _, w1, b1, _ = layer(4, 6, 2, "float32")
    hidden, out = empty((4, 6), "float32"), empty((4, 2), "float32")
    two_layers(x, w0, b0, w1, b1, hidden, out)
    assert same_bits(out, forward(forward(x, w0, b0, "tanh"), w1, b1))
