"""Gradients of whole networks, through the public door, against central differences of the twin."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import reference
from reference import Array

from hotloop import MLP, Trainer

HIDDEN = [name for name in reference.ACTIVATIONS if name != "step"]
KINKED = ("relu", "leaky_relu", "elu")
STEP = 1e-5  # of a central difference
CLEARANCE = 1e-3  # least distance of any number from a kink: no step reaches that far

# (loss, output, targets): "row" is a value for each output, "class" an integer for each sample.
CASES = [
    *[(loss, output, "row") for loss in ("mse", "mae", "huber") for output in [*HIDDEN, "softmax"]],
    *[(loss, output, "row") for loss in ("hinge", "squared_hinge") for output in ("identity", "tanh", "step")],
    *[(loss, output, "class") for loss in ("hinge", "squared_hinge") for output in ("identity", "tanh")],
    *[("logistic", output, "row") for output in ("identity", "sigmoid", "step")],
    *[("cross_entropy", output, kind) for output in ("identity", "softmax") for kind in ("row", "class")],
    *[("perceptron", output, "row") for output in ("identity", "step")],
    ("perceptron", "identity", "class"),
    *[("poisson", output, "row") for output in ("identity", "softplus")],
]


class Problem(NamedTuple):
    """A small network with all its numbers, and data for it."""

    weights: list[Array]
    biases: list[Array]
    activations: list[str]  # one for each layer
    loss: str
    x: Array
    y: Array

    def model(self, dtype: str = "float64") -> MLP:
        """The same network in Hotloop."""
        sizes = [len(self.weights[0]), *(len(bias) for bias in self.biases)]
        model = MLP(sizes, activation=self.activations[:-1], output=self.activations[-1], dtype=dtype)
        for view, values in zip(model.weights + model.biases, self.weights + self.biases, strict=True):
            view[...] = values
        return model


def make_problem(sizes: list[int], hidden: str, case: tuple[str, str, str], seed: int, n: int = 3) -> Problem:
    """Random weights, biases, inputs, and targets that the loss is made for."""
    loss, output, kind = case
    rng = np.random.default_rng(seed)
    pairs = list(pairwise(sizes))
    weights = [rng.normal(size=pair) * 1.5 / np.sqrt(pair[0]) for pair in pairs]
    biases = [rng.normal(size=fan_out) * 0.5 for _, fan_out in pairs]
    x, k = rng.normal(size=(n, sizes[0])), sizes[-1]
    noise = rng.normal(size=(n, k))
    if kind == "class":
        y = rng.integers(0, k, size=n)
    elif loss in ("hinge", "squared_hinge"):
        y = np.sign(noise)
    elif loss in ("logistic", "perceptron"):
        y = (noise > 0) * 1.0
    elif loss == "cross_entropy":
        y = reference.softmax(noise)
    elif loss == "poisson":
        y = rng.poisson(2.0, size=(n, k)) * 1.0
    else:
        y = noise
    return Problem(weights, biases, [hidden] * (len(pairs) - 1) + [output], loss, x, y)


def distance_from_kinks(problem: Problem) -> float:
    """The least distance of any pre-activation, error or margin from a point where the loss has no slope."""
    weights, biases, activations, loss, x, y = problem
    zs = reference.network_forward(weights, biases, activations, x)
    gaps = [abs(z) for name, z in zip(activations, zs, strict=True) if name in KINKED]
    reads_z = loss in reference.FROM_LOGITS or activations[-1] == "step"
    prediction = zs[-1] if reads_z else reference.activate(activations[-1], zs[-1])
    if loss == "mae":
        gaps.append(abs(prediction - y))
    elif loss == "huber":
        gaps.append(abs(abs(prediction - y) - 1))
    elif y.ndim == 1 and loss in ("hinge", "squared_hinge", "perceptron"):
        own = np.arange(prediction.shape[1]) == y[:, None]
        rivals = np.sort(prediction[~own].reshape(len(x), -1))
        margin = 0 if loss == "perceptron" else 1
        gaps += [abs(margin + rivals[:, -1] - prediction[own]), np.diff(rivals)]
    elif loss in ("hinge", "squared_hinge"):
        gaps.append(abs(1 - y * prediction))
    elif loss == "perceptron":
        gaps.append(abs(prediction))
    return min((float(gap.min()) for gap in gaps), default=np.inf)


def smooth_problem(sizes: list[int], hidden: str, case: tuple[str, str, str]) -> Problem:
    """The first seed whose numbers all stay clear of kinks."""
    problems = (make_problem(sizes, hidden, case, seed) for seed in range(200))
    return next(problem for problem in problems if distance_from_kinks(problem) > CLEARANCE)


def central_differences(problem: Problem) -> list[Array]:
    """dloss/dparameter of the twin, for each parameter of each weight matrix, then of each bias."""
    weights, biases, activations, loss, x, y = problem
    gradients = []
    for array in weights + biases:
        gradient = np.empty_like(array)
        for at in np.ndindex(array.shape):
            here = array[at]
            array[at] = here + STEP
            up = reference.network_loss(weights, biases, activations, loss, x, y)
            array[at] = here - STEP
            down = reference.network_loss(weights, biases, activations, loss, x, y)
            array[at] = here
            gradient[at] = (up - down) / (2 * STEP)
        gradients.append(gradient)
    return gradients


def hotloop_gradients(problem: Problem, dtype: str = "float64") -> tuple[float, list[Array]]:
    """Loss and gradients by Trainer.gradients; one output means targets (n,), as users pass them."""
    y = problem.y[:, 0] if problem.y.shape[1:] == (1,) else problem.y
    loss, dweights, dbiases = Trainer(loss=problem.loss).gradients(problem.model(dtype), problem.x.astype(dtype), y)
    return loss, [*dweights, *dbiases]


def assert_agree(gradients: list[Array], exact: list[Array], rtol: float, floor: float) -> None:
    """Each element within rtol of itself, or within floor of the largest element of the network."""
    largest = max(abs(gradient).max() for gradient in exact)
    for gradient, wanted in zip(gradients, exact, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=rtol, atol=floor * largest)


@pytest.mark.parametrize("case", CASES, ids="-".join)
@pytest.mark.parametrize("hidden_sizes", [(), (4,), (4, 3)], ids=["1_layer", "2_layers", "3_layers"])
def test_every_gradient_is_the_central_difference(hidden_sizes: tuple[int, ...], case: tuple[str, str, str]) -> None:
    for hidden in HIDDEN if hidden_sizes else ["identity"]:
        problem = smooth_problem([2, *hidden_sizes, 3], hidden, case)
        loss, gradients = hotloop_gradients(problem)
        np.testing.assert_allclose(loss, reference.network_loss(*problem), rtol=1e-12, err_msg=hidden)
        assert_agree(gradients, central_differences(problem), rtol=1e-6, floor=1e-8)
        assert_agree(gradients, [g for part in reference.network_gradients(*problem)[1:] for g in part], 1e-10, 1e-13)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case[2] == "row" and case[1] != "softmax" and case[0] != "cross_entropy"],
    ids="-".join,
)
def test_one_output(case: tuple[str, str, str]) -> None:
    problem = smooth_problem([3, 4, 1], "tanh", case)
    loss, gradients = hotloop_gradients(problem)
    np.testing.assert_allclose(loss, reference.network_loss(*problem), rtol=1e-12)
    assert_agree(gradients, central_differences(problem), rtol=1e-6, floor=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_batch_gradient_is_the_mean_of_the_samples(case: tuple[str, str, str], dtype: str) -> None:
    problem = make_problem([7, 9, 17, 3], "tanh", case, seed=1, n=13)
    loss, gradients = hotloop_gradients(problem, dtype)
    singles = [
        hotloop_gradients(problem._replace(x=problem.x[i : i + 1], y=problem.y[i : i + 1]), dtype) for i in range(13)
    ]
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(loss, np.mean([value for value, _ in singles]), rtol=20 * eps)
    means = [np.mean([single[i] for _, single in singles], axis=0, dtype=np.float64) for i in range(len(gradients))]
    assert_agree(gradients, means, rtol=20 * eps, floor=20 * eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 31, 512, 600, 1025])
def test_any_number_of_rows_and_odd_sizes(n: int, dtype: str) -> None:
    problem = make_problem([33, 17, 100, 7], "silu", ("cross_entropy", "softmax", "class"), seed=2, n=n)
    loss, gradients = hotloop_gradients(problem, dtype)
    exact_loss, dweights, dbiases = reference.network_gradients(*problem)
    eps = np.finfo(dtype).eps
    assert [gradient.shape for gradient in gradients] == [array.shape for array in problem.weights + problem.biases]
    np.testing.assert_allclose(loss, exact_loss, rtol=100 * eps)
    assert_agree(gradients, dweights + dbiases, rtol=100 * eps, floor=100 * eps)


def test_gradients_change_nothing() -> None:
    problem = make_problem([5, 6, 3], "gelu", ("mse", "identity", "row"), seed=3)
    model = problem.model()
    params, x, y = model.params.copy(), problem.x.copy(), problem.y.copy()
    first = Trainer(loss="mse").gradients(model, x, y)
    again = Trainer(loss="mse").gradients(model, x, y)
    assert np.array_equal(model.params, params)
    assert np.array_equal(x, problem.x) and np.array_equal(y, problem.y)
    assert first[0] == again[0]
    for left, right in zip(first[1] + first[2], again[1] + again[2], strict=True):
        assert left.tobytes() == right.tobytes()
