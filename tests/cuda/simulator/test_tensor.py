"""Products in TF32: the layout of the instruction's operands, the rounding, and the option, against a rounding twin."""

import numpy as np
import pytest
import reference
from numba import cuda
from test_dense import assert_fence, fenced, layer
from test_epochs import region, setting

from hotloop import MLP, SGD, Trainer
from hotloop.kernels import activations
from hotloop.kernels.cuda import dense, gradient, network, shim, tensor
from hotloop.kernels.plan import PADDED, SLOPE, VALUE, WEIGHT

U = dense.U
forward, backward, accumulate = (
    network.make_forward((), True),
    network.make_backward(True),
    gradient.make_accumulate(True),
)


def product(a, b):
    """a @ b of rounded operands."""
    return reference.tf32(a) @ reference.tf32(b)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_rounding():
    rng = np.random.default_rng(0)
    ties = np.float32(1) + np.arange(8, dtype=np.float32) * np.float32(2**-11)
    wide = rng.normal(size=200) * 2.0 ** rng.integers(-120, 120, 200)
    for x in np.concatenate([ties, -ties, [0.0], wide]).astype(np.float32):
        assert tensor.rounded(x) == reference.tf32(x)
    assert tensor.rounded(np.float32(np.inf)) == np.inf and np.isnan(tensor.rounded(np.float32(np.nan)))


@pytest.mark.parametrize("each", [2, 4])
@pytest.mark.parametrize("wide", [True, False])
def test_every_tile(each, wide):
    rows, fan_in, fan_out = (20, 24, 36) if wide else (18, 21, 35)
    x, weight, bias, delta = layer(rows, fan_in, fan_out, "float32")
    z, back, moved = fenced(np.zeros_like(delta)), fenced(np.zeros_like(x)), fenced(weight)

    def run(kernel, shape, *args):
        blocks = dense.tiles(*shape, each)
        flat = (a.reshape(-1) if isinstance(a, np.ndarray) else a for a in args)
        shim.launch(kernel, blocks, dense.THREADS)(*flat)

    run(dense.forward_kernel(each, wide, True), z.shape, x, weight, bias, 0, z, U(rows), U(fan_in), U(fan_out))
    close(z, product(x, weight) + bias)
    assert 1e-4 < np.abs(z - (x.astype(float) @ weight + bias)).max() < 0.02  # how far from the exact product
    run(dense.input_gradient_kernel(each, wide, True), x.shape, delta, weight, back, U(rows), U(fan_out), U(fan_in))
    close(back, product(delta, weight.T))
    kernel = dense.update_kernel(each, wide, False, True)
    run(kernel, weight.shape, x, delta, moved, bias, U(rows), U(fan_in), U(fan_out))
    close(moved, weight + product(x.T, delta))
    assert_fence(z, back, moved)


def test_the_option_of_products():
    x, weight, bias, delta = layer(9, 17, 12, "float32")
    out, back, dweight, dbias = (np.zeros_like(like) for like in (delta, x, weight, bias))
    dense.forward(x, weight, bias, activations.RELU, out, tf32=True)
    dense.input_gradient(delta, weight, back, tf32=True)
    dense.weight_gradient(x, delta, dweight, dbias, tf32=True)
    moved = weight.copy()
    dense.update(x, delta, moved, bias.copy(), tf32=True)
    close(out, np.maximum(product(x, weight) + bias, 0))
    close(back, product(delta, weight.T))
    close(dweight, product(x.T, delta))
    close(moved, weight + product(x.T, delta))
    close(dbias, delta.sum(axis=0))
    with pytest.raises(ValueError, match="tf32 is for float32, not float64"):
        dense.input_gradient(delta.astype(float), weight.astype(float), back.astype(float), tf32=True)


@shim.kernel
def step_kernel(plan, params, into, work, rows):
    """A layer forward and backward, and the gradient of all layers, by one block after another."""
    panels = cuda.shared.array(network.SHARED, work.dtype, alignment=16)
    block, blocks = cuda.blockIdx.x, cuda.gridDim.x
    accumulate(plan, into, work, rows, 0, U(1), False, block, blocks, panels)
    forward(plan, params, work, 1, 0, rows, 0, 0, block, blocks, panels)
    backward(plan, params, work, 2, 0, rows, block, blocks, panels)


@pytest.mark.parametrize(("sizes", "rows"), [([9, 34, 18], 20), ([5, 36, 9], 36)])  # tiles of 2 x 2, and of 4 x 4
def test_the_tiles_of_a_step(sizes, rows):
    model, plan, work = setting(sizes, rows, activation="identity")
    x, hidden = region(work, plan[0], VALUE, rows).copy(), region(work, plan[1], VALUE, rows).copy()
    slope, delta = region(work, plan[1], SLOPE, rows).copy(), region(work, plan[2], SLOPE, rows).copy()
    into = np.zeros_like(model.params)
    shim.launch(step_kernel, 1, dense.THREADS)(plan, model.params, into, work, rows)
    for number, (below, above) in enumerate([(x, slope), (hidden, delta)], 1):
        start, (fan_in, width), ld = plan[number, WEIGHT], model.weights[number - 1].shape, plan[number, PADDED]
        close(into[start : start + fan_in * ld].reshape(fan_in, ld)[:, :width], product(below.T, above))
    close(region(work, plan[1], VALUE, rows), product(x, model.weights[0]) + model.biases[0])
    close(region(work, plan[1], SLOPE, rows), product(delta, model.weights[1].T))


def test_training():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(18, 9)).astype(np.float32), rng.integers(0, 3, 18)
    losses = []
    for options in ({"device": "cpu"}, {"device": "cuda", "tf32": True}):
        model = MLP([9, 3], output="softmax", seed=1)
        losses += Trainer(optimizer=SGD(lr=0.1), batch_size=9, epochs=1, **options).fit(model, X, y)["loss"]
    assert 1e-6 < abs(losses[1] / losses[0] - 1) < 2e-3


def test_float64_is_refused():
    model = MLP([2, 2], output="softmax", dtype="float64", seed=1)
    before = model.params.copy()
    with pytest.raises(ValueError, match="tf32: tf32 is for float32, not float64; use tf32=False"):
        Trainer(device="cuda", tf32=True).fit(model, np.eye(2), np.arange(2))
    assert np.array_equal(model.params, before)
