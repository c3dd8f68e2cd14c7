"""The largest stable learning rate, where it is known exactly, and where training shows it."""

import warnings

import numpy as np
import pytest
import reference

from hotloop import MLP, SGD, DivergenceWarning, Trainer, inputs
from hotloop.curvature import gradient, largest_stable_lr
from hotloop.objectives import bind

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
Y = np.array([6.0, 15.0])
RNG = np.random.default_rng(3)


def stable(
    model: MLP, X: np.ndarray, y: np.ndarray, batch_size: int, momentum: float = 0.0, loss: str | None = None
) -> float | None:
    """largest_stable_lr for data as users have them."""
    X = np.ascontiguousarray(X, model.dtype)
    return largest_stable_lr(model._network, inputs.dense(X), bind(loss, model, y, len(X)), batch_size, momentum)


def largest_eigenvalue(X: np.ndarray, bias: bool) -> float:
    """Of the Hessian of the mean squared error of a linear unit: 2/n X^T X."""
    X = np.hstack([X, np.ones((len(X), 1))]) if bias else X
    return float(np.linalg.eigvalsh(2 / len(X) * X.T @ X).max())


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-6), ("float32", 1e-3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_regression(dtype: str, rtol: float, bias: bool) -> None:
    expected = 2 / largest_eigenvalue(X, bias)
    assert stable(MLP([3, 1], bias=bias, dtype=dtype), X, Y, 2) == pytest.approx(expected, rel=rtol)
    if not bias:
        assert expected == pytest.approx(0.0221, abs=5e-5)


def test_momentum_allows_more() -> None:
    model = MLP([3, 1], dtype="float64")
    plain, heavy = stable(model, X, Y, 2), stable(model, X, Y, 2, momentum=0.5)
    assert heavy == pytest.approx(1.5 * plain)


def test_the_worst_of_some_batches_counts() -> None:
    rows = RNG.normal(size=(40, 3))
    rows[17] *= 10
    expected = 2 / max(largest_eigenvalue(rows[start : start + 5], False) for start in range(0, 40, 5))
    model = MLP([3, 1], bias=False, dtype="float64")
    assert stable(model, rows, rows[:, 0], 5) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("loss", "output"), [("mae", "identity"), ("perceptron", "step")])
def test_no_curvature_no_answer(loss: str, output: str) -> None:
    model = MLP([3, 1], output=output, dtype="float64", seed=1)
    assert stable(model, X, np.array([0.0, 1.0]), 2, loss=loss) is None


def test_nothing_is_changed() -> None:
    model = MLP([3, 4, 1], seed=1)
    before = model.params.copy()
    stable(model, X, Y, 1)
    assert model.params.tobytes() == before.tobytes() and model.loss is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_gradient_descent_converges_just_below_it_and_not_above(scale: float) -> None:
    rows = RNG.normal(size=(30, 4)) * scale
    y = rows @ [1.0, -2.0, 0.5, 3.0] + RNG.normal(size=30) * scale
    limit = stable(MLP([4, 1], bias=False, init="zeros", dtype="float64"), rows, y, 30)
    below, above = (MLP([4, 1], bias=False, init="zeros", dtype="float64") for _ in range(2))
    losses = Trainer(optimizer=SGD(lr=0.97 * limit), batch_size=None, epochs=2000).fit(below, rows, y)["loss"]
    assert losses[-1] <= min(losses) * (1 + 1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)
        history = Trainer(optimizer=SGD(lr=1.03 * limit), batch_size=None, epochs=2000).fit(above, rows, y)
    assert history.stopped == "diverged"


def test_gradient_is_that_of_the_twin() -> None:
    model = MLP([3, 5, 4], activation="tanh", output="softmax", dtype="float64", seed=2)
    rows, labels = RNG.normal(size=(600, 3)), RNG.integers(0, 4, 600)
    loss, grad = gradient(model._network, inputs.dense(rows), bind(None, model, labels, 600))
    expected, dweights, dbiases = reference.network_gradients(
        model.weights, model.biases, ["tanh", "softmax"], "cross_entropy", rows, labels
    )
    assert loss == pytest.approx(expected, rel=1e-12)
    found = MLP([3, 5, 4], activation="tanh", dtype="float64")
    found.params[:] = grad
    for ours, theirs in zip(found.weights + found.biases, dweights + dbiases, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-14)
    assert np.count_nonzero(grad) <= model.n_params  # nothing in the padding
