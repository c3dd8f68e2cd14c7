"""The parts of a step, divided over several blocks, and whole pieces, against the processor's kernels."""

import numpy as np
import pytest
from numba import cuda

from hotloop import MLP, SGD, Adam, engine, inputs, objectives
from hotloop import cuda as gpu
from hotloop.kernels.activations import CODES
from hotloop.kernels.cuda import dense, epochs, gradient, network, shim
from hotloop.kernels.plan import SLOPE, STRIDE, VALUE, WEIGHT, WIDTH, Inputs, Network, Samples
from hotloop.regularization import Regularization

SHARED, U = network.SHARED, network.U
NONE = gpu.make_regular(Regularization(), 2, 0, np.dtype("float32"))
load_rows, forward = network.make_load_rows(False), network.make_forward()
backward, accumulate = network.make_backward(), gradient.make_accumulate()


def setting(sizes, rows, dtype="float32", activation="tanh"):
    """A model's plan for blocks of so many rows, its parameters, and a workspace full of values, slopes and deltas."""
    rng = np.random.default_rng([rows, *sizes])
    model = MLP(sizes, activation=activation, dtype=dtype, seed=1)
    for bias in model.biases:
        bias[:] = rng.normal(size=bias.shape)
    plan, size = gpu.make_plan(model._network.plan, CODES["identity"], rows)
    work = gpu.workspace(plan, size, rows, np.dtype(dtype))
    for line in plan:
        for place in (VALUE, SLOPE):
            region(work, line, place, rows)[:] = rng.normal(size=(rows, line[WIDTH]))
    return model, plan, work


def region(work, line, place, rows):
    """The rows of a layer's values or slopes."""
    return work[line[place] : line[place] + rows * line[STRIDE]].reshape(rows, line[STRIDE])[:, : line[WIDTH]]


@shim.kernel
def forward_kernel(plan, params, work, layer, begin, end, parity):
    panels = cuda.shared.array(SHARED, work.dtype, alignment=16)
    forward(plan, params, work, layer, begin, end, parity, 0, cuda.blockIdx.x, cuda.gridDim.x, panels)


@shim.kernel
def backward_kernel(plan, params, work, layer, begin, end):
    panels = cuda.shared.array(SHARED, work.dtype, alignment=16)
    backward(plan, params, work, layer, begin, end, cuda.blockIdx.x, cuda.gridDim.x, panels)


@shim.kernel
def gradient_kernel(plan, into, work, rows, parity, slices, adds):
    panels = cuda.shared.array(SHARED, work.dtype, alignment=16)
    accumulate(plan, into, work, rows, parity, slices, adds, cuda.blockIdx.x, cuda.gridDim.x, panels)


@shim.kernel
def load_kernel(plan, work, samples, regular, position, rows, parity):
    load_rows(plan, work, samples, regular, position, rows, parity, cuda.blockIdx.x, cuda.gridDim.x)


# (sizes, rows, blocks): tiles of both sizes and strips, one block and several.
SHAPES = [([5, 19, 3], 17, 1), ([9, 34, 18], 20, 2), ([18, 33, 21], 5, 3), ([5, 40, 3], 36, 1), ([20, 7, 33], 1, 2)]
shapes = pytest.mark.parametrize(("sizes", "rows", "blocks"), SHAPES)


@shapes
def test_forward(sizes, rows, blocks):
    model, plan, work = setting(sizes, rows)
    for layer in (1, 2):
        parity, before = layer % 2, work.copy()
        below = region(work, plan[0], SLOPE, rows) if layer == 1 else region(work, plan[1], VALUE, rows)
        z = below.astype(np.float64) @ model.weights[layer - 1] + model.biases[layer - 1]
        shim.launch(forward_kernel, blocks, dense.THREADS)(plan, model.params, work, layer, 0, rows, parity)
        value, slope = region(work, plan[layer], VALUE, rows), region(work, plan[layer], SLOPE, rows)
        np.testing.assert_allclose(value, np.tanh(z) if layer == 1 else z, atol=1e-5)
        np.testing.assert_allclose(slope, 1 - np.tanh(z) ** 2 if layer == 1 else np.ones_like(z), atol=1e-5)
        value[:], slope[:] = region(before, plan[layer], VALUE, rows), region(before, plan[layer], SLOPE, rows)
        assert np.array_equal(work, before)  # nothing else was written


def test_forward_of_some_rows():
    model, plan, work = setting([5, 7, 3], 6)
    before, x = work.copy(), region(work, plan[0], VALUE, 6).astype(np.float64)
    shim.launch(forward_kernel, 1, dense.THREADS)(plan, model.params, work, 1, 2, 5, 0)
    value, old = region(work, plan[1], VALUE, 6), region(before, plan[1], VALUE, 6)
    np.testing.assert_allclose(value[2:5], np.tanh(x @ model.weights[0] + model.biases[0])[2:5], atol=1e-5)
    assert np.array_equal(value[:2], old[:2]) and np.array_equal(value[5:], old[5:])


@shapes
def test_backward(sizes, rows, blocks):
    model, plan, work = setting(sizes, rows)
    delta, slope = region(work, plan[2], SLOPE, rows), region(work, plan[1], SLOPE, rows)
    expected = (delta.astype(np.float64) @ model.weights[1].T) * slope
    shim.launch(backward_kernel, blocks, dense.THREADS)(plan, model.params, work, 2, 0, rows)
    np.testing.assert_allclose(slope, expected, atol=1e-5)


@shapes
@pytest.mark.parametrize(("slices", "adds"), [(1, True), (1, False), (2, False)])
def test_gradient(sizes, rows, blocks, slices, adds):
    model, plan, work = setting(sizes, rows)
    for line in plan[1:]:  # what a step leaves behind the deltas
        work[line[SLOPE] : line[SLOPE] + rows * line[STRIDE]].reshape(rows, -1)[:, line[WIDTH] :] = 0
    n = model.params.size
    into = np.tile(model.params, slices)
    shim.launch(gradient_kernel, blocks, dense.THREADS)(plan, into, work, rows, 0, U(slices), adds)
    total = into.reshape(slices, n).astype(np.float64).sum(axis=0)
    for layer in (1, 2):
        x, delta = region(work, plan[layer - 1], VALUE, rows), region(work, plan[layer], SLOPE, rows)
        ones = np.hstack([x, np.ones((rows, 1), x.dtype)]).astype(np.float64)
        start, (fan_in, width) = plan[layer, WEIGHT], model.weights[layer - 1].shape
        ld = plan[layer, 1]
        part = total[start : start + (fan_in + 1) * ld].reshape(fan_in + 1, ld)
        old = np.vstack([model.weights[layer - 1], model.biases[layer - 1]]) if adds else 0
        np.testing.assert_allclose(part[:, :width], old + ones.T @ delta, atol=2e-5)
        assert not part[:, width:].any()  # the padding stays zero


@pytest.mark.parametrize("compressed", [False, True])
def test_load_rows(compressed):
    sparse = pytest.importorskip("scipy.sparse")
    _, plan, work = setting([7, 3], 4)
    X = np.random.default_rng(1).normal(size=(9, 7)).astype(np.float32) * (np.arange(7) % 3 > 0)
    rows = inputs.read("X", sparse.csr_matrix(X) if compressed else X, 7, np.dtype("float32"))
    order = np.random.default_rng(2).permutation(9)
    none, room = np.zeros(0, np.float32), [a if a.size else np.zeros(1, a.dtype)[:0] for a in rows.arrays[1:]]
    dense_rows = rows.arrays.X if rows.arrays.X.size else np.zeros((1, 7), np.float32)
    samples = Samples(Inputs(dense_rows, *room), X, np.zeros(0, np.int32), none, order, 0)
    shim.launch(load_kernel, 2, dense.THREADS)(plan, work, samples, NONE, 3, 4, 1)
    assert np.array_equal(region(work, plan[0], SLOPE, 4), X[order[3:7]])


def run(kind, sizes, n, batch, optimizer, regularization=None, dtype="float32", **changed):
    """Losses and parameters after an epoch, number 2, in two pieces, on an engine with some of its fields changed."""
    rng = np.random.default_rng([n, *sizes])
    X, y = rng.normal(size=(n, sizes[0])).astype(dtype), rng.integers(0, sizes[-1], n)
    model = MLP(sizes, activation="tanh", output="softmax", dtype=dtype, seed=3)
    rows, objective = inputs.read("X", X, sizes[0], model.dtype), objectives.bind(None, model, y, n)
    machine = kind(model._network, rows, objective, batch, 1, False, regularization, seed=7)
    for name, value in changed.items() if kind is gpu.Engine else ():
        setattr(machine, name, value)
    state, grad = optimizer.init(model.params), np.zeros_like(model.params)
    rule = optimizer.rule(np.array([optimizer.lr]), grad, state)
    machine.order[:] = rng.permutation(n)
    machine.restart(2)
    middle = n // batch // 2 * batch
    losses = [machine.run(0, middle, rule), machine.run(middle, n, rule)] if middle else [machine.run(0, n, rule)]
    machine.close()
    return losses, model.params, rule


@pytest.mark.parametrize(
    ("sizes", "n", "batch", "optimizer", "changed"),
    [
        ([5, 19, 18, 3], 20, 20, SGD(lr=0.1), {"chunk": 8}),  # block after block into the gradient
        ([5, 7, 3], 20, 20, SGD(lr=0.1), {"slices": 2}),
        ([5, 7, 3], 10, 4, Adam(lr=0.1), {}),
        ([5, 7, 3], 10, 4, SGD(lr=0.1, momentum=0.9, nesterov=True), {}),
    ],
)
def test_pieces(sizes, n, batch, optimizer, changed):
    regularization = None if changed else Regularization(l1=0.01, l2=0.1, clip_value=0.1)
    expected = run(engine.Engine, sizes, n, batch, optimizer, regularization)
    actual = run(gpu.Engine, sizes, n, batch, optimizer, regularization, **changed)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-5)
    for mine, theirs in zip(actual[2][-3:], expected[2][-3:], strict=True):  # first, second, clock
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


THIN = Regularization(dropout=[0.2, 0.5, 0.3])
BOUNDED = Regularization(l1=0.01, l2=0.1, clip_value=0.3, clip_norm=0.2, max_norm=0.8)
ALL = Regularization(0.01, 0.1, 0.3, 0.2, 0.8, [0.2, 0.5, 0.3], 0.1)


@pytest.mark.parametrize(
    ("regularization", "optimizer", "dtype", "changed"),
    [
        (THIN, SGD(lr=0.1), "float32", {}),
        (THIN, SGD(lr=0.1), "float32", {"chunk": 2}),
        (BOUNDED, SGD(lr=0.1), "float32", {"slices": 2}),
        (ALL, Adam(lr=0.1), "float32", {}),
        (ALL, Adam(lr=0.1), "float64", {}),
    ],
)
def test_regularisation(regularization, optimizer, dtype, changed):
    sizes, n, batch, least = [5, 18, 7, 3], 9, 4, np.finfo(dtype).eps
    plain = run(engine.Engine, sizes, n, batch, optimizer, dtype=dtype)
    expected = run(engine.Engine, sizes, n, batch, optimizer, regularization, dtype)
    actual = run(gpu.Engine, sizes, n, batch, optimizer, regularization, dtype, **changed)
    np.testing.assert_allclose(actual[0], expected[0], rtol=100 * least)
    np.testing.assert_allclose(actual[1], expected[1], atol=1000 * least)
    assert not np.allclose(expected[1], plain[1], atol=1e-3)


@pytest.mark.parametrize("wide", [1, 2])
def test_dropout_in_layers_shared_by_a_cooperative_grid(wide, monkeypatch):
    sizes, n, batch = [5, 18, 7, 3], 10, 5
    expected = run(engine.Engine, sizes, n, batch, SGD(lr=0.1), THIN)
    cooperative = epochs.make_mini_batch(False, False)
    monkeypatch.setattr(epochs, "make_mini_batch", lambda *_: cooperative)
    actual = run(gpu.Engine, sizes, n, batch, SGD(lr=0.1), THIN, wide=wide)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-6)


@pytest.mark.parametrize("wide", [1, 2, 3])
def test_layers_shared_by_a_cooperative_grid(wide, monkeypatch):
    sizes, n, batch = [5, 18, 7, 3], 10, 5
    expected = run(engine.Engine, sizes, n, batch, SGD(lr=0.1))
    cooperative = epochs.make_mini_batch(False, False)  # whose barrier can be simulated for one block
    monkeypatch.setattr(epochs, "make_mini_batch", lambda *_: cooperative)
    actual = run(gpu.Engine, sizes, n, batch, SGD(lr=0.1), wide=wide)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-6)


def test_per_sample():
    model, plan, work = setting([4, 5, 3], 1)
    rng = np.random.default_rng(5)
    X, targets = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
    twin = MLP([4, 5, 3], activation="tanh")
    twin.params[:] = model.params
    objective = objectives.bind("mse", twin, targets, 6)
    machine = engine.Engine(twin._network, inputs.dense(X), objective, 1, 1, True)
    grad = np.zeros(0, np.float32)
    machine.run(0, 6, SGD(lr=0.1).rule(np.array([0.1]), grad, SGD(lr=0.1).init(twin.params)))
    none, losses = np.zeros(0, np.float32), np.zeros(6, np.float32)
    rest = np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.int64)
    samples = Samples(Inputs(X, *rest), targets, np.zeros(0, np.int32), none, np.arange(6), 0)
    rule = epochs.Rule(0, np.full((6, 8), 0.1, np.float32), none, none, none)
    scratch = epochs.Scratch(work, losses, none)
    epochs.per_sample(Network(plan, model.params), samples, 0, 6, objective.code, rule, NONE, scratch)
    np.testing.assert_allclose(model.params, twin.params, atol=1e-6)
    np.testing.assert_allclose(losses.sum(), machine.scratch.total[0], rtol=1e-5)
