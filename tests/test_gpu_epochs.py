"""On a real GPU: the same training as on the processor, and products, predictions, streams and arrays of others."""

from typing import Any

import gpu
import numpy as np
import pytest
import reference

from hotloop import MLP, SGD, Adam, PassiveAggressive, Trainer
from hotloop.kernels import activations
from hotloop.kernels import dense as cpu

REASON = gpu.unusable()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(REASON), reason=REASON)]


def data(n: int, features: int, classes: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, features)).astype(np.float32), rng.integers(0, classes, n)


@pytest.mark.parametrize(
    ("sizes", "batch", "optimizer"),
    [
        ([64, 32, 10], 1, SGD(lr=0.01)),  # one block
        ([64, 32, 10], 32, SGD(lr=0.05)),
        ([64, 32, 10], 32, Adam(lr=0.01)),
        ([784, 128, 10], 32, SGD(lr=0.05)),  # a cooperative grid, the first layer shared by strips
        ([784, 128, 10], 128, SGD(lr=0.05, momentum=0.9)),
        ([784, 128, 10], 4096, SGD(lr=0.1)),  # by tiles, the gradient in slices
        ([100, 300, 200, 10], 64, SGD(lr=0.05)),  # several shared layers
        ([13, 50, 10], 20, SGD(lr=0.05)),  # rows that begin anywhere
    ],
    ids=str,
)
def test_a_hundred_steps_like_the_processors(sizes, batch, optimizer):
    X, y = data(min(100 * batch, 16384), sizes[0], 10)
    epochs = -(-100 * batch // len(X))
    losses = []
    for device in ("cpu", "cuda"):
        model = MLP(sizes, output="softmax", seed=1)
        trainer = Trainer(optimizer=optimizer, batch_size=batch, epochs=epochs, device=device, progress=False)
        losses.append(trainer.fit(model, X, y)["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.parametrize("sizes", [[64, 32, 16, 10], [784, 256, 128, 10]], ids=str)  # one block, and a grid
@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"dropout": [0.1, 0.5, 0.2], "input_noise": 0.1},
        {"clip_norm": 0.5, "max_norm": 1.0, "l1": 1e-4, "l2": 1e-3, "clip_value": 0.1},
    ],
    ids=str,
)
def test_regularised_like_the_processors(sizes, options):
    X, y = data(2000, sizes[0], 10)
    losses = []
    for device in ("cpu", "cuda"):
        model = MLP(sizes, output="softmax", seed=1)
        trainer = Trainer(optimizer=SGD(lr=0.05), batch_size=64, epochs=3, device=device, progress=False, **options)
        losses.append(trainer.fit(model, X, y)["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_passive_aggressive_like_the_processors():
    X, y = data(500, 30, 3)
    params = []
    for device in ("cpu", "cuda"):
        model = MLP([30, 3], seed=1)
        Trainer("hinge", PassiveAggressive(0.5), batch_size=1, epochs=1, device=device, progress=False).fit(model, X, y)
        params.append(model.params.copy())
    np.testing.assert_allclose(params[1], params[0], atol=1e-4)


def test_the_same_bits_again():
    X, y = data(2048, 784, 10)
    params = []
    for _ in range(2):
        model = MLP([784, 128, 10], output="softmax", seed=1)
        Trainer(optimizer=SGD(lr=0.05), batch_size=64, epochs=2, device="cuda", progress=False).fit(model, X, y)
        params.append(model.params.copy())
    assert np.array_equal(*params)


@pytest.mark.parametrize("shape", [(8, 3, 5), (100, 37, 61), (512, 512, 512), (1000, 784, 128), (3, 784, 128)])
def test_products(shape):
    from hotloop.kernels.cuda import dense
    from hotloop.kernels.cuda.shim import cuda

    rows, fan_in, fan_out = shape
    rng = np.random.default_rng(0)
    x, weight, bias, delta = (
        rng.normal(size=size).astype(np.float32)
        for size in ((rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out))
    )
    out, back = np.empty((rows, fan_out), np.float32), np.empty((rows, fan_in), np.float32)
    there = [cuda.to_device(array) for array in (x, weight, bias, delta, out, back)]
    stream = cuda.stream()
    dense.forward(there[0], there[1], there[2], activations.RELU, there[4], stream)
    dense.input_gradient(there[3], there[1], there[5], stream)
    dense.update(there[0], there[3], there[1], there[2], stream)
    stream.synchronize()
    cpu.forward(x, weight, bias, activations.RELU, out)
    cpu.input_gradient(delta, weight, back)
    cpu.update(x, delta, weight, bias)
    exact = rows >= dense.FEW
    np.testing.assert_allclose(there[4].copy_to_host(), out, atol=0 if exact else 1e-4)
    np.testing.assert_allclose(there[5].copy_to_host(), back, atol=1e-3)
    np.testing.assert_array_equal(there[1].copy_to_host(), weight)
    np.testing.assert_array_equal(there[2].copy_to_host(), bias)


def _without_tf32() -> bool:
    from hotloop.kernels.cuda.shim import OLDEST_TF32, cuda

    return tuple(cuda.get_current_device().compute_capability) < OLDEST_TF32


@pytest.mark.parametrize("shape", [(8, 3, 5), (100, 37, 61), (512, 512, 512), (1000, 784, 128)])
def test_products_in_tf32(shape):
    from hotloop.kernels.cuda import dense
    from hotloop.kernels.cuda.shim import cuda

    if _without_tf32():
        pytest.skip("needs compute capability 8.0")
    rows, fan_in, fan_out = shape
    rng = np.random.default_rng(0)
    sizes = (rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out)
    x, weight, bias, delta = (rng.normal(size=size).astype(np.float32) for size in sizes)
    out, back = np.empty_like(delta), np.empty_like(x)
    there = [cuda.to_device(array) for array in (x, weight, bias, delta, out, back)]
    dense.forward(there[0], there[1], there[2], activations.RELU, there[4], tf32=True)
    dense.input_gradient(there[3], there[1], there[5], tf32=True)
    dense.update(there[0], there[3], there[1], there[2], tf32=True)
    x_, weight_, delta_ = (reference.tf32(array) for array in (x, weight, delta))
    np.testing.assert_allclose(there[4].copy_to_host(), np.maximum(x_ @ weight_ + bias, 0), atol=1e-3)
    np.testing.assert_allclose(there[5].copy_to_host(), delta_ @ weight_.T, atol=1e-3)
    np.testing.assert_allclose(there[1].copy_to_host(), weight + x_.T @ delta_, atol=1e-3)


def test_training_in_tf32():
    if _without_tf32():
        pytest.skip("needs compute capability 8.0")
    X, y = data(4096, 784, 10)
    losses = []
    for options in ({"device": "cpu"}, {"device": "cuda", "tf32": True}):
        model = MLP([784, 256, 10], output="softmax", seed=1)
        trainer = Trainer(optimizer=SGD(lr=0.05), batch_size=512, epochs=10, progress=False, **options)
        losses.append(trainer.fit(model, X, y)["loss"])
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)


def bring(library: str, array: Any) -> Any:
    """An array on the GPU, in the hands of a library."""
    if library == "numba":
        from hotloop.kernels.cuda.shim import cuda

        return cuda.to_device(array)
    if library == "torch":
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("this PyTorch has no CUDA")
        return torch.as_tensor(array, device="cuda")
    return pytest.importorskip("cupy").asarray(array)


class DLPack:
    """An array with no other interface."""

    def __init__(self, array: Any) -> None:
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


libraries = pytest.mark.parametrize("library", ["numba", "torch", "cupy"])


@libraries
def test_predictions_stay_on_the_device(library):
    X, _ = data(1000, 20, 3)
    model = MLP([20, 30, 3], output="softmax", seed=1)
    there = bring(library, X)
    for given in (there, *([DLPack(there)] if hasattr(there, "__dlpack__") else [])):
        predictions = model.predict(given)
        assert hasattr(predictions, "__cuda_array_interface__")
        np.testing.assert_array_equal(predictions.copy_to_host(), model.predict(X))
        np.testing.assert_allclose(model.forward(given).copy_to_host(), model.forward(X), atol=1e-5)


@libraries
def test_training_reads_in_place(library):
    from hotloop.kernels.cuda.shim import cuda

    X, y = data(1000, 20, 3)
    params = []
    for move in (lambda library, array: array, bring):
        model = MLP([20, 30, 3], output="softmax", seed=1)
        there = move(library, X)
        trainer = Trainer(
            batch_size=32, epochs=2, device="cuda", stream=cuda.stream(), validation_split=0.1, progress=False
        )
        trainer.fit(model, there, move(library, y))
        trainer.evaluate(model, there, y)
        params.append(model.params.copy())
    assert np.array_equal(*params)
    with pytest.raises(ValueError, match=r"NaN or an infinity at \[3, 5\]"):
        X[3, 5] = np.nan
        trainer.fit(model, bring(library, X), y)
