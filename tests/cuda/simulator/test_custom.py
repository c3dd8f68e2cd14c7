"""Activations and losses of a user's own on the simulated GPU, against the same training on the processor."""

import numba
import numpy as np
import pytest

from hotloop import MLP, SGD, Activation, Loss, Trainer, inputs
from hotloop.kernels.cuda import shim
from hotloop.kernels.simd import cast


@numba.njit
def cubic(z):
    return z + cast(0.1, z) * z * z * z


@numba.njit
def cubic_slope(z):
    return cast(1.0, z) + cast(0.3, z) * z * z


def soft(z):
    return z / (1.0 + abs(z))  # a float64, of a float32


def soft_slope(z):
    return 1.0 / (1.0 + abs(z)) ** 2


def pinball(prediction, target):
    return 0.7 * (target - prediction) if target > prediction else 0.3 * (prediction - target)


def pinball_slope(prediction, target):
    return -0.7 if target > prediction else 0.3


@numba.njit
def relative(prediction, target, k, delta):
    """Reads every prediction again after it has written the first delta."""
    total = cast(0.0, prediction[0])
    for j in range(k):
        error = prediction[j] - target[j] - prediction[0]
        delta[j] = error
        total += cast(0.5, error) * error * error
    delta[0] = cast(0.0, total)
    for j in range(1, k):
        delta[0] -= delta[j]
    return total


@numba.njit
def margin(prediction, label, k, delta):
    total = cast(0.0, prediction[0])
    for j in range(k):
        error = prediction[j] - (cast(1.0, total) if j == label else cast(0.0, total))
        delta[j] = error + error
        total += error * error
    return total


CUBIC, SOFT = Activation(cubic, cubic_slope), Activation(soft, soft_slope)
CASES = {
    "value and slope": ([CUBIC, SOFT], "identity", Loss(pinball, pinball_slope)),
    "an output": (["tanh", CUBIC], SOFT, None),
    "a row": ([SOFT, SOFT], "tanh", Loss(row=relative)),
    "a row of probabilities": ("relu", "softmax", Loss(row=relative)),
    "classes": (SOFT, "identity", Loss(row=margin, classes=True)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_trained_like_on_the_processor(name, dtype, monkeypatch):
    activation, output, loss = CASES[name]
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(7, 4)).astype(dtype), rng.normal(size=(7, 3)).astype(dtype)
    if loss is not None and loss.classes:
        y = y.argmax(axis=1)
    runs = []
    for device in ("cpu", "cuda"):
        model = MLP([4, 5, 4, 3], activation, output, dtype=dtype, seed=1)
        history = Trainer(loss, SGD(lr=0.1), batch_size=4, epochs=1, device=device).fit(model, X, y)
        runs.append((history["loss"], model.params.copy()))
    np.testing.assert_allclose(runs[1][0], runs[0][0], rtol=1e-5)
    np.testing.assert_allclose(runs[1][1], runs[0][1], atol=1e-5 if dtype == "float32" else 1e-12)
    if name == "an output" and dtype == "float32":
        monkeypatch.setattr(inputs, "on_device", lambda array: hasattr(array, "copy_to_host"))
        outputs = model.forward(shim.cuda.to_device(X))
        np.testing.assert_allclose(outputs.copy_to_host(), model.forward(X), atol=1e-5)
