"""Inference against its twins, and the checks for finite numbers."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop import MLP, inputs, layout
from hotloop.engine import replan
from hotloop.kernels import activations, inference, losses
from hotloop.kernels.plan import Network

RNG = np.random.default_rng(0)
DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", activations.CODES)
def test_predict_is_the_twins_forward(name: str, dtype: str) -> None:
    model = MLP([9, 17, 5], name if name != "softmax" else "tanh", name, dtype=dtype, seed=2)
    X = RNG.normal(size=(70, 9)).astype(dtype)
    for part in model.biases:
        part[:] = RNG.normal(size=part.shape)
    out, block = np.full((70, 5), np.nan, dtype), 16
    plan, size = replan(model._network, activations.CODES[name], block)
    work = layout.aligned(size, dtype)
    inference.predict(Network(plan, model.params), inputs.dense(X).arrays, 0, 41, block, work, out)
    assert np.isnan(out[41:]).all()
    inference.predict(Network(plan, model.params), inputs.dense(X).arrays, 41, 70, block, work, out)
    names = [*model.activations, name]
    z = reference.network_forward(model.weights, model.biases, names, X)[-1]
    expected = reference.activate(name, z)
    if name == "step":  # a z of about 0 may round to either side
        expected = np.where(np.abs(z) < 1e-5, out, expected)
    rtol, atol = (1e-4, 1e-5) if dtype == "float32" else (1e-12, 1e-13)
    np.testing.assert_allclose(out, expected, rtol=rtol, atol=atol)
    assert not (name == "softmax" and dtype == "float64") or np.allclose(out.sum(axis=1), 1, rtol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", activations.CODES)
def test_one_row_is_predicted_as_many_are(name: str, dtype: str) -> None:
    model = MLP([9, 17, 5], name if name != "softmax" else "tanh", name, dtype=dtype, seed=2)
    X, out = RNG.normal(size=(70, 9)).astype(dtype), np.empty(5, dtype)
    expected = model.forward(X)
    plan, size = replan(model._network, activations.CODES[name], 1)
    for x, row in zip(X, expected, strict=True):
        assert inference.predict_row(plan, model.params, x, size, out) == row.argmax()
        assert out.tobytes() == row.tobytes()
    assert inference.predict_row(plan, np.full_like(model.params, np.nan), X[0], size, out) in (-1, 0)


@given(st.integers(1, 9000), st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_all_finite(n: int, data: st.DataObject) -> None:
    for dtype in (np.float32, np.float64):
        values = np.full(n, np.finfo(dtype).max, dtype)
        assert inference.all_finite(values)
        values[data.draw(st.integers(0, n - 1))] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        assert not inference.all_finite(values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", reference.LOSSES)
def test_total_loss_of_rows(loss: str, dtype: str) -> None:
    outputs, targets = RNG.uniform(0.1, 2, (6, 3)).astype(dtype), RNG.integers(0, 2, (6, 3)).astype(dtype)
    if loss.endswith("hinge"):
        targets = targets * 2 - 1
    code = losses.ready(losses.POISSON_RATE if loss == "poisson_rate" else losses.CODES[loss], dtype)
    kept = outputs.copy()
    each = [reference.LOSSES[loss](p, t)[0] for p, t in zip(outputs, targets, strict=True)]
    for weights in (np.empty(0, dtype), RNG.uniform(0, 3, 6).astype(dtype)):
        total = inference.total_loss(code, outputs, targets, np.empty(0, np.int32), weights, np.empty(3, dtype))
        expected = np.dot(each, weights if len(weights) else np.ones(6))
        assert total == pytest.approx(expected, rel=1e-5 if dtype == "float32" else 1e-12)
    np.testing.assert_array_equal(outputs, kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", reference.CLASS_LOSSES)
def test_total_loss_of_classes(loss: str, dtype: str) -> None:
    outputs, labels = RNG.normal(size=(6, 3)).astype(dtype), RNG.integers(0, 3, 6).astype(np.int32)
    delta, none = np.empty(3, dtype), np.empty((0, 3), dtype)
    code = losses.ready(losses.CLASS_CODES[loss], dtype)
    total = inference.total_loss(code, outputs, none, labels, none.reshape(-1), delta)
    expected = sum(reference.CLASS_LOSSES[loss](p, int(t))[0] for p, t in zip(outputs, labels, strict=True))
    assert total == pytest.approx(expected, rel=1e-5 if dtype == "float32" else 1e-12)
