"""Optimisers: their constants, and whole trainings that follow a plain NumPy twin step by step."""

import math
from dataclasses import FrozenInstanceError

import numba
import numpy as np
import pytest
import reference
from reference import Array

from hotloop import MLP, SGD, Trainer
from hotloop.kernels import epochs

RNG = np.random.default_rng(11)
X = RNG.normal(size=(21, 5)) * (RNG.random((21, 5)) < 0.7)  # with zeros, which the per-sample path leaves out
LABELS = RNG.integers(0, 3, 21)
VALUES = RNG.normal(size=(21, 3))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lr": 0.0}, ValueError, "lr: got 0.0, expected more than 0"),
        ({"lr": -1}, ValueError, "lr: got -1"),
        ({"lr": math.nan}, ValueError, "lr: got nan"),
        ({"lr": math.inf}, ValueError, "lr: got inf"),
        ({"lr": 10**400}, ValueError, "lr: got 1000"),
        ({"lr": "0.1"}, TypeError, "lr: got '0.1' of type str, expected a number"),
        ({"lr": True}, TypeError, "lr: got True of type bool"),
        ({"momentum": 1.0}, ValueError, "momentum: got 1, .*less than 1"),
        ({"momentum": -0.1}, ValueError, "momentum: got -0.1"),
        ({"nesterov": True}, ValueError, "nesterov: got True with momentum 0"),
        ({"nesterov": 1, "momentum": 0.5}, TypeError, "nesterov: got 1"),
    ],
)
def test_bad_constants(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SGD(**options)  # type: ignore[arg-type]


def test_sgd_is_a_constant() -> None:
    assert SGD(lr=0.1) == SGD(lr=0.1, momentum=0.0, nesterov=False) != SGD(lr=0.2)
    with pytest.raises(FrozenInstanceError):
        SGD().lr = 1.0  # type: ignore[misc]


def test_state_and_rule() -> None:
    params = np.zeros(5, np.float32)
    assert SGD().init(params).shape == (0,)
    velocity = SGD(momentum=0.5).init(params)
    assert velocity.shape == (5,) and velocity.dtype == np.float32 and not velocity.any()
    for optimizer, code in (
        (SGD(), epochs.SGD),
        (SGD(momentum=0.5), epochs.MOMENTUM),
        (SGD(momentum=0.5, nesterov=True), epochs.NESTEROV),
    ):
        rule = optimizer.rule(0.25, params, velocity)
        assert (rule.code, rule.lr, rule.momentum) == (code, 0.25, optimizer.momentum)
        assert rule.grad is params and rule.state is velocity


@pytest.mark.parametrize(
    ("lr", "momentum"), [(1, 0.0), (1, 0), (np.int64(1), 0), (np.float32(0.5), 0.0), (0.1, np.float32(0.5))]
)
def test_any_kind_of_number_runs_the_same_compiled_kernel(lr: float, momentum: float) -> None:
    """A Rule of another Numba type would compile the epoch a second time, for seconds."""
    params, optimizer = np.zeros(5, np.float32), SGD(lr, momentum)
    usual = SGD(lr=0.1).rule(0.1, params, params)
    assert numba.typeof(optimizer.rule(optimizer.lr * 1.0, params, params)) == numba.typeof(usual)


def twin(model: MLP, y: Array, loss: str, optimizer: SGD, batch_size: int, trainings: int) -> list[float]:
    """Train weights and biases of a float64 model in place by the textbook; the losses of the epochs."""
    arrays = model.weights + model.biases
    velocities = [np.zeros_like(array) for array in arrays]
    losses = []
    for epoch in range(trainings):
        order, total = reference.permutation(4, epoch, len(X)), 0.0
        for start in range(0, len(X), batch_size):
            batch = order[start : start + batch_size]
            value, dweights, dbiases = reference.network_gradients(
                model.weights, model.biases, [*model.activations, model.output], loss, X[batch], y[batch]
            )
            total += value * len(batch)
            for array, grad, velocity in zip(arrays, dweights + dbiases, velocities, strict=True):
                velocity *= optimizer.momentum
                velocity += grad
                array -= optimizer.lr * (grad + optimizer.momentum * velocity if optimizer.nesterov else velocity)
        losses.append(total / len(X))
    return losses


@pytest.mark.parametrize("batch_size", [1, 4, 21])
@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.05), SGD(lr=0.02, momentum=0.8), SGD(lr=0.02, momentum=0.8, nesterov=True)], ids=str
)
@pytest.mark.parametrize(("loss", "output"), [("cross_entropy", "softmax"), ("mse", "tanh")])
def test_training_follows_the_textbook(loss: str, output: str, optimizer: SGD, batch_size: int) -> None:
    y = LABELS if loss == "cross_entropy" else VALUES
    trainings = {1: 5, 4: 12, 21: 60}[batch_size]  # 60 steps and more
    ours, theirs = (MLP([5, 7, 4, 3], ["tanh", "relu"], output, dtype="float64", seed=9) for _ in range(2))
    history = Trainer(loss, optimizer, batch_size=batch_size, epochs=trainings, seed=4).fit(ours, X, y)
    losses = twin(theirs, y, loss, optimizer, batch_size, trainings)
    np.testing.assert_allclose(ours.params, theirs.params, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-10)
    untrained = MLP([5, 7, 4, 3], ["tanh", "relu"], output, dtype="float64", seed=9)
    assert np.abs(ours.params - untrained.params).max() > 0.05


def test_the_velocity_does_not_survive_a_fit() -> None:
    once, twice = MLP([5, 3], seed=1), MLP([5, 3], seed=1)
    trainer = Trainer("mse", SGD(lr=0.01, momentum=0.9), batch_size=None, epochs=1, shuffle=False)
    trainer.fit(once, X, VALUES)
    first = once.params.copy()
    trainer.fit(once, X, VALUES)
    Trainer("mse", SGD(lr=0.01, momentum=0.9), batch_size=None, epochs=2, shuffle=False).fit(twice, X, VALUES)
    plain = MLP([5, 3], seed=1)
    plain.params[:] = first
    Trainer("mse", SGD(lr=0.01), batch_size=None, epochs=1, shuffle=False).fit(plain, X, VALUES)
    np.testing.assert_allclose(once.params, plain.params, rtol=1e-5, atol=1e-7)  # a first step has no momentum
    assert np.abs(once.params - twice.params).max() > 1e-4


def test_the_wrong_object() -> None:
    with pytest.raises(TypeError, match=r"optimizer: got 'sgd', expected an optimiser such as SGD\(lr=0.05\)"):
        Trainer(optimizer="sgd")  # type: ignore[arg-type]
