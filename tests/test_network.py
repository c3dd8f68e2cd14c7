"""Forward and backward through all layers: after a gradient the workspace holds every value and every delta."""

import numpy as np
import pytest
import reference

from hotloop import MLP, inputs
from hotloop.engine import Engine
from hotloop.kernels import activations
from hotloop.kernels.plan import SLOPE, STRIDE, VALUE
from hotloop.objectives import bind
from hotloop.optimizers import gradient_only

RNG = np.random.default_rng(13)


def workspace(model: MLP, X: np.ndarray, y: np.ndarray, loss: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """One gradient of the whole batch; the plan, the workspace, the gradient, the summed loss."""
    machine = Engine(model._network, inputs.dense(X), bind(loss, model, y, len(X)), len(X), 1, False)
    grad = np.zeros_like(model.params)
    total = machine.run(0, len(X), gradient_only(grad))
    return machine.network.plan, machine.scratch.work, grad, total


def rows(plan: np.ndarray, work: np.ndarray, layer: int, what: int, n: int) -> np.ndarray:
    """Values or deltas of one layer, padding included."""
    start, stride = plan[layer, what], plan[layer, STRIDE]
    return work[start : start + n * stride].reshape(n, stride)


def twin_deltas(model: MLP, X: np.ndarray, y: np.ndarray, loss: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """z and dloss/dz of every layer, for the mean loss, by the textbook."""
    names = [*model.activations, model.output]
    zs = reference.network_forward(model.weights, model.biases, names, X)
    delta = np.array([reference.output_loss(loss, model.output, z, t)[1] for z, t in zip(zs[-1], y, strict=True)])
    deltas = [delta / len(X)]
    for layer in range(len(zs) - 1, 0, -1):
        back = reference.dense_input_gradient(deltas[0], model.weights[layer])
        deltas.insert(0, back * reference.slope(names[layer - 1], zs[layer - 1]))
    return zs, deltas


@pytest.mark.parametrize("n", [1, 5, 12, 64])
@pytest.mark.parametrize("sizes", [[7, 3], [5, 17, 3], [256, 16, 33, 3], [3, 1, 1, 3]], ids=str)
@pytest.mark.parametrize(("output", "loss"), [("softmax", "cross_entropy"), ("softmax", "mse"), ("tanh", "mae")])
def test_values_and_deltas_of_every_layer(sizes: list[int], n: int, output: str, loss: str) -> None:
    model = MLP(sizes, "silu", output, dtype="float64", seed=5)
    for bias in model.biases:
        bias[:] = RNG.normal(size=bias.shape)
    X = RNG.normal(size=(n, sizes[0]))
    y = RNG.integers(0, 3, n) if loss == "cross_entropy" else RNG.normal(size=(n, 3))
    plan, work, grad, total = workspace(model, X, y, loss)
    zs, deltas = twin_deltas(model, X, y, loss)
    np.testing.assert_array_equal(rows(plan, work, 0, VALUE, n)[:, : sizes[0]], X)
    for layer in range(1, len(sizes)):
        if layer < len(sizes) - 1:
            value = rows(plan, work, layer, VALUE, n)
            np.testing.assert_allclose(value[:, : sizes[layer]], reference.activate("silu", zs[layer - 1]), rtol=1e-11)
            assert not value[:, sizes[layer] :].any()
        delta = rows(plan, work, layer, SLOPE, n)
        np.testing.assert_allclose(delta[:, : sizes[layer]], deltas[layer - 1], rtol=1e-9, atol=1e-15)
        assert not delta[:, sizes[layer] :].any()  # what the padding of the weights would be moved by
    found = MLP(sizes, "silu", dtype="float64")
    found.params[:] = grad
    inputs = [X, *(reference.activate("silu", z) for z in zs[:-1])]
    for layer, (x, delta) in enumerate(zip(inputs, deltas, strict=True)):
        dweight, dbias = reference.dense_weight_gradient(x, delta)
        np.testing.assert_allclose(found.weights[layer], dweight, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(found.biases[layer], dbias, rtol=1e-9, atol=1e-14)
    assert total / n == pytest.approx(
        np.mean([reference.output_loss(loss, output, z, t)[0] for z, t in zip(zs[-1], y, strict=True)]), rel=1e-12
    )


@pytest.mark.parametrize("hidden", [name for name in activations.CODES if name not in ("softmax", "step")])
def test_every_activation_below_the_output(hidden: str) -> None:
    model = MLP([4, 6, 5, 2], hidden, dtype="float64", seed=1)
    X, y = RNG.normal(size=(9, 4)), RNG.normal(size=(9, 2))
    plan, work, _, _ = workspace(model, X, y, "mse")
    _, deltas = twin_deltas(model, X, y, "mse")
    for layer in (1, 2, 3):
        found = rows(plan, work, layer, SLOPE, 9)[:, : model.sizes[layer]]
        np.testing.assert_allclose(found, deltas[layer - 1], rtol=1e-10, atol=1e-15)


def test_a_hidden_step_lets_nothing_through() -> None:
    model = MLP([4, 6, 2], "step", dtype="float64", seed=1)
    _, _, grad, _ = workspace(model, RNG.normal(size=(9, 4)), RNG.normal(size=(9, 2)), "mse")
    found = MLP([4, 6, 2], dtype="float64")
    found.params[:] = grad
    assert not found.weights[0].any() and found.weights[1].any()


@pytest.mark.parametrize("bias", [True, False])
def test_absent_biases_get_no_gradient(bias: bool) -> None:
    model = MLP([4, 6, 2], bias=bias, dtype="float64", seed=1)
    _, _, grad, _ = workspace(model, RNG.normal(size=(9, 4)), RNG.normal(size=(9, 2)), "mse")
    found = MLP([4, 6, 2], dtype="float64")
    found.params[:] = grad
    assert all(part.any() == bias for part in found.biases) and all(part.any() for part in found.weights)
