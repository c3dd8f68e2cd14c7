"""Regularisation in whole trainings: penalties, clipping, norms, dropout, noise, weights of samples, smoothing."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import reference
import reference_updates
from reference import Array
from reference_regularize import Regular, penalty, smoothed, unit_factors

from hotloop import MLP, SGD, Adam, Trainer, engine, layout, trainer
from hotloop.optimizers import Optimizer
from hotloop.regularization import Regularization

RNG = np.random.default_rng(19)
N, FEATURES = 41, 9
X = RNG.normal(size=(N, FEATURES)) * (RNG.random((N, FEATURES)) < 0.5)
LABELS = RNG.integers(0, 3, N)
VALUES = RNG.normal(size=(N, 3))
SIZES = [FEATURES, 17, 5, 3]

batches = pytest.mark.parametrize("batch_size", [1, 8, None])
both = pytest.mark.parametrize("dtype", ["float32", "float64"])

# The options of a trainer, and the same for the twin.
KINDS: dict[str, tuple[dict[str, Any], Regular]] = {
    "l1": ({"l1": 0.01}, Regular(l1=0.01)),
    "l2": ({"l2": 0.05}, Regular(l2=0.05)),
    "elastic net": ({"l1": 0.01, "l2": 0.05}, Regular(l1=0.01, l2=0.05)),
    "clip_value": ({"clip_value": 0.02}, Regular(clip_value=0.02)),
    "clip_norm": ({"clip_norm": 0.2}, Regular(clip_norm=0.2)),
    "max_norm": ({"max_norm": 0.6}, Regular(max_norm=0.6)),
    "hidden dropout": ({"dropout": 0.3}, Regular(dropout=[0, 0.3, 0.3])),
    "one dropout": ({"dropout": [0, 0, 0.5]}, Regular(dropout=[0, 0, 0.5])),
    "input dropout": ({"dropout": [0.2, 0.0, 0.4]}, Regular(dropout=[0.2, 0.0, 0.4])),
    "noise": ({"input_noise": 0.3}, Regular(noise=0.3)),
}
ALL: dict[str, Any] = {"l1": 0.01, "l2": 0.05, "clip_value": 0.5, "clip_norm": 0.6, "max_norm": 1.2}
ALL |= {"dropout": [0.1, 0.2, 0.3], "input_noise": 0.2}
KINDS["all"] = ALL, Regular(0.01, 0.05, 0.5, 0.6, 1.2, [0.1, 0.2, 0.3], 0.2)
every_kind = pytest.mark.parametrize("kind", KINDS)


def network(dtype: str = "float64", bias: bool = True, sizes: list[int] = SIZES) -> MLP:
    return MLP(sizes, "tanh", "softmax" if sizes[-1] > 1 else "identity", bias=bias, dtype=dtype, seed=6)


def numbers(model: MLP) -> Array:
    return reference_updates.flatten(model.weights + model.biases)


# Against the twin -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), Adam(lr=0.01)], ids=["SGD", "Adam"])
@batches
@every_kind
def test_training_follows_the_twin(kind: str, batch_size: int | None, optimizer: Optimizer, bias: bool) -> None:
    options, regular = KINDS[kind]
    epochs = {1: 2, 8: 4, None: 12}[batch_size]
    ours, theirs, plain = (network(bias=bias) for _ in range(3))
    history = Trainer(None, optimizer, None, batch_size, epochs, seed=5, **options).fit(ours, X, LABELS)
    losses = reference_updates.train(theirs, X, LABELS, "cross_entropy", optimizer, batch_size or N, epochs, 5, regular)
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-10)  # the penalties are no part of it
    Trainer(None, optimizer, None, batch_size, epochs, seed=5).fit(plain, X, LABELS)
    assert np.abs(ours.params - plain.params).max() > 1e-3


@pytest.mark.parametrize("sizes", [[1, 1], [1, 3, 1], [FEATURES, 1]], ids=str)
@every_kind
def test_small_networks(kind: str, sizes: list[int]) -> None:
    """One feature, one unit, no hidden layer, one sample."""
    options, regular = KINDS[kind]
    layers = len(sizes) - 1
    if regular.dropout is not None:
        options, regular = options | {"dropout": [0.3] * layers}, regular._replace(dropout=[0.3] * layers)
    for n, batch_size in ((1, None), (1, 1), (7, 3)):
        x, y = X[:n, : sizes[0]], VALUES[:n, :1] + 5.0
        ours, theirs = network(sizes=sizes), network(sizes=sizes)
        Trainer("mse", SGD(lr=0.05), None, batch_size, 5, seed=5, **options).fit(ours, x, y)
        reference_updates.train(theirs, x, y, "mse", SGD(lr=0.05), batch_size or n, 5, 5, regular)
        np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-9, atol=1e-12)


@both
@every_kind
def test_batches_above_one_block(kind: str, dtype: str) -> None:
    """A batch of 1100 rows is three blocks of one batch: positions in the epoch run on, the step is one."""
    options, regular = KINDS[kind]
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(1150, FEATURES)), rng.integers(0, 3, 1150)
    ours, theirs = network(dtype), network()
    theirs.params[:] = ours.params
    Trainer(None, SGD(lr=0.5), None, 1100, 1, seed=5, **options).fit(ours, x, y)
    reference_updates.train(theirs, x, y, "cross_entropy", SGD(lr=0.5), 1100, 1, 5, regular)
    tolerance = 2e-5 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=tolerance, atol=tolerance)


# The same bits --------------------------------------------------------------------------------------------------------


@both
@batches
@every_kind
def test_the_same_bits_for_threads_pieces_and_kinds_of_input(
    monkeypatch: pytest.MonkeyPatch, kind: str, batch_size: int | None, dtype: str
) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    monkeypatch.setattr(trainer, "available_threads", lambda: 4)
    found = set()
    given = sparse.csr_array(X)
    for threads, below, seconds, rows in (
        (1, 0.0, 0.02, X),
        (1, 2.0, 1e-9, X),  # a piece is one step
        (3, 0.0, 1e-9, given),
        (4, 2.0, 0.02, given),
        (2, 0.0, 0.02, X),
    ):
        monkeypatch.setattr(engine, "PIECE_SECONDS", seconds)
        monkeypatch.setattr(engine, "_sparse_below", lambda width, window, below=below: below)
        model = network(dtype)
        options = {"threads": threads, "validation_split": 0.1} | KINDS[kind][0]
        history = Trainer(None, SGD(lr=0.1), None, batch_size, 3, seed=5, **options).fit(model, rows, LABELS)
        found.add((model.params.tobytes(), tuple(history["loss"]), tuple(history["val_loss"])))
    assert len(found) == 1


@both
@pytest.mark.parametrize("dropout", [0.4, [0.0, 0.5, 0.0]], ids=str)
@pytest.mark.parametrize("below", [0.0, 2.0])
def test_per_sample_dropout_is_that_of_batches_of_one(
    monkeypatch: pytest.MonkeyPatch, below: float, dropout: Any, dtype: str
) -> None:
    monkeypatch.setattr(engine, "_sparse_below", lambda width, window: below)
    monkeypatch.setattr(layout, "WINDOW", 1)
    kernels: list[bool] = []

    def make(
        network: Any, rows: Any, objective: Any, size: int, threads: int, per_sample: bool, *rest: Any, **named: Any
    ) -> engine.Engine:
        assert per_sample
        kernels.append(len(kernels) == 0)
        return engine.Engine(network, rows, objective, size, threads, kernels[-1], *rest, **named)

    monkeypatch.setattr(trainer, "Engine", make)
    found = []
    for _ in range(2):
        model = network(dtype)
        one = Trainer(None, SGD(lr=0.05), batch_size=1, epochs=3, seed=5, dropout=dropout)
        found.append(np.concatenate([one.fit(model, X, LABELS)["loss"], model.params]))
    np.testing.assert_allclose(*found, rtol=0, atol=2e-6 if dtype == "float32" else 1e-13)
    assert kernels == [True, False]


# Penalties ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_with_penalties_are_central_differences(l1: float, l2: float, bias: bool) -> None:
    model, one = network(bias=bias), Trainer(l1=l1, l2=l2)
    loss, dweights, dbiases = one.gradients(model, X, LABELS)
    plain = Trainer().evaluate(model, X, LABELS)["loss"]
    assert loss == pytest.approx(plain + penalty(model.weights, l1, l2), rel=1e-13)
    views = list(zip(model.weights, dweights, strict=True))
    views += list(zip(model.biases, dbiases, strict=True)) if bias else []
    for view, slopes in views:
        for at in np.ndindex(view.shape):
            here, differences = view[at], []
            for move in (1e-5, -1e-5):
                view[at] = here + move
                loss = Trainer().evaluate(model, X, LABELS)["loss"]
                differences.append(loss + penalty(model.weights, l1, l2))
            view[at] = here
            assert slopes[at] == pytest.approx((differences[0] - differences[1]) / 2e-5, rel=1e-5, abs=1e-8)
    assert bias or not any(dbias.any() for dbias in dbiases)


def test_a_weight_of_zero_is_left_alone_by_l1() -> None:
    model = MLP([3, 2], init="zeros", dtype="float64")
    _, [dweight], _ = Trainer("mse", l1=5.0).gradients(model, np.eye(3), np.zeros((3, 2)))
    assert not dweight.any()


def test_ridge_regression_has_a_closed_form() -> None:
    """mean (X w - y)^2 + l2/2 |w|^2 is least where (2/n X'X + l2) w = 2/n X'y."""
    model = MLP([FEATURES, 1], bias=False, dtype="float64")
    Trainer("mse", SGD(lr=0.2, momentum=0.9), batch_size=None, epochs=1500, l2=0.3).fit(model, X, VALUES[:, 0])
    exact = np.linalg.solve(2 / N * X.T @ X + 0.3 * np.eye(FEATURES), 2 / N * X.T @ VALUES[:, 0])
    np.testing.assert_allclose(model.weights[0][:, 0], exact, rtol=1e-9)


def test_l1_makes_weights_vanish() -> None:
    model = MLP([FEATURES, 1], bias=False, dtype="float64", seed=1)
    y = 2.0 * X[:, 0]
    Trainer("mse", SGD(lr=0.01), batch_size=None, epochs=3000, l1=0.2).fit(model, X, y)
    weight = np.abs(model.weights[0][:, 0])
    assert weight[0] > 1.0 and weight[1:].max() < 0.02


# Clipping and norms ---------------------------------------------------------------------------------------------------


def first_step(dtype: str = "float64", **options: Any) -> list[Array]:
    """The negative change of all weights and biases in one full-batch step of rate 1: the gradient as it was used."""
    model = network(dtype)
    before = [part.copy() for part in model.weights + model.biases]
    Trainer(None, SGD(lr=1.0), batch_size=None, epochs=1, **options).fit(model, X, LABELS)
    return [old - new for old, new in zip(before, model.weights + model.biases, strict=True)]


@both
@pytest.mark.parametrize("bound", [0.01, 0.3, 100.0])
def test_clipped_norm_is_that_of_pytorch(bound: float, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    parameters = [torch.zeros(grad.shape, dtype=torch.float64, requires_grad=True) for grad in first_step()]
    for parameter, grad in zip(parameters, first_step(), strict=True):
        parameter.grad = torch.tensor(grad)
    torch.nn.utils.clip_grad_norm_(parameters, bound)
    for found, parameter in zip(first_step(dtype, clip_norm=bound), parameters, strict=True):
        # PyTorch divides by the norm + 1e-6
        np.testing.assert_allclose(found, parameter.grad, rtol=2e-6 / bound if bound < 1 else 1e-5, atol=1e-7)


@both
def test_clipped_values_are_those_of_pytorch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    parameters = [torch.zeros(grad.shape, dtype=torch.float64, requires_grad=True) for grad in first_step()]
    for parameter, grad in zip(parameters, first_step(), strict=True):
        parameter.grad = torch.tensor(grad)
    torch.nn.utils.clip_grad_value_(parameters, 0.01)
    found = first_step(dtype, clip_value=0.01)
    for step, parameter in zip(found, parameters, strict=True):
        np.testing.assert_allclose(step, parameter.grad, rtol=1e-5, atol=1e-7)
    assert any((abs(step) > 0.00999).any() for step in found)


def test_penalties_come_first_then_values_then_the_norm() -> None:
    model = network()
    _, dweights, dbiases = Trainer(l1=0.02, l2=0.4).gradients(model, X, LABELS)
    grads = [np.clip(grad, -0.05, 0.05) for grad in dweights + dbiases]
    norm = np.sqrt(sum((grad**2).sum() for grad in grads))
    assert norm > 0.2
    found = first_step(l1=0.02, l2=0.4, clip_value=0.05, clip_norm=0.2)
    for step, grad in zip(found, grads, strict=True):
        np.testing.assert_allclose(step, grad * 0.2 / norm, rtol=1e-11, atol=1e-15)


@both
def test_no_unit_has_more_than_the_largest_norm(dtype: str) -> None:
    model = network(dtype)
    Trainer(None, SGD(lr=0.5), batch_size=4, epochs=10, max_norm=0.5).fit(model, X, LABELS)
    norms = np.concatenate([np.linalg.norm(weight.astype(float), axis=0) for weight in model.weights])
    assert norms.max() <= 0.5 * (1 + 1e-6) and (norms > 0.45).sum() > 10
    assert max(abs(bias).max() for bias in model.biases) > 0.01  # biases are free


def test_a_huge_gradient_is_clipped_and_a_bad_one_is_seen() -> None:
    model = MLP([2, 1], dtype="float32", seed=1)
    x, y = np.full((4, 2), 1e6), np.full(4, 1e12)
    history = Trainer("mse", SGD(lr=0.1), batch_size=None, epochs=3, clip_norm=1.0).fit(model, x, y)
    assert history.stopped == "finished" and np.isfinite(model.params).all()


# Dropout and noise ----------------------------------------------------------------------------------------------------


def dropped(share: float, epoch: int, n: int = 400) -> Array:
    """Which of 60 hidden units the twin drops in each of n rows; that trainings do as the twin is shown below."""
    factors = unit_factors(3, epoch, range(n), [5, 60], [0.0, share])
    assert factors is not None
    return factors[1] == 0


def test_the_expected_share_is_dropped_differently_in_every_epoch_and_row() -> None:
    masks = [dropped(0.3, epoch) for epoch in range(2)]
    for mask in masks:  # 24,000 draws: a deviation of 0.003
        assert mask.mean() == pytest.approx(0.3, abs=0.012)
        assert mask.mean(axis=0).std() == pytest.approx(np.sqrt(0.21 / 400), rel=0.3)
        assert mask.mean(axis=1).std() == pytest.approx(np.sqrt(0.21 / 60), rel=0.3)
    assert (masks[0] & masks[1]).mean() == pytest.approx(0.09, abs=0.01)  # independent
    assert np.corrcoef(masks[0][:-1].ravel(), masks[0][1:].ravel())[0, 1] == pytest.approx(0, abs=0.03)


@both
@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_masks_of_a_training_are_those_of_the_twin(batch_size: int, dtype: str) -> None:
    """Linear units with weights of one: a prediction is the sum of the factors, and the loss tells it."""
    n = 32
    for dropout in ([0.0, 0.4], [0.4, 0.0]) if batch_size > 1 else ([0.0, 0.4],):
        model = MLP([10, 10, 1], "identity", bias=False, dtype=dtype)
        model.weights[0][:], model.weights[1][:] = np.eye(10), 1.0
        one = Trainer("mae", SGD(lr=1e-30), None, batch_size, 3, seed=3, shuffle=False, dropout=dropout)
        history = one.fit(model, np.ones((n, 10)), np.full(n, -1.0))
        for epoch, loss in enumerate(history["loss"]):
            factors = unit_factors(3, epoch, range(n), [10, 10], dropout)
            assert factors is not None
            assert loss == pytest.approx((factors[0] * factors[1]).sum(axis=1).mean() + 1, rel=1e-5)
        assert len(set(history["loss"])) == 3  # other masks in every epoch


@pytest.mark.parametrize("options", [{"dropout": [0.5, 0.5, 0.5]}, {"input_noise": 3.0}], ids=str)
def test_predictions_know_nothing_of_it(options: dict[str, Any]) -> None:
    model = network()
    one = Trainer(epochs=2, validation_split=0.2, **options)
    history = one.fit(model, X, LABELS)
    names = [*model.activations, model.output]
    z = reference.network_forward(model.weights, model.biases, names, X)[-1]
    np.testing.assert_allclose(model.forward(X), reference.softmax(z), rtol=1e-10)
    assert one.evaluate(model, X, LABELS) == Trainer().evaluate(model, X, LABELS)
    assert one.gradients(model, X, LABELS)[0] == Trainer().gradients(model, X, LABELS)[0]
    assert np.isfinite(history["val_loss"]).all()


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"dropout": [0.5, 0, 0]}, {"input_noise": 0.5}], ids=str)
def test_another_seed_draws_others(options: dict[str, Any]) -> None:
    found = set()
    for seed in (1, 2, 1):
        model = network()
        Trainer(epochs=2, shuffle=False, seed=seed, **options).fit(model, X, LABELS)
        found.add(model.params.tobytes())
    assert len(found) == 2


def test_noise_has_the_moments_of_a_normal_distribution() -> None:
    """Every input is 0 but for the noise e, the weight 1 and the rate next to nothing: losses tell the moments of e."""
    deviation, n = 0.5, 20_000
    model = MLP([1, 1], bias=False, dtype="float64", init="zeros")
    model.weights[0][:] = 1.0
    one = Trainer("mse", SGD(lr=1e-300), None, 50, 2, seed=3, input_noise=deviation)
    seconds = one.fit(model, np.zeros((n, 1)), np.zeros(n))["loss"]  # mean e^2
    firsts = one.fit(model, np.zeros((n, 1)), np.full(n, 1.0))["loss"]  # mean (e - 1)^2 = mean e^2 - 2 mean e + 1
    for second, first in zip(seconds, firsts, strict=True):
        mean = (second + 1 - first) / 2
        assert mean == pytest.approx(0, abs=4 * deviation / np.sqrt(n))
        assert second == pytest.approx(deviation**2, rel=4 * np.sqrt(2 / n))
    assert seconds[0] != seconds[1]


def test_noise_is_not_lazy() -> None:
    """A sparse first layer under momentum moves only the weights that a batch meets; noise meets all of them."""
    sparse = pytest.importorskip("scipy.sparse")
    rows = np.zeros((30, 400))
    rows[np.arange(30), np.arange(30) * 7] = 1.0
    y, found = np.arange(30) % 3, []
    for given in (rows, sparse.csr_array(rows)):
        model = MLP([400, 4, 3], output="softmax", dtype="float64", seed=1)
        Trainer(optimizer=SGD(0.1, 0.9), batch_size=3, epochs=2, input_noise=0.2).fit(model, given, y)
        found.append(model.params.tobytes())
    assert found[0] == found[1]


# Weights of samples and classes ---------------------------------------------------------------------------------------


def weighted(batch_size: int | None, dtype: str, rows: Any, **weights: Any) -> tuple[MLP, Any]:
    model = network(dtype)
    history = Trainer(None, SGD(lr=0.2), None, batch_size, 3, seed=5).fit(model, rows, LABELS, **weights)
    return model, history


@pytest.mark.parametrize("form", ["dense", "sparse"])
@batches
def test_sample_weights_follow_the_twin(batch_size: int | None, form: str) -> None:
    weights = RNG.uniform(0, 3, N) * (RNG.random(N) < 0.8)
    rows = X if form == "dense" else pytest.importorskip("scipy.sparse").csr_array(X)
    model, history = weighted(batch_size, "float64", rows, sample_weight=weights)
    theirs = network()
    losses = reference_updates.train(
        theirs, X, LABELS, "cross_entropy", SGD(lr=0.2), batch_size or N, 3, 5, sample_weight=weights
    )
    np.testing.assert_allclose(numbers(model), numbers(theirs), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-10)


@both
@batches
def test_weights_of_one_change_nothing(batch_size: int | None, dtype: str) -> None:
    plain, _ = weighted(batch_size, dtype, X)
    for weights in ({"sample_weight": np.ones(N)}, {"sample_weight": [1] * N}, {"class_weight": {}}):
        assert weighted(batch_size, dtype, X, **weights)[0].params.tobytes() == plain.params.tobytes()
    assert weighted(batch_size, dtype, X, class_weight={0: 1, 2: 1.0})[0].params.tobytes() == plain.params.tobytes()


def test_a_weight_of_k_is_k_repeats() -> None:
    """Full batch: the sum of the losses is the same, their number is not, and the rate makes up for it."""
    repeats = RNG.integers(0, 4, N)
    one, two = network(), network()
    Trainer(None, SGD(lr=0.1 * N), batch_size=None, epochs=10).fit(one, X, LABELS, sample_weight=repeats)
    rows, labels = np.repeat(X, repeats, axis=0), np.repeat(LABELS, repeats)
    Trainer(None, SGD(lr=0.1 * len(rows)), batch_size=None, epochs=10).fit(two, rows, labels)
    np.testing.assert_allclose(numbers(one), numbers(two), rtol=1e-8)


@pytest.mark.parametrize("output", ["softmax", "identity"])
@pytest.mark.parametrize("batch_size", [8, None])
def test_class_weights_are_those_of_pytorch(batch_size: int | None, output: str) -> None:
    """PyTorch's reduction "sum" over n: its "mean" divides by the sum of the weights instead."""
    torch = pytest.importorskip("torch")
    model = MLP([FEATURES, 3], output=output, dtype="float64", seed=6)
    shares = {0: 0.5, 1: 2.0, 2: 1.0}
    parameters = [torch.tensor(np.array(part), requires_grad=True) for part in model.weights + model.biases]
    peer = torch.optim.SGD(parameters, lr=0.2)
    size = batch_size or N
    for epoch in range(3):
        order = reference.permutation(5, epoch, N)
        for batch in (order[start : start + size] for start in range(0, N, size)):
            logits = torch.tensor(X[batch]) @ parameters[0] + parameters[1]
            options = {"weight": torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64), "reduction": "sum"}
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS[batch]), **options) / len(batch)
            peer.zero_grad()
            loss.backward()
            peer.step()
    for form in (LABELS, np.eye(3)[LABELS]):
        ours = MLP([FEATURES, 3], output=output, dtype="float64", seed=6)
        Trainer("cross_entropy", SGD(lr=0.2), None, batch_size, 3, seed=5).fit(ours, X, form, class_weight=shares)
        for part, parameter in zip(ours.weights + ours.biases, parameters, strict=True):
            np.testing.assert_allclose(part, parameter.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("output", "loss", "y"),
    [
        ("softmax", None, LABELS),
        ("softmax", None, np.eye(3)[LABELS]),
        ("identity", "hinge", LABELS),
        ("sigmoid", None, (LABELS == 1) * 1),
        ("identity", "hinge", np.where(LABELS == 1, 1, -1)),
        ("step", None, LABELS == 1),
    ],
)
def test_balanced_classes(output: str, loss: str | None, y: Array) -> None:
    numbers_of = y.argmax(axis=1) if y.ndim == 2 else y
    values, counts = np.unique(numbers_of, return_counts=True)
    balanced = {value.item(): N / (len(values) * count) for value, count in zip(values, counts, strict=True)}
    if pytest.importorskip("sklearn"):
        from sklearn.utils.class_weight import compute_class_weight

        np.testing.assert_allclose(
            list(balanced.values()), compute_class_weight("balanced", classes=values, y=numbers_of)
        )
    by_hand = np.array([balanced[value] for value in numbers_of.tolist()])
    found = set()
    for weights in ({"class_weight": "balanced"}, {"class_weight": balanced}, {"sample_weight": by_hand}):
        model = MLP([FEATURES, 3 if len(values) == 3 else 1], output=output, seed=1)
        Trainer(loss, SGD(lr=0.1), epochs=2).fit(model, X, y, **weights)
        found.add(model.params.tobytes())
    assert len(found) == 1
    both_kinds = MLP([FEATURES, 3 if len(values) == 3 else 1], output=output, seed=1)
    Trainer(loss, SGD(lr=0.1), epochs=2).fit(both_kinds, X, y, sample_weight=by_hand, class_weight="balanced")
    assert both_kinds.params.tobytes() not in found  # one multiplies the other


def test_weights_go_with_their_samples_into_training_and_not_into_validation() -> None:
    weights = np.arange(N) + 1.0
    model, twin = network(), network()
    one = Trainer(None, SGD(lr=0.1), None, None, 1, seed=5, validation_split=0.25)
    history = one.fit(model, X, LABELS, sample_weight=weights)
    held = reference.permutation(5, 2**32 - 1, N)[: round(N * 0.25)]
    rest = np.setdiff1d(np.arange(N), held)
    Trainer(None, SGD(lr=0.1), batch_size=None, epochs=1).fit(twin, X[rest], LABELS[rest], sample_weight=weights[rest])
    np.testing.assert_allclose(numbers(model), numbers(twin), rtol=1e-12)
    assert history["val_loss"][0] == pytest.approx(Trainer().evaluate(model, X[held], LABELS[held])["loss"], rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sample_weight": np.ones(N - 1)}, ValueError, r"sample_weight: got shape \(40,\), expected \(41,\)"),
        ({"sample_weight": np.ones((N, 1))}, ValueError, "sample_weight: got shape"),
        ({"sample_weight": -np.ones(N)}, ValueError, "sample_weight: got a negative weight"),
        ({"sample_weight": np.zeros(N)}, ValueError, "sample_weight: .* only zeros"),
        ({"sample_weight": np.full(N, np.nan)}, ValueError, "sample_weight: got nan at"),
        ({"sample_weight": np.full(N, 1e300)}, ValueError, "sample_weight: got 1e\\+300 at .*too large for float32"),
        ({"sample_weight": ["a"] * N}, TypeError, "sample_weight: got dtype"),
        ({"class_weight": "even"}, ValueError, "class_weight: got 'even'.*balanced"),
        ({"class_weight": [1, 2, 3]}, TypeError, "class_weight: got .*expected 'balanced' or a dict"),
        ({"class_weight": {3: 1.0}}, ValueError, "class_weight: got class 3, expected some of 0, 1, 2"),
        ({"class_weight": {"a": 1.0}}, ValueError, "class_weight: got class 'a'"),
        ({"class_weight": {0: -1.0}}, ValueError, r"class_weight\[0\]: got -1"),
        ({"class_weight": {0: "2"}}, TypeError, r"class_weight\[0\]: got '2'"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, ValueError, "class_weight: .* all 0"),
    ],
)
def test_bad_weights(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model = network("float32")
    before = model.params.copy()
    with pytest.raises(error, match=message):
        Trainer().fit(model, X, LABELS, **arguments)
    assert np.array_equal(model.params, before) and model.loss is None


def test_values_have_no_classes_to_weigh() -> None:
    for k, output in ((3, "identity"), (1, "identity"), (3, "sigmoid")):
        y = VALUES[:, :k] if output == "identity" else VALUES > 0
        with pytest.raises(ValueError, match=f"class_weight: loss .* with {k} outputs has no classes"):
            Trainer().fit(MLP([FEATURES, k], output=output), X, y, class_weight="balanced")


# Label smoothing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("batch_size", [1, 8, None])
def test_smoothed_labels_are_those_of_pytorch(batch_size: int | None, share: float) -> None:
    torch = pytest.importorskip("torch")
    model = MLP([FEATURES, 3], output="softmax", dtype="float64", seed=6)
    parameters = [torch.tensor(np.array(part), requires_grad=True) for part in model.weights + model.biases]
    peer, total, size = torch.optim.SGD(parameters, lr=0.2), 0.0, batch_size or N
    order = reference.permutation(5, 0, N)
    for batch in (order[start : start + size] for start in range(0, N, size)):
        logits = torch.tensor(X[batch]) @ parameters[0] + parameters[1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS[batch]), label_smoothing=share)
        total += loss.item() * len(batch)
        peer.zero_grad()
        loss.backward()
        peer.step()
    for y in (LABELS, np.eye(3)[LABELS]):
        ours = MLP([FEATURES, 3], output="softmax", dtype="float64", seed=6)
        one = Trainer(None, SGD(lr=0.2), None, batch_size, 1, seed=5, label_smoothing=share)
        history = one.fit(ours, X, y, validation_data=(X, y))
        assert history["loss"][0] == pytest.approx(total / N, rel=1e-12)
        for part, parameter in zip(ours.weights + ours.biases, parameters, strict=True):
            np.testing.assert_allclose(part, parameter.detach(), rtol=1e-9, atol=1e-12)
        assert history["val_loss"][0] == Trainer().evaluate(ours, X, y)["loss"]  # by the labels as they are


@pytest.mark.parametrize(("loss", "k"), [("cross_entropy", 3), ("logistic", 1), ("logistic", 3)])
def test_smoothing_follows_the_twin(loss: str, k: int) -> None:
    y = LABELS if loss == "cross_entropy" else (VALUES[:, :k] > 0) * 1.0
    ours, theirs = (
        MLP([FEATURES, k], output="softmax" if loss == "cross_entropy" else "sigmoid", dtype="float64") for _ in "ab"
    )
    Trainer(None, SGD(lr=0.3), None, 8, 3, seed=5, label_smoothing=0.2).fit(ours, X, y)
    rows = smoothed(y, k, 0.2, loss)
    reference_updates.train(theirs, X, rows, loss, SGD(lr=0.3), 8, 3, 5)
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=1e-10, atol=1e-13)


def test_smoothing_refuses_other_losses() -> None:
    for loss in ("mse", "hinge", "poisson"):
        with pytest.raises(ValueError, match=f"label_smoothing: got 0.1 with loss '{loss}', expected cross_entropy or"):
            y = np.sign(VALUES) if loss == "hinge" else abs(VALUES)
            Trainer(loss, label_smoothing=0.1).fit(MLP([FEATURES, 3]), X, y)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"l1": -0.1}, ValueError, "l1: got -0.1"),
        ({"l2": float("nan")}, ValueError, "l2: got nan"),
        ({"l2": "0.1"}, TypeError, "l2: got '0.1'"),
        ({"clip_norm": 0}, ValueError, "clip_norm: got 0, expected more than 0"),
        ({"clip_value": -1.0}, ValueError, "clip_value: got -1.0"),
        ({"max_norm": True}, TypeError, "max_norm: got True"),
        ({"dropout": 1.0}, ValueError, "dropout: got 1, .*nothing would be left"),
        ({"dropout": [0.1, 1.5]}, ValueError, r"dropout\[1\]: got 1.5"),
        ({"dropout": -0.1}, ValueError, "dropout: got -0.1"),
        ({"dropout": "half"}, TypeError, "dropout: got 'half'"),
        ({"input_noise": -1}, ValueError, "input_noise: got -1"),
        ({"label_smoothing": 1.1}, ValueError, "label_smoothing: got 1.1"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Trainer(**options)


@pytest.mark.parametrize("dropout", [[0.1], [0.1, 0.2], [0.1] * 4, []])
def test_dropout_wants_one_share_for_each_layer(dropout: list[float]) -> None:
    model = network()
    before = model.params.copy()
    with pytest.raises(ValueError, match=rf"dropout: got {len(dropout)} shares, expected 3: the input's"):
        Trainer(dropout=dropout).fit(model, X, LABELS)
    assert np.array_equal(model.params, before)


def test_which_trainings_need_a_buffer() -> None:
    assert Regularization().direct and Regularization(dropout=0.5, input_noise=1.0).direct
    for name in ("l1", "l2", "clip_value", "clip_norm", "max_norm"):
        assert not Regularization(**{name: 0.1}).direct
    assert Regularization(dropout=0.5).shares(3) == [0.0, 0.5, 0.5]
    assert [Regularization(dropout=d).changes_inputs(2) for d in (0.5, [0.5, 0], [0, 0.5])] == [False, True, False]
    assert [len(pair) for pair in pairwise(SIZES)] == [2, 2, 2]
