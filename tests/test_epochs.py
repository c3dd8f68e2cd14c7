"""The epoch kernels called directly: order, losses, padding, inference, and the search for bad numbers."""

import numpy as np
import pytest
import reference

from hotloop import MLP, Trainer, engine, inputs, layout, trainer
from hotloop.engine import Engine
from hotloop.kernels import epochs, steps
from hotloop.kernels.updates import Rule
from hotloop.objectives import bind
from hotloop.optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    AveragedSGD,
    Lion,
    Optimizer,
    PassiveAggressive,
    RMSprop,
)

RNG = np.random.default_rng(8)
DTYPES = ["float32", "float64"]
OPTIMIZERS: list[Optimizer] = [SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True), Adam(), AdamW(), RMSprop()]
OPTIMIZERS += [Adagrad(), Adadelta(), Lion(), AveragedSGD()]


class Kit:
    """A model with everything the kernels ask for."""

    def __init__(self, sizes: list[int], dtype: str, rows: int, bias: bool = True, n: int = 30) -> None:
        self.model = MLP(sizes, "tanh", "softmax", bias=bias, dtype=dtype, seed=4)
        rng = np.random.default_rng(8)
        self.X = (rng.normal(size=(n, sizes[0])) * (rng.random((n, sizes[0])) < 0.6)).astype(dtype)
        self.labels = rng.integers(0, sizes[-1], n).astype(np.int32)
        objective = bind(None, self.model, self.labels, n)
        self.engine = Engine(self.model._network, inputs.dense(self.X), objective, rows, 1, rows == 1)
        self.batches = Engine(self.model._network, inputs.dense(self.X), objective, rows, 1, False)
        self.order = rng.permutation(n)
        self.engine.order[:] = self.batches.order[:] = self.order
        self.rule = SGD(lr=0.1).rule(np.array([0.1]), self.model.params[:0], SGD().init(self.model.params))

    def per_sample(self, start: int, stop: int) -> float:
        kit, code = self.engine, self.engine.code
        net, samples, regular, scratch = kit.network, kit.samples, kit.regular, kit.scratch
        epochs.per_sample(net, samples, start, stop, kit.whole, code, self.rule, regular, scratch, 0, 1)
        return float(scratch.total[0])

    def mini_batch(self, start: int, stop: int, batch_size: int, rule: Rule | None = None) -> float:
        kit, code, rule = self.batches, self.batches.code, steps.ready(rule or self.rule)
        net, samples, regular, scratch = kit.network, kit.samples, kit.regular, kit.scratch
        epochs.mini_batch(net, samples, start, stop, batch_size, code, rule, regular, scratch, 0, 1)
        return float(scratch.total[0])

    def padding(self) -> np.ndarray:
        """The parameters that no view shows."""
        twin = MLP(self.model.sizes, "tanh", "softmax", bias=self.model.bias, dtype=self.model.dtype, init="zeros")
        for view in twin.weights + twin.biases:
            view[:] = 1
        return self.model.params[twin.params == 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [[7, 80], [1, 65, 70], [40, 160, 70, 65], [7, 529, 81]], ids=str)
def test_windows_of_one_are_mini_batches_of_one_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], dtype: str
) -> None:
    """Where no layer is narrow, see sparse.accumulate_row."""
    monkeypatch.setattr(layout, "WINDOW", 1)
    one, other = Kit(sizes, dtype, 1), Kit(sizes, dtype, 1)
    assert one.per_sample(0, 30) == other.mini_batch(0, 30, 1)
    assert one.model.params.tobytes() == other.model.params.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_size", [1, 4, 30])
def test_the_epoch_is_that_of_the_twin_in_the_given_order(batch_size: int, dtype: str) -> None:
    kit = Kit([9, 6, 4], dtype, batch_size)
    weights, biases = ([np.array(part, float) for part in parts] for parts in (kit.model.weights, kit.model.biases))
    X, order = np.float64(kit.X), kit.order
    mean = reference.train_epoch(
        weights, biases, ["tanh", "softmax"], "cross_entropy", X, kit.labels, order, batch_size, 0.1
    )
    assert kit.mini_batch(0, 30, batch_size) / 30 == pytest.approx(mean, rel=1e-5 if dtype == "float32" else 1e-12)
    for ours, theirs in zip(kit.model.weights + kit.model.biases, weights + biases, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 2, 7, 8, 30, 64])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("sizes", [[9, 4], [250, 17, 4], [300, 100, 33, 5]], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_windows_take_the_steps_of_the_twin(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], listed: bool, window: int, bias: bool, dtype: str
) -> None:
    monkeypatch.setattr(layout, "WINDOW", window)
    monkeypatch.setattr(engine, "_sparse_below", lambda width, window: 2.0 if listed else 0.0)
    kit = Kit(sizes, dtype, 1, bias)
    assert kit.engine.samples.listed == (listed or window == 1)
    assert len(kit.engine.scratch.overlaps) == 2 * min(window, 30)
    weights, biases = ([np.array(part, float) for part in parts] for parts in (kit.model.weights, kit.model.biases))
    names = ["tanh"] * (len(sizes) - 2) + ["softmax"]
    X, order = np.float64(kit.X), kit.order
    mean = reference.train_epoch(weights, biases, names, "cross_entropy", X, kit.labels, order, 1, 0.1, bias)
    assert kit.per_sample(0, 30) / 30 == pytest.approx(mean, rel=1e-5 if dtype == "float32" else 1e-12)
    for ours, theirs in zip(kit.model.weights + kit.model.biases, weights + biases, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("output", ["sigmoid", "softplus", "tanh", "softmax"])
@pytest.mark.parametrize("sizes", [[9, 4], [9, 6, 4], [9, 6, 5, 4]], ids=str)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_outputs_with_a_slope_of_their_own(batch_size: int, sizes: list[int], output: str) -> None:
    model, X, targets = (
        MLP(sizes, "tanh", output, dtype="float64", seed=4),
        RNG.normal(size=(30, 9)),
        RNG.random((30, 4)),
    )
    weights, biases = ([part.copy() for part in parts] for parts in (model.weights, model.biases))
    names = ["tanh"] * (len(sizes) - 2) + [output]
    mean = reference.train_epoch(weights, biases, names, "mse", X, targets, np.arange(30), batch_size, 0.1)
    history = Trainer("mse", SGD(lr=0.1), None, batch_size, 1, shuffle=False).fit(model, X, targets)
    assert history["loss"][0] == pytest.approx(mean, rel=1e-12)
    for ours, theirs in zip(model.weights + model.biases, weights + biases, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("sizes", "optimizer"),
    [([300, 3], SGD(0.05)), ([300, 20, 3], SGD(0.05)), ([300, 40, 3], SGD(0.05)), ([300, 3], PassiveAggressive())],
    ids=str,
)
@pytest.mark.parametrize("density", [0.1, 0.6])
def test_narrow_layers_give_the_same_bits_however_rows_come(
    monkeypatch: pytest.MonkeyPatch, density: float, sizes: list[int], optimizer: Optimizer, dtype: str
) -> None:
    """Windows of one sample, or of many where rows are dense; hinge: some rows move nothing; one row is empty."""
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(5)
    X = rng.normal(size=(50, 300)) * (rng.random((50, 300)) < density)
    X[7] = 0
    y = rng.integers(0, 3, 50)
    stored = sparse.csr_array(X + (X == 0) * (rng.random(X.shape) < 0.1))
    stored.data[stored.data == 1.0] = 0.0
    monkeypatch.setattr(engine, "COLUMNS_PAY", 1)
    monkeypatch.setattr(trainer, "available_threads", lambda: 2)
    found = set()
    # Every input visited, in windows of many; those listed, anew for each sample or once; compressed rows, on one
    # thread and on two, and with zeros among their entries.
    for below, pays, threads, rows in (
        (0.0, 1, 1, X),
        (2.0, 99, 1, X),
        (2.0, 1, 1, X),
        (2.0, 1, 1, sparse.csr_array(X)),
        (2.0, 1, 2, sparse.csr_array(X)),
        (0.0, 1, 2, sparse.csr_array(X)),
        (2.0, 1, 1, stored),
    ):
        monkeypatch.setattr(engine, "LISTING_PAYS", pays)
        monkeypatch.setattr(engine, "_sparse_below", lambda width, window, below=below: below)
        model = MLP(sizes, "relu", "identity", dtype=dtype, seed=6)
        history = Trainer("hinge", optimizer, None, 1, 3, seed=7, threads=threads).fit(model, rows, y)
        assert history["loss"][-1] < history["loss"][0]
        found.add((model.params.tobytes(), tuple(history["loss"])))
    assert len(found) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_do_not_change_a_bit(dtype: str) -> None:
    whole, parts = Kit([9, 6, 4], dtype, 1), Kit([9, 6, 4], dtype, 1)
    whole.per_sample(0, 30)
    for start, stop in [(0, layout.WINDOW), (layout.WINDOW,) * 2, (layout.WINDOW, 30)]:  # whole windows
        parts.per_sample(start, stop)
    assert whole.model.params.tobytes() == parts.model.params.tobytes()
    whole, parts = Kit([9, 6, 4], dtype, 5), Kit([9, 6, 4], dtype, 5)
    whole.mini_batch(0, 30, 5)
    for start, stop in [(0, 5), (5, 5), (5, 25), (25, 30)]:
        parts.mini_batch(start, stop, 5)
    assert whole.model.params.tobytes() == parts.model.params.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_padding_stays_zero_and_absent_biases_too(dtype: str, rows: int, bias: bool) -> None:
    kit = Kit([9, 6, 17, 4], dtype, rows, bias=bias)
    before = kit.model.params.copy()
    for _ in range(3):
        if rows == 1:
            kit.per_sample(0, 30)
        kit.mini_batch(0, 30, rows)
        for optimizer in OPTIMIZERS:
            rule = optimizer.rule(np.array([0.01]), np.zeros_like(before), optimizer.init(before))
            kit.mini_batch(0, 30, rows, rule)
    assert kit.padding().size and not kit.padding().any()
    assert (kit.model.params != before).any()
    assert bias == any(part.any() for part in kit.model.biases)


def test_samples_may_come_twice_or_never() -> None:
    kit = Kit([9, 6, 4], "float64", 4)
    kit.batches.order[:] = 3
    kit.X[np.arange(30) != 3] = np.nan  # never looked at
    total = kit.mini_batch(0, 8, 4)
    assert np.isfinite(total) and np.isfinite(kit.model.params).all()


def test_an_empty_piece_does_nothing() -> None:
    kit = Kit([9, 6, 4], "float32", 4)
    before = kit.model.params.tobytes()
    assert kit.mini_batch(5, 5, 4) == 0.0 and kit.per_sample(5, 5) == 0.0
    assert kit.model.params.tobytes() == before


def test_all_zero_inputs_move_only_biases_of_the_first_layer() -> None:
    kit = Kit([9, 6, 4], "float64", 1)
    kit.X[:] = 0
    first = kit.model.weights[0].copy()
    kit.per_sample(0, 30)
    np.testing.assert_array_equal(kit.model.weights[0], first)
    assert kit.model.biases[1].any()
