"""Losses on the simulated GPU against their twins: value and delta of a batch."""

import numpy as np
import pytest
import reference

from hotloop.kernels import losses as cpu
from hotloop.kernels.cuda import losses

SHAPES = [(1, 1), (5, 10), (65, 3)]

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


def sample(name, shape):
    rng = np.random.default_rng(shape)
    prediction, noise = rng.normal(scale=2, size=(2, *shape))
    if name in ("hinge", "squared_hinge"):
        return prediction, np.sign(noise)
    if name == "cross_entropy":
        return prediction, reference.softmax(noise)
    if name in ("logistic", "perceptron"):
        return prediction, (noise > 0) * 1.0
    if name == "poisson_rate":
        return np.exp(prediction / 2), rng.poisson(2.0, size=shape) * 1.0
    return prediction, noise


def check(code, prediction, targets, labels, twin, dtype):
    eps = np.finfo(dtype).eps
    value, delta = np.full(len(prediction) + 3, 7, dtype), np.empty_like(prediction)
    losses.rows(code, prediction, targets, labels, delta, value)
    for r, truth in enumerate(labels if len(labels) else targets):
        exact, exact_delta = twin(prediction[r], truth)
        np.testing.assert_allclose(value[r], exact, rtol=64 * eps, atol=64 * eps)
        np.testing.assert_allclose(delta[r], exact_delta, rtol=64 * eps, atol=64 * eps)
    assert np.all(value[len(prediction) :] == 7)
    losses.rows(code, prediction, targets, labels, prediction, value)  # in place
    assert np.array_equal(prediction, delta)


@both
@pytest.mark.parametrize("name", list(reference.LOSSES))
def test_losses_of_rows(name, dtype):
    code = cpu.POISSON_RATE if name == "poisson_rate" else cpu.CODES[name]
    for shape in SHAPES:
        prediction, targets = (part.astype(dtype) for part in sample(name, shape))
        check(code, prediction, targets, np.zeros(0, np.int32), reference.LOSSES[name], dtype)


@both
@pytest.mark.parametrize("name", list(reference.CLASS_LOSSES))
def test_losses_of_classes(name, dtype):
    for shape in [(5, 10), (65, 3)]:
        prediction = np.random.default_rng(shape).normal(scale=2, size=shape).astype(dtype)
        labels = np.random.default_rng(1).integers(0, shape[1], shape[0]).astype(np.int32)
        check(cpu.CLASS_CODES[name], prediction, np.zeros((1, 0), dtype), labels, reference.CLASS_LOSSES[name], dtype)
