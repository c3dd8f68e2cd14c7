"""check_gradients: right slopes pass, wrong ones are named, kinks are no errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit

from hotloop import MLP, SGD, Activation, Loss, Trainer, check_gradients
from hotloop.data import load_digits
from hotloop.kernels import activations, losses

RNG = np.random.default_rng(3)
X, LABELS, VALUES = RNG.normal(size=(12, 5)), np.arange(12) % 3, RNG.normal(size=(12, 3))


def part(function: Callable[..., Any], which: int) -> Callable[..., Any]:
    """The value or the slope of one of the library's activations."""
    return njit(lambda z: function(z)[which])  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [name for name in activations.CODES if name not in ("softmax", "step")])
def test_the_librarys_activations_pass(name: str) -> None:
    function = getattr(activations, name)
    assert check_gradients(Activation(part(function, 0), part(function, 1), name)) < 5e-7


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "hinge", "squared_hinge", "logistic", "cross_entropy"])
def test_the_librarys_losses_pass(name: str) -> None:
    assert check_gradients(Loss(row=getattr(losses, name), name=name)) < 1e-7


@pytest.mark.parametrize("name", losses.CLASS_CODES)
def test_the_librarys_losses_of_classes_pass(name: str) -> None:
    assert check_gradients(Loss(row=getattr(losses, f"{name}_class"), classes=True)) < 1e-7


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", ["relu", "tanh", "silu"])
@pytest.mark.parametrize(
    ("loss", "output", "y"),
    [
        ("cross_entropy", "softmax", LABELS),
        ("mse", "identity", VALUES),
        ("hinge", "identity", LABELS),
        ("mae", "tanh", VALUES),
    ],
)
def test_models_pass_with_penalties(loss: str, output: str, y: Any, hidden: str, dtype: str) -> None:
    model = MLP([5, 7, 4, 3], hidden, output, dtype=dtype, seed=1)
    before = model.params.copy()
    for options in ({}, {"l1": 0.1, "l2": 0.2}):
        assert check_gradients(model, X, y, Trainer(loss, **options)) < 1e-6
    assert np.array_equal(model.params, before) and model.loss is None


def test_a_model_of_all_kinks_passes() -> None:
    """Every pre-activation of zeros lies on the kink of a ReLU, every weight on that of l1."""
    model = MLP([5, 4, 3], init="zeros")
    assert check_gradients(model, X, VALUES, Trainer("mae", l1=0.3)) < 1e-6


def test_absent_biases_are_left_out() -> None:
    assert check_gradients(MLP([5, 4, 3], bias=False, seed=1), X, VALUES) < 1e-6


def test_a_trained_model_with_preparation_and_classes() -> None:
    digits, labels = load_digits()
    model = MLP([64, 3, 10], output="softmax", seed=1)
    Trainer(optimizer=SGD(lr=0.1), epochs=2).fit(model, digits, labels)
    assert check_gradients(model, digits[:40], labels[:40]) < 1e-6


def test_a_wrong_slope_is_named() -> None:
    square = Activation(lambda z: z * z, lambda z: z, "square")
    with pytest.raises(ValueError, match=r"Activation\(square\) at z = -8: the derivative given is -8, .* say -16"):
        check_gradients(square)
    with pytest.raises(ValueError, match=r"at z = 0.5: the derivative given is 0.5, central differences say 1;"):
        check_gradients(square, [0.0, 0.5])
    assert check_gradients(square, [0.0]) == 0.0
    with pytest.raises(ValueError, match=r"weights\[0\]\[0, 0\]: the derivative given is"):
        check_gradients(MLP([5, 4, 3], square, seed=1), X, VALUES)


def test_slopes_of_kinks_must_lie_between_those_of_both_sides() -> None:
    for slope, right in ((0.0, True), (0.7, True), (1.0, True), (1.001, False), (-0.01, False)):
        relu = Activation(lambda z: max(z, 0.0 * z), lambda z, s=slope: 1.0 if z > 0 else (0.0 if z < 0 else s))
        if right:
            assert check_gradients(relu) < 1e-6
        else:
            with pytest.raises(ValueError, match="at z = 0: the derivative given is"):
                check_gradients(relu)


def test_a_wrong_loss_is_named() -> None:
    with pytest.raises(ValueError, match=r"Loss\(cube\), delta\[0\] for prediction .* and truth"):
        check_gradients(Loss(lambda p, t: (p - t) ** 3, lambda p, t: (p - t) ** 2, name="cube"))


def test_a_derivative_that_is_not_written_is_found() -> None:
    @njit
    def forgetful(prediction, target, k, delta):  # type: ignore[no-untyped-def]
        total = 0.0
        for j in range(k):
            total += (prediction[j] - target[j]) ** 2
            if j != 2:
                delta[j] = 2 * (prediction[j] - target[j])
        return total

    with pytest.raises(ValueError, match=r"delta\[2\] for prediction .* given is nan"):
        check_gradients(Loss(row=forgetful))


def test_predictions_of_ones_own() -> None:
    """A loss of probabilities has no value elsewhere: such places are left out, unless there is no other."""
    log = Loss(lambda p, t: -t * np.log(p), lambda p, t: -t / p, name="log")
    assert check_gradients(log) < 1e-6
    assert check_gradients(log, [[0.2, 0.8]], [[1.0, 0.0]]) < 1e-8
    with pytest.raises(ValueError, match=r"Loss\(log\): got no finite value at any place"):
        check_gradients(log, [[-1.0, -2.0]], [[1.0, 0.5]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3,), TypeError, "subject: got int, expected an Activation, a Loss or an MLP"),
        ((MLP([5, 1]),), TypeError, "X: a model is checked on data"),
        ((MLP([5, 1]), X, VALUES), ValueError, "y: got shape"),
        ((MLP([5, 1]), X, VALUES[:, 0], None, 0.0), ValueError, "tolerance: got 0.0"),
        ((Loss(lambda p, t: p, lambda p, t: 1.0), X), TypeError, "X: a loss is checked on predictions X and targets y"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_gradients(*arguments)
