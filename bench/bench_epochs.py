"""Whole epochs, inference and their helpers against the same loops in NumPy, on one thread."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop import MLP, SGD, inputs
from hotloop.data import load_digits
from hotloop.engine import Engine, infer
from hotloop.kernels import epochs, inference, losses
from hotloop.kernels.activations import IDENTITY
from hotloop.objectives import bind

Array = NDArray[Any]
Compare = Callable[..., None]

SIZES = (64, 32, 10)
ROWS = 512
LR = 0.01


def first_parameters() -> list[Array]:
    model = MLP(SIZES, seed=0)
    return [array.copy() for pair in zip(model.weights, model.biases, strict=True) for array in pair]


def digits() -> tuple[Array, Array]:
    X, y = load_digits()
    return X[:ROWS], y[:ROWS]


def hotloop_epoch(batch_size: int, optimizer: SGD) -> Callable[..., float]:
    """An epoch in order by the kernels, on parameters that come and go as plain arrays."""
    model = MLP(SIZES, output="softmax", seed=0)
    X, y = digits()
    objective = bind(None, model, y, len(y))
    engine = Engine(model._network, inputs.dense(X), objective, batch_size, 1, batch_size == 1)
    state = optimizer.init(model.params)
    plain = batch_size <= epochs.BLOCK and optimizer.momentum == 0.0
    rule = optimizer.rule(np.array([LR]), np.zeros_like(model.params[: 0 if plain else None]), state)

    def epoch(*parameters: Array) -> float:
        mine = [array for pair in zip(model.weights, model.biases, strict=True) for array in pair]
        for array, values in zip(mine, parameters, strict=True):
            array[:] = values
        state.first[:] = 0
        total = engine.run(0, ROWS, rule)
        for array, values in zip(mine, parameters, strict=True):
            values[:] = array
        return total

    return epoch


def numpy_epoch(batch_size: int, optimizer: SGD) -> Callable[..., float]:
    """The same in NumPy, written for speed: in place, without copies of the data."""
    X, y = digits()
    momentum, rows = np.float32(optimizer.momentum), np.arange(batch_size)

    def epoch(w1: Array, b1: Array, w2: Array, b2: Array) -> float:
        total = 0.0
        parameters = (w1, b1, w2, b2)
        velocities = [np.zeros_like(p) for p in parameters]
        for start in range(0, ROWS, batch_size):
            x, label = X[start : start + batch_size], y[start : start + batch_size]
            hidden = np.maximum(x @ w1 + b1, 0)
            z = hidden @ w2 + b2
            z -= z.max(axis=1, keepdims=True)
            delta = np.exp(z)
            sums = delta.sum(axis=1, keepdims=True)
            total += float((np.log(sums[:, 0]) - z[rows, label]).sum())
            delta /= sums
            delta[rows, label] -= 1
            delta /= len(x)
            back = (delta @ w2.T) * (hidden > 0)
            gradients = (x.T @ back, back.sum(axis=0), hidden.T @ delta, delta.sum(axis=0))
            for p, v, g in zip(parameters, velocities, gradients, strict=True):
                if momentum:
                    v *= momentum
                    v += g
                    p -= np.float32(LR) * v
                else:
                    p -= np.float32(LR) * g
        return total

    return epoch


def label(work: str) -> str:
    return f"{work}, {'-'.join(map(str, SIZES))}, {ROWS} rows"


def test_per_sample(compare: Compare) -> None:
    sgd = SGD(lr=LR)
    compare(label("per_sample"), hotloop_epoch(1, sgd), numpy_epoch(1, sgd), *first_parameters(), tolerance=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_size", [8, 32, 128])
def test_mini_batch(compare: Compare, batch_size: int, momentum: float) -> None:
    sgd = SGD(lr=LR, momentum=momentum)
    group = label(f"mini_batch {batch_size}, momentum {momentum}")
    compare(group, hotloop_epoch(batch_size, sgd), numpy_epoch(batch_size, sgd), *first_parameters(), tolerance=1e-4)


@pytest.mark.parametrize("sizes", [(64, 32, 10), (784, 128, 10)], ids=["64-32-10", "784-128-10"])
@pytest.mark.parametrize("rows", [1, 64, 1024])
def test_predict(compare: Compare, sizes: tuple[int, int, int], rows: int) -> None:
    model = MLP(sizes, seed=0)
    w1, w2 = (weight.copy() for weight in model.weights)
    X = np.random.default_rng(0).random((rows, sizes[0]), np.float32)

    def ours(X: Array) -> Array:
        return infer(model._network, inputs.dense(X), IDENTITY, 1)

    def numpy(X: Array) -> Array:
        hidden = X @ w1
        np.maximum(hidden, 0, out=hidden)
        return hidden @ w2

    compare(f"predict {'-'.join(map(str, sizes))}, {rows} rows", ours, numpy, X)


@pytest.mark.parametrize("sizes", [(64, 32, 10), (784, 128, 10)], ids=["64-32-10", "784-128-10"])
def test_predict_one(compare: Compare, sizes: tuple[int, int, int]) -> None:
    model = MLP(sizes, output="softmax", seed=0)
    (w1, w2), (b1, b2) = (weight.copy() for weight in model.weights), model.biases
    x = np.random.default_rng(0).random(sizes[0], np.float32)

    def numpy(x: Array) -> int:
        return int((np.maximum(x @ w1 + b1, 0) @ w2 + b2).argmax())

    compare(f"predict_one {'-'.join(map(str, sizes))}", model.predict_one, numpy, x)


def test_predict_one_and_onnxruntime(benchmark: Any) -> None:
    """One row of 64-32-10 by onnxruntime on one thread; the group says what predict_one takes."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = MLP([64, 32, 10], output="softmax", seed=0)
    names = [("w1", model.weights[0]), ("b1", model.biases[0]), ("w2", model.weights[1]), ("b2", model.biases[1])]
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [("Gemm", ["x", "w1", "b1"], "z1"), ("Relu", ["z1"], "a1"), ("Gemm", ["a1", "w2", "b2"], "z2")]
    graph = helper.make_graph(
        [helper.make_node(kind, given, [out]) for kind, given, out in nodes],
        "64-32-10",
        [helper.make_tensor_value_info("x", real, [1, 64])],
        [helper.make_tensor_value_info("z2", real, [1, 10])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in names],
    )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = runtime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random(64, np.float32)
    row = {"x": x[None]}
    assert session.run(None, row)[0].argmax() == model.predict_one(x)
    benchmark.group = "predict_one 64-32-10"
    benchmark(session.run, None, row)


def test_all_finite(compare: Compare) -> None:
    values = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    compare("all_finite 1,000,000", inference.all_finite, lambda values: bool(np.isfinite(values).all()), values)


def test_total_loss(compare: Compare) -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(10_000, 10)).astype(np.float32), rng.integers(0, 10, 10_000).astype(np.int32)
    nothing, delta, rows = np.empty((0, 10), np.float32), np.empty(10, np.float32), np.arange(10_000)
    code = losses.ready(losses.CROSS_ENTROPY_CLASS, logits.dtype)

    def ours(logits: Array) -> float:
        return inference.total_loss(code, logits, nothing, y, nothing.reshape(-1), delta)

    def numpy(logits: Array) -> float:
        z = logits - logits.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[rows, y]).sum(dtype=np.float64))

    compare("total_loss, cross entropy 10,000x10", ours, numpy, logits)
