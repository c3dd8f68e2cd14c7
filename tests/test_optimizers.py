"""Optimisers: their constants, and whole trainings that follow PyTorch, Optax and a plain NumPy twin step by step."""

import math
from dataclasses import FrozenInstanceError
from typing import Any

import numba
import numpy as np
import pytest
import reference
import reference_updates
from reference import Array

from hotloop import (
    MLP,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    AveragedSGD,
    ExponentialDecay,
    Lion,
    RMSprop,
    Trainer,
    engine,
    trainer,
)
from hotloop.kernels import updates
from hotloop.optimizers import Optimizer, PassiveAggressive, gradient_only

RNG = np.random.default_rng(11)
X = RNG.normal(size=(40, 5)) * (RNG.random((40, 5)) < 0.7)  # with zeros, which the per-sample path leaves out
LABELS = RNG.integers(0, 3, 40)
VALUES = RNG.normal(size=(40, 3))

# Every rule with constants that are not its defaults, at rates at which a hundred steps move the weights well.
OPTIMIZERS: list[Optimizer] = [
    SGD(lr=0.05),
    SGD(lr=0.02, momentum=0.8),
    SGD(lr=0.02, momentum=0.8, nesterov=True),
    Adam(lr=0.01, beta1=0.8, beta2=0.99, eps=1e-6),
    AdamW(lr=0.01, weight_decay=0.1),
    RMSprop(lr=0.003),
    RMSprop(lr=0.003, rho=0.9, eps=1e-4, momentum=0.7),
    Adagrad(lr=0.05),
    Adadelta(lr=0.5, rho=0.8, eps=1e-4),
    Lion(lr=0.003, weight_decay=0.1),
    AveragedSGD(lr=0.05),
    AveragedSGD(lr=0.05, start=7),
]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)

# Constants ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (SGD, {"lr": 0.0}, ValueError, "lr: got 0.0, expected more than 0"),
        (SGD, {"lr": -1}, ValueError, "lr: got -1"),
        (SGD, {"lr": math.nan}, ValueError, "lr: got nan"),
        (SGD, {"lr": math.inf}, ValueError, "lr: got inf"),
        (SGD, {"lr": 10**400}, ValueError, "lr: got 1000"),
        (SGD, {"lr": "0.1"}, TypeError, "lr: got '0.1' of type str, expected a number"),
        (SGD, {"lr": True}, TypeError, "lr: got True of type bool"),
        (SGD, {"momentum": 1.0}, ValueError, "momentum: got 1, .*less than 1"),
        (SGD, {"momentum": -0.1}, ValueError, "momentum: got -0.1"),
        (SGD, {"nesterov": True}, ValueError, "nesterov: got True with momentum 0"),
        (SGD, {"nesterov": 1, "momentum": 0.5}, TypeError, "nesterov: got 1"),
        (Adam, {"lr": 0.0}, ValueError, "lr: got 0.0"),
        (Adam, {"beta1": 1}, ValueError, "beta1: got 1"),
        (Adam, {"beta2": 1.0}, ValueError, "beta2: got 1, .*never fade"),
        (Adam, {"eps": 0}, ValueError, "eps: got 0, expected more than 0"),
        (AdamW, {"beta2": 2.0}, ValueError, "beta2: got 2.0"),
        (AdamW, {"weight_decay": -0.1}, ValueError, "weight_decay: got -0.1"),
        (RMSprop, {"rho": 1.0}, ValueError, "rho: got 1"),
        (RMSprop, {"momentum": 1.0}, ValueError, "momentum: got 1"),
        (RMSprop, {"eps": 0.0}, ValueError, "eps: got 0.0"),
        (Adagrad, {"eps": "small"}, TypeError, "eps: got 'small'"),
        (Adadelta, {"rho": -1}, ValueError, "rho: got -1"),
        (Adadelta, {"eps": math.nan}, ValueError, "eps: got nan"),
        (Lion, {"beta1": 1.0}, ValueError, "beta1: got 1"),
        (Lion, {"weight_decay": math.inf}, ValueError, "weight_decay: got inf"),
        (AveragedSGD, {"start": -1}, ValueError, "start: got -1"),
        (AveragedSGD, {"start": 1.0}, TypeError, "start: got 1.0"),
        (PassiveAggressive, {"variant": 3}, ValueError, "variant: got 3, expected between 1 and 2"),
        (PassiveAggressive, {"lr": 0}, ValueError, "lr: got 0"),
    ],
)
def test_bad_constants(kind: type[Optimizer], options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kind(**options)


def test_an_optimizer_is_a_constant() -> None:
    assert SGD(lr=0.1) == SGD(lr=0.1, momentum=0.0, nesterov=False) != SGD(lr=0.2)
    assert AdamW() != Adam()
    with pytest.raises(FrozenInstanceError):
        SGD().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_optimizer
def test_state_and_rule(optimizer: Optimizer, dtype: str) -> None:
    params = np.ones(5, dtype)
    state = optimizer.init(params)
    count = updates.BUFFERS[optimizer.constants().code]
    for i, buffer in enumerate((state.first, state.second)):
        assert buffer.shape == ((5,) if i < count else (0,)) and buffer.dtype == dtype and not buffer.any()
    assert state.clock.tolist() == [0.0, 1.0, 1.0]
    rates = np.array([0.25])
    rule = optimizer.rule(rates, params, state)
    assert rule.grad is params and rule.rates is rates
    assert (rule.first, rule.second, rule.clock) == tuple(state)
    assert rule[:1] + rule[2:6] == tuple(optimizer.constants())


@pytest.mark.parametrize(
    ("lr", "momentum"), [(1, 0.0), (1, 0), (np.int64(1), 0), (np.float32(0.5), 0.0), (0.1, np.float32(0.5))]
)
def test_any_kind_of_number_runs_the_same_compiled_kernel(lr: float, momentum: float) -> None:
    """A Rule of another Numba type would compile the epoch a second time, for seconds."""
    params, one = np.zeros(5, np.float32), np.ones(1)

    def kind(optimizer: Optimizer) -> object:
        return numba.typeof(optimizer.rule(one * optimizer.lr, params, optimizer.init(params)))

    usual = kind(SGD(lr=0.1))
    assert kind(SGD(lr, momentum)) == usual == numba.typeof(gradient_only(params))
    assert {kind(optimizer) for optimizer in (*OPTIMIZERS, PassiveAggressive(1))} == {usual}
    assert kind(Adam(lr, np.float32(0.5), 0, np.float64(1))) == usual == kind(AveragedSGD(lr, start=3))


def test_the_wrong_object() -> None:
    for wrong in ("sgd", Adam):
        with pytest.raises(TypeError, match=r"optimizer: got .*, expected an optimiser such as SGD\(lr=0.05\)"):
            Trainer(optimizer=wrong)  # type: ignore[arg-type]


# Trajectories ---------------------------------------------------------------------------------------------------------


def network(loss: str = "cross_entropy", bias: bool = True, dtype: str = "float64") -> MLP:
    output = "softmax" if loss == "cross_entropy" else "tanh"
    return MLP([5, 7, 4, 3], ["tanh", "relu"], output, bias=bias, dtype=dtype, seed=9)


def numbers(model: MLP) -> Array:
    """All weights and biases in one row."""
    return reference_updates.flatten(model.weights + model.biases)


@pytest.mark.parametrize("batch_size", [1, 8, 40])
@every_optimizer
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_training_follows_the_textbook(loss: str, optimizer: Optimizer, batch_size: int) -> None:
    y, epochs = LABELS if loss == "cross_entropy" else VALUES, {1: 3, 8: 20, 40: 100}[batch_size]  # 100 steps and more
    ours, theirs, start = network(loss), network(loss), numbers(network(loss))
    schedule = ExponentialDecay(0.99)
    history = Trainer(loss, optimizer, schedule, batch_size, epochs, seed=4).fit(ours, X, y)
    losses = reference_updates.train(
        theirs, X, y, loss, optimizer, batch_size, epochs, seed=4, rate=lambda epoch: 0.99**epoch
    )
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-9)
    assert np.abs(numbers(ours) - start).max() > 0.05


@every_optimizer
def test_absent_biases_stay_zero(optimizer: Optimizer) -> None:
    ours, theirs = network(bias=False), network(bias=False)
    Trainer(optimizer=optimizer, batch_size=7, epochs=5, seed=4).fit(ours, X, LABELS)
    reference_updates.train(theirs, X, LABELS, "cross_entropy", optimizer, 7, 5, seed=4)
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-9, atol=1e-11)
    assert not any(bias.any() for bias in ours.biases)


def torch_steps(optimizer: Optimizer, batch_size: int, epochs: int, seed: int) -> list[Array]:
    """All parameters after every step of PyTorch, in the order and with the data of Hotloop."""
    torch = pytest.importorskip("torch")
    model = network()
    weights, biases = (
        [torch.tensor(np.array(a), requires_grad=True) for a in each] for each in (model.weights, model.biases)
    )
    parameters = [*weights, *biases]
    options: dict[str, Any] = {"lr": optimizer.lr}
    match optimizer:
        case SGD():
            peer = torch.optim.SGD(parameters, momentum=optimizer.momentum, nesterov=optimizer.nesterov, **options)
        case AdamW():
            options |= {"betas": (optimizer.beta1, optimizer.beta2), "eps": optimizer.eps}
            peer = torch.optim.AdamW(parameters, weight_decay=optimizer.weight_decay, **options)
        case Adam():
            peer = torch.optim.Adam(parameters, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps, **options)
        case RMSprop():
            options |= {"alpha": optimizer.rho, "eps": optimizer.eps, "momentum": optimizer.momentum}
            peer = torch.optim.RMSprop(parameters, **options)
        case Adagrad():
            peer = torch.optim.Adagrad(parameters, eps=optimizer.eps, **options)
        case Adadelta():
            peer = torch.optim.Adadelta(parameters, rho=optimizer.rho, eps=optimizer.eps, **options)
        case _:
            peer = torch.optim.SGD(parameters, **options)
    rows, labels, trace = torch.tensor(X), torch.tensor(LABELS), []
    for epoch in range(epochs):
        order = reference.permutation(seed, epoch, len(X))
        for start in range(0, len(X), batch_size):
            batch = order[start : start + batch_size]
            hidden = torch.tanh(rows[batch] @ weights[0] + biases[0])
            logits = torch.relu(hidden @ weights[1] + biases[1]) @ weights[2] + biases[2]
            peer.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels[batch]).backward()
            peer.step()
            trace.append(np.concatenate([p.detach().numpy().reshape(-1) for p in parameters]))
    return trace


@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if not isinstance(o, Lion)], ids=str)
def test_a_hundred_steps_of_pytorch(optimizer: Optimizer) -> None:
    """Batches of 8 of 40 samples: five steps an epoch."""
    trace = torch_steps(optimizer, 8, 20, seed=4)
    assert len(trace) == 100
    for epochs in (1, 2, 7, 20):
        model, peer = network(), trace[5 * epochs - 1]
        if isinstance(optimizer, AveragedSGD):  # PyTorch's own "ASGD" is another algorithm
            peer = np.mean(trace[optimizer.start : 5 * epochs], axis=0) if 5 * epochs > optimizer.start else peer
        Trainer(optimizer=optimizer, batch_size=8, epochs=epochs, seed=4).fit(model, X, LABELS)
        np.testing.assert_allclose(numbers(model), peer, rtol=1e-5, atol=1e-10)


@pytest.mark.filterwarnings("ignore")  # of the peer's own libraries
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_hundred_steps_of_optax_lion(weight_decay: float) -> None:
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    optimizer = Lion(lr=0.003, beta1=0.8, beta2=0.95, weight_decay=weight_decay)
    peer = optax.lion(optimizer.lr, optimizer.beta1, optimizer.beta2, weight_decay=weight_decay)
    ours, theirs = network(), network()
    Trainer(optimizer=optimizer, batch_size=8, epochs=20, seed=4).fit(ours, X, LABELS)
    with jax.enable_x64(True):
        names = [*theirs.activations, theirs.output]
        params = numbers(theirs)
        state, steps = peer.init(params), 0
        for epoch in range(20):
            order = reference.permutation(4, epoch, len(X))
            for start in range(0, len(X), 8):
                batch = order[start : start + 8]
                _, dweights, dbiases = reference.network_gradients(
                    theirs.weights, theirs.biases, names, "cross_entropy", X[batch], LABELS[batch]
                )
                change, state = peer.update(reference_updates.flatten(dweights + dbiases), state, params)
                params, steps = np.asarray(params + change), steps + 1
                reference_updates.scatter(params, theirs.weights + theirs.biases)
    assert steps == 100
    np.testing.assert_allclose(numbers(ours), params, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [1, 8, None])
@every_optimizer
def test_the_same_bits_for_threads_and_kinds_of_input(
    monkeypatch: pytest.MonkeyPatch, optimizer: Optimizer, batch_size: int | None, dtype: str
) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    monkeypatch.setattr(trainer, "available_threads", lambda: 4)
    found = set()
    for threads, below, rows in ((1, 0.0, X), (3, 0.0, X), (1, 2.0, X), (4, 2.0, X), (2, 0.0, sparse.csr_array(X))):
        monkeypatch.setattr(engine, "_sparse_below", lambda width, window, below=below: below)
        model = network(dtype=dtype)
        history = Trainer(None, optimizer, None, batch_size, 3, seed=4, threads=threads).fit(model, rows, LABELS)
        found.add((model.params.tobytes(), tuple(history["loss"])))
    assert len(found) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_optimizer
def test_batches_above_one_block(optimizer: Optimizer, dtype: str) -> None:
    """1100 rows are three blocks of one batch; the last batch has 100 rows."""
    rng = np.random.default_rng(3)
    rows, labels = rng.normal(size=(1200, 5)), rng.integers(0, 3, 1200)
    ours, theirs = network(dtype=dtype), network()
    theirs.params[:] = ours.params
    Trainer(optimizer=optimizer, batch_size=1100, epochs=2, seed=4).fit(ours, rows, labels)
    reference_updates.train(theirs, rows, labels, "cross_entropy", optimizer, 1100, 2, seed=4)
    tolerance = 2e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=tolerance, atol=tolerance / 10)


@every_optimizer
def test_one_sample_one_feature_one_layer(optimizer: Optimizer) -> None:
    for batch_size in (1, None):
        ours, theirs = (MLP([1, 1], dtype="float64", seed=2) for _ in range(2))
        x, y = np.array([[1.5]]), np.array([-2.0])
        Trainer("mse", optimizer, batch_size=batch_size, epochs=30).fit(ours, x, y)
        reference_updates.train(theirs, x, y[:, None], "mse", optimizer, 1, 30)
        np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-9)


@every_optimizer
def test_what_is_remembered_does_not_survive_a_fit(optimizer: Optimizer) -> None:
    again, fresh = network(), network()
    one = Trainer(optimizer=optimizer, batch_size=8, epochs=3, seed=4)
    one.fit(again, X, LABELS)
    again.params[:] = fresh.params
    one.fit(again, X, LABELS)
    Trainer(optimizer=optimizer, batch_size=8, epochs=3, seed=4).fit(fresh, X, LABELS)
    assert again.params.tobytes() == fresh.params.tobytes()


# Averaging ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 3, 9, 50])
def test_the_result_of_averaging_is_the_mean_of_the_walk(start: int) -> None:
    """Steps of the same walk by plain SGD, one epoch of one full batch each."""
    walk, sgd = [], network()
    for _ in range(12):
        Trainer(optimizer=SGD(lr=0.05), batch_size=None, epochs=1, shuffle=False).fit(sgd, X, LABELS)
        walk.append(sgd.params.copy())
    model = network()
    averaged = AveragedSGD(lr=0.05, start=start)
    history = Trainer(optimizer=averaged, batch_size=None, epochs=12, shuffle=False, threads=1).fit(
        model, X, LABELS, validation_data=(X, LABELS)
    )
    exact = np.mean(walk[start:], axis=0) if start < 12 else walk[-1]
    np.testing.assert_allclose(model.params, exact, rtol=1e-12, atol=1e-15)
    assert history["val_loss"][-1] == Trainer().evaluate(model, X, LABELS)["loss"]  # the mean is validated


def test_averaging_refuses_what_would_not_be_the_mean_of_the_steps() -> None:
    model = network()
    before = model.params.copy()
    with pytest.raises(ValueError, match="optimizer: AveragedSGD got max_norm beside it"):
        Trainer(optimizer=AveragedSGD(), max_norm=1.0).fit(model, X, LABELS)
    with pytest.raises(ValueError, match="optimizer: AveragedSGD gives its mean at the end of a fit"):
        Trainer(optimizer=AveragedSGD()).learn_one(model, X[0], 1)
    assert np.array_equal(model.params, before) and model.loss is None


# Passive-aggressive steps ---------------------------------------------------------------------------------------------

SIGNS = np.where(X @ RNG.normal(size=5) + 0.3 * RNG.normal(size=40) > 0, 1, -1)


def linear(k: int = 1, bias: bool = False, dtype: str = "float64") -> MLP:
    return MLP([5, k], bias=bias, init="zeros", dtype=dtype)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # scikit-learn 1.8 moved it into SGDClassifier
@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize("lr", [0.01, 1.0, 1e20])
def test_passive_aggressive_is_scikit_learns(lr: float, variant: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    loss = ("hinge", "squared_hinge")[variant - 1]
    peer = linear_model.PassiveAggressiveClassifier(
        C=lr, fit_intercept=False, max_iter=3, tol=None, shuffle=False, loss=loss
    )
    model = linear()
    rows, signs = X[X.any(axis=1)], SIGNS[X.any(axis=1)]
    optimizer = PassiveAggressive(lr, variant)
    Trainer("hinge", optimizer, batch_size=1, epochs=3, shuffle=False).fit(model, rows, signs)
    peer.fit(rows, signs)
    np.testing.assert_allclose(model.weights[0][:, 0], peer.coef_[0], rtol=1e-9)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("variant", [1, 2])
def test_passive_aggressive_regression_is_scikit_learns(variant: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    loss = ("epsilon_insensitive", "squared_epsilon_insensitive")[variant - 1]
    peer = linear_model.PassiveAggressiveRegressor(
        C=0.3, fit_intercept=False, max_iter=3, tol=None, shuffle=False, loss=loss, epsilon=0.0
    )
    model = linear()
    rows, values = X[X.any(axis=1)], VALUES[X.any(axis=1), 0]
    optimizer = PassiveAggressive(0.3, variant)
    Trainer("mae", optimizer, batch_size=1, epochs=3, shuffle=False).fit(model, rows, values)
    peer.fit(rows, values)
    np.testing.assert_allclose(model.weights[0][:, 0], peer.coef_, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", [1, 2])
def test_passive_aggressive_by_hand(variant: int, dtype: str) -> None:
    """w = 0: the loss of a first sample is 1, its gradient -y (x, 1), of squared norm |x|^2 + 1."""
    x, y, c = np.array([[1.0, -2.0, 0.0, 3.0, 0.0]]), np.array([-1]), 0.04
    model = linear(bias=True, dtype=dtype)
    Trainer("hinge", PassiveAggressive(c, variant), batch_size=1, epochs=1).fit(model, x, y)
    square = 1 + 4 + 9 + 1
    tau = min(c, 1 / square) if variant == 1 else 1 / (square + 1 / (2 * c))
    rtol = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(model.weights[0][:, 0], -tau * x[0], rtol=rtol)
    np.testing.assert_allclose(model.biases[0], [-tau], rtol=rtol)
    ended = linear(bias=True, dtype=dtype)
    Trainer("hinge", PassiveAggressive(1e30), batch_size=1, epochs=1).fit(ended, x, y)
    assert Trainer("hinge").evaluate(ended, x, y)["loss"] == pytest.approx(0, abs=1e-6)  # an unbounded step ends it


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize(("loss", "k"), [("hinge", 1), ("mae", 1), ("hinge", 3)])
def test_passive_aggressive_follows_the_paper(loss: str, k: int, variant: int, bias: bool) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    y = LABELS if k == 3 else SIGNS if loss == "hinge" else VALUES[:, 0]
    rows, theirs, optimizer = X.copy(), linear(k, bias), PassiveAggressive(0.2, variant)
    rows[6] = 0  # a sample without inputs moves the bias, or nothing
    losses = reference_updates.train(theirs, rows, y if k == 3 else y[:, None], loss, optimizer, 1, 3, seed=4)
    for given in (rows, sparse.csr_array(rows)):
        ours = linear(k, bias)
        history = Trainer(loss, optimizer, batch_size=1, epochs=3, seed=4).fit(ours, given, y)
        np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(history["loss"], losses, rtol=1e-9)


@pytest.mark.parametrize("variant", [1, 2])
def test_passive_aggressive_rests_at_rate_zero(variant: int) -> None:
    optimizer, found = PassiveAggressive(1.0, variant), []
    for epochs in (1, 4):
        model = linear(bias=True)
        history = Trainer("hinge", optimizer, lambda epoch, epochs: float(epoch == 0), 1, epochs).fit(model, X, SIGNS)
        found.append(model.params.tobytes())
    assert found[0] == found[1] and model.params.any() and history.stopped == "finished"


def test_the_weight_of_a_sample_scales_its_aggressiveness() -> None:
    """A loss w times as large, with its gradient, is met by the step of C = w lr."""
    weighed, plain = linear(), linear()
    x, y = X[:1] * 0.1, SIGNS[:1]
    Trainer("hinge", PassiveAggressive(0.1), batch_size=1, epochs=1).fit(weighed, x, y, sample_weight=[3.0])
    Trainer("hinge", PassiveAggressive(0.3), batch_size=1, epochs=1).fit(plain, x, y)
    np.testing.assert_allclose(weighed.params, plain.params, rtol=1e-12)


@pytest.mark.parametrize(
    ("model", "y", "options", "message"),
    [
        (MLP([5, 4, 1]), SIGNS, {"loss": "hinge"}, "one layer"),
        (MLP([5, 1]), SIGNS, {"loss": "hinge", "batch_size": 8}, "batch_size 1"),
        (MLP([5, 1]), SIGNS, {"loss": "hinge", "batch_size": None}, "batch_size 1"),
        (MLP([5, 3]), np.sign(VALUES), {"loss": "hinge"}, "one output or class labels"),
        (MLP([5, 3]), VALUES, {"loss": "mae"}, "one output or class labels"),
        (MLP([5, 1]), SIGNS, {"loss": "hinge", "l2": 0.1}, "no penalties"),
        (MLP([5, 1]), SIGNS, {"loss": "hinge", "clip_norm": 1.0}, "no penalties, clipping"),
        (MLP([5, 1]), SIGNS, {"loss": "hinge", "max_norm": 1.0}, "no penalties"),
        (MLP([5, 1]), SIGNS, {"loss": "hinge", "input_noise": 0.1}, "input dropout or noise"),
        (MLP([5, 1]), SIGNS, {"loss": "hinge", "dropout": [0.5]}, "input dropout or noise"),
        (MLP([5, 1]), SIGNS, {"loss": "mse"}, "got loss 'mse', expected hinge, or mae"),
        (MLP([5, 1]), SIGNS, {"loss": "squared_hinge"}, "got loss 'squared_hinge'"),
        (MLP([5, 1], output="tanh"), SIGNS, {"loss": "hinge"}, "of the plain output"),
        (MLP([5, 1], output="sigmoid"), SIGNS > 0, {"loss": "mae"}, "of the plain output"),
    ],
)
def test_passive_aggressive_refuses(model: MLP, y: Array, options: dict[str, Any], message: str) -> None:
    before = model.params.copy()
    with pytest.raises(ValueError, match=f"optimizer: PassiveAggressive .*{message}"):
        Trainer(**{"batch_size": 1, "optimizer": PassiveAggressive()} | options).fit(model, X, y)
    assert np.array_equal(model.params, before) and model.loss is None


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "optimizer",
    [SGD(0.05, 0.9), Adam(0.01), RMSprop(0.001), Lion(0.001), Adagrad(0.01)],
    ids=lambda one: type(one).__name__,
)
def test_weights_moved_as_soon_as_their_gradient_is_summed_have_the_bits_of_a_whole_gradient(
    optimizer: Optimizer, dtype: str, density: float, threads: int
) -> None:
    """A bound that nothing reaches asks for the whole gradient first."""
    random = np.random.default_rng(5)
    X = random.normal(size=(150, 300)) * (random.random((150, 300)) < density)
    y, trained = random.integers(0, 3, 150), []
    for bound in (None, 1e30):
        model = MLP([300, 70, 17, 3], ["tanh", "relu"], "softmax", bias=threads == 1, dtype=dtype, seed=1)
        Trainer(optimizer=optimizer, batch_size=40, epochs=3, threads=threads, clip_norm=bound).fit(model, X, y)
        trained.append(model.params.tobytes())
    assert trained[0] == trained[1]
