"""learn_one: the bits of a fit of one sample a step, whatever the row comes as; what is wrong changes nothing."""

import copy
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import reference_updates
from reference_regularize import Regular

from hotloop import (
    MLP,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    AveragedSGD,
    Lion,
    Loss,
    PassiveAggressive,
    RMSprop,
    Trainer,
    Warmup,
    layout,
)
from hotloop.kernels import online
from hotloop.optimizers import Optimizer

RNG = np.random.default_rng(29)
X = RNG.normal(size=(60, 6)) * (RNG.random((60, 6)) < 0.7)
LABELS, VALUES = RNG.integers(0, 3, 60), RNG.normal(size=(60, 3))
both = pytest.mark.parametrize("dtype", ["float32", "float64"])

OPTIMIZERS: list[Optimizer] = [SGD(0.05), SGD(0.02, 0.8), SGD(0.02, 0.8, True), Adam(), AdamW(), RMSprop(0.002)]
OPTIMIZERS += [RMSprop(0.001, momentum=0.5), Adagrad(), Adadelta(), Lion(0.001)]
REGULAR: list[dict[str, Any]] = [{}, {"l1": 0.01}, {"l2": 0.1}, {"clip_norm": 0.3}, {"clip_value": 0.01}]
REGULAR += [{"max_norm": 0.5}, {"l1": 0.01, "l2": 0.1, "clip_value": 0.1, "clip_norm": 0.3, "max_norm": 0.9}]
REGULAR += [{"label_smoothing": 0.2}]


@pytest.fixture(autouse=True)
def windows_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of samples decide how sums are rounded, and learn_one's hold one: so do those of the fits here."""
    monkeypatch.setattr(layout, "WINDOW", 1)


def network(dtype: str = "float64", output: str = "softmax", k: int = 3, bias: bool = True) -> MLP:
    return MLP([6, 17, 5, k], "tanh", output, bias=bias, dtype=dtype, seed=4)


def stream(trainer: Trainer, model: MLP, X: Any, y: Any) -> list[float]:
    return [trainer.learn_one(model, row, truth) for row, truth in zip(X, y, strict=True)]


def alike(options: dict[str, Any], dtype: str, rows: Any, y: Any, make: Any = network) -> tuple[MLP, list[float]]:
    """learn_one and fit, which must give the same bits; the model and the losses."""
    ours, theirs = make(dtype), make(dtype)
    losses = stream(Trainer(**options), ours, np.asarray(rows, dtype), y)
    history = Trainer(batch_size=1, epochs=1, shuffle=False, **options).fit(theirs, rows, y)
    assert ours.params.tobytes() == theirs.params.tobytes()
    assert np.mean(losses) == pytest.approx(history["loss"][0], rel=1e-14)
    assert (ours.loss, ours.decision) == (theirs.loss, theirs.decision)
    return ours, losses


@both
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_all_optimizers_give_the_bits_of_a_fit(optimizer: Optimizer, dtype: str) -> None:
    model, _ = alike({"optimizer": optimizer}, dtype, X, LABELS)
    assert np.abs(model.params - network(dtype).params).max() > 1e-3


@both
def test_a_fit_with_windows_learns_the_same_to_rounding(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    ours, theirs = network(dtype), network(dtype)
    losses = stream(Trainer(optimizer=SGD(0.05)), ours, np.asarray(X, dtype), LABELS)
    monkeypatch.setattr(layout, "WINDOW", 8)
    history = Trainer(optimizer=SGD(0.05), batch_size=1, epochs=1, shuffle=False).fit(theirs, X, LABELS)
    atol = 2e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(theirs.params, ours.params, rtol=0, atol=atol)
    assert np.mean(losses) == pytest.approx(history["loss"][0], rel=atol)
    assert ours.params.tobytes() != theirs.params.tobytes()  # or this compares windows of one


@both
@pytest.mark.parametrize("optimizer", [SGD(0.05), Adam()], ids=["SGD", "Adam"])
@pytest.mark.parametrize("options", REGULAR, ids=str)
def test_all_regularisation_gives_the_bits_of_a_fit(options: dict[str, Any], optimizer: Optimizer, dtype: str) -> None:
    alike({"optimizer": optimizer, **options}, dtype, X, LABELS)


@both
@pytest.mark.parametrize(
    ("loss", "output", "k", "y"),
    [
        (None, "softmax", 3, LABELS),
        (None, "softmax", 3, np.eye(3)[LABELS]),
        ("hinge", "identity", 3, LABELS),
        ("perceptron", "step", 3, np.eye(3)[LABELS]),
        (None, "sigmoid", 1, LABELS == 1),
        (None, "sigmoid", 3, (VALUES > 0) * 1),
        ("hinge", "identity", 1, np.where(LABELS == 1, 1, -1)),
        ("mse", "identity", 1, VALUES[:, 0]),
        ("mse", "identity", 3, VALUES),
        ("huber", "tanh", 1, VALUES[:, :1]),
        ("poisson", "softplus", 1, abs(VALUES[:, 0])),
        (Loss(lambda p, t: (p - t) ** 2, lambda p, t: 2 * (p - t)), "identity", 1, VALUES[:, 0]),
    ],
    ids=lambda part: str(part) if isinstance(part, str | int) else "",
)
def test_every_kind_of_truth(loss: Any, output: str, k: int, y: Any, dtype: str) -> None:
    model, _ = alike({"loss": loss}, dtype, X, y, lambda dtype: network(dtype, output, k))
    assert model.loss is not None


@both
@pytest.mark.parametrize("sizes", [[6, 1], [1, 1], [1, 40, 1], [6, 3]], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_small_networks(sizes: list[int], bias: bool, dtype: str) -> None:
    y = VALUES[:, : sizes[-1]]
    for optimizer in (SGD(), Adam()):
        for options in ({}, {"l1": 0.1, "max_norm": 0.3}):
            alike(
                {"loss": "mse", "optimizer": optimizer, **options},
                dtype,
                X[:, : sizes[0]],
                y,
                lambda dtype: MLP(sizes, dtype=dtype, bias=bias, seed=1),
            )


@pytest.mark.parametrize("optimizer", [SGD(0.05), Adam()], ids=["SGD", "Adam"])
def test_large_networks_let_go_of_the_interpreter(optimizer: Optimizer) -> None:
    rows = np.random.default_rng(1).normal(size=(40, 200)) * (np.arange(200) % 3 > 0)
    make = partial(MLP, [200, 128, 3], "relu", "softmax", seed=1)
    assert make().params.size > online.LARGE
    alike({"optimizer": optimizer}, "float32", rows, LABELS[:40], lambda dtype: make(dtype=dtype))


@both
@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize(("loss", "k", "y"), [("hinge", 3, LABELS), ("mae", 1, VALUES[:, 0])])
def test_passive_aggressive(loss: str, k: int, y: Any, variant: int, dtype: str) -> None:
    optimizer = PassiveAggressive(0.3, variant)
    alike({"loss": loss, "optimizer": optimizer}, dtype, X, y, lambda dtype: MLP([6, k], dtype=dtype, seed=1))


@pytest.mark.parametrize("optimizer", [SGD(0.05), Adam(0.01)], ids=["SGD", "Adam"])
@pytest.mark.parametrize(
    ("options", "regular"),
    [
        ({"dropout": 0.4}, Regular(dropout=[0, 0.4, 0.4])),
        ({"dropout": [0.3, 0.0, 0.2], "input_noise": 0.2}, Regular(dropout=[0.3, 0.0, 0.2], noise=0.2)),
    ],
)
def test_every_row_is_an_epoch_to_dropout_and_noise(options: Any, regular: Regular, optimizer: Optimizer) -> None:
    """The same row again and again: the same as a fit of so many epochs on this row alone, and as the twin's."""
    ours, theirs, twins = network(), network(), network()
    one = Trainer(optimizer=optimizer, seed=8, **options)
    losses = [one.learn_one(ours, X[5], 2) for _ in range(12)]
    again = Trainer(optimizer=optimizer, seed=8, batch_size=1, epochs=12, **options)
    history = again.fit(theirs, X[5:6], [2])
    assert ours.params.tobytes() == theirs.params.tobytes() and losses == history["loss"]
    reference_updates.train(twins, X[5:6], LABELS[:1] * 0 + 2, "cross_entropy", optimizer, 1, 12, 8, regular)
    for found, wanted in zip(ours.weights + ours.biases, twins.weights + twins.biases, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_the_loss_is_that_before_the_step() -> None:
    model, one = network(), Trainer(optimizer=SGD(0.1))
    for row, label in zip(X[:10], LABELS, strict=False):
        before = one.evaluate(model, row[None], [label])["loss"]
        found = one.learn_one(model, row, label)
        assert found == pytest.approx(before, rel=1e-12) and type(found) is float
        assert one.evaluate(model, row[None], [label])["loss"] < before


@both
def test_rows_may_come_as_anything(dtype: str) -> None:
    found = set()
    frozen = X.astype(dtype)
    frozen.flags.writeable = False
    wide, columns = np.zeros((60, 12), dtype), np.asfortranarray(X.astype(dtype))
    wide[:, ::2] = X
    crooked = np.frombuffer(b"x" + X.astype(dtype).tobytes(), np.uint8)[1:].view(dtype).reshape(X.shape)
    assert not crooked.flags.aligned and not columns[0].flags.c_contiguous
    swapped = X.astype(np.dtype(dtype).newbyteorder())
    kinds = [
        X.astype(dtype),
        frozen,
        wide[:, ::2],
        swapped,
        X.astype(dtype).tolist(),
        columns,
        crooked,
    ]
    if dtype == "float32":
        kinds.append(X.astype("float32").astype("float64"))
    for rows in kinds:
        model = network(dtype)
        stream(Trainer(), model, rows, LABELS)
        found.add(model.params.tobytes())
    assert len(found) == 1
    assert np.array_equal(frozen, X.astype(dtype))


def test_truths_may_come_as_anything() -> None:
    for values, k, output in ((LABELS, 3, "softmax"), (np.round(VALUES[:, 0], 3), 1, "identity")):
        found = set()
        integer = values.dtype.kind == "i"
        kinds: list[Any] = [values, values.tolist(), values.astype("float64"), values[:, None], list(values[:, None])]
        kinds += [values.astype(kind) for kind in ("int8", "int32", "uint64", "float32")] if integer else []
        for truths in kinds:
            model = network("float32", output, k)
            stream(Trainer(), model, X, truths)
            stream(Trainer(), model, X, truths)
            found.add(model.params.tobytes())
        assert len(found) == 1


def test_truths_of_text() -> None:
    names = np.array(["ant", "bee", "cat"])
    ours, theirs = network(), network()
    ours.classes = names
    for kind in (names[LABELS], names[LABELS].tolist()):
        stream(Trainer(), ours, X, kind)
        stream(Trainer(), theirs, X, LABELS)
        assert ours.params.tobytes() == theirs.params.tobytes()
    assert ours.predict_one(X[0]) == names[theirs.predict_one(X[0])]
    with pytest.raises(ValueError, match="y: got 'dog'"):
        Trainer().learn_one(ours, X[0], "dog")


def test_more_truths_than_are_remembered() -> None:
    """Values of a regression are all different: they are not kept, and neither do they go wrong."""
    rng, model, twin = np.random.default_rng(1), MLP([2, 1], seed=1), MLP([2, 1], seed=1)
    rows, y = rng.normal(size=(5000, 2)).astype(np.float32), rng.normal(size=5000)
    counts = rng.poisson(2000, 5000)
    stream(Trainer("mse", SGD(1e-3)), model, rows, y)
    Trainer("mse", SGD(1e-3), batch_size=1, epochs=1, shuffle=False).fit(twin, rows, y)
    assert model.params.tobytes() == twin.params.tobytes()
    one = Trainer("mse", SGD(1e-9))
    stream(one, model, rows, counts.tolist())
    Trainer("mse", SGD(1e-9), batch_size=1, epochs=1, shuffle=False).fit(twin, rows, counts)
    assert model.params.tobytes() == twin.params.tobytes()
    assert one._learner is not None and len(one._learner._known) <= 4096


# What is carried on ---------------------------------------------------------------------------------------------------


def test_another_model_begins_anew() -> None:
    one, first, second, twin = Trainer(optimizer=Adam()), network(), network(), network()
    stream(one, first, X, LABELS)
    stream(one, second, X, LABELS)
    stream(Trainer(optimizer=Adam()), twin, X, LABELS)
    assert first.params.tobytes() == second.params.tobytes() == twin.params.tobytes()


def test_trainers_do_not_share_what_they_remember() -> None:
    model, twin = network(), network()
    one, two = Trainer(optimizer=SGD(0.01, 0.9)), Trainer(optimizer=SGD(0.01, 0.9))
    alone = Trainer(optimizer=SGD(0.01, 0.9))
    one.learn_one(model, X[0], 1)
    two.learn_one(model, X[1], 2)
    alone.learn_one(twin, X[0], 1)
    alone.learn_one(twin, X[1], 2)
    assert np.abs(model.params - twin.params).max() > 1e-5  # the second trainer has no momentum yet


def test_a_schedule_by_step_goes_on() -> None:
    schedule = Warmup(30, per="step")
    ours, theirs = network(), network()
    one = Trainer(schedule=schedule)
    for start in (0, 20):
        stream(one, ours, X[start : start + 20], LABELS[start : start + 20])
        with pytest.raises(ValueError, match="x: got nan"):
            one.learn_one(ours, np.full(6, np.nan), 1)  # a row that is refused uses up no step
    Trainer(schedule=schedule, batch_size=1, epochs=1, shuffle=False).fit(theirs, X[:40], LABELS[:40])
    assert ours.params.tobytes() == theirs.params.tobytes()


def test_what_happens_to_the_parameters_in_between_counts() -> None:
    one, model, twin = Trainer(), network(), network()
    one.learn_one(model, X[0], 1)
    model.params[:] = twin.params
    model.weights[0][2, 3] = 0.75
    twin.weights[0][2, 3] = 0.75
    one.learn_one(model, X[1], 2)
    Trainer().learn_one(twin, X[1], 2)
    assert model.params.tobytes() == twin.params.tobytes()


def test_copies_begin_anew_with_addresses_of_their_own() -> None:
    one, model = Trainer(optimizer=Adam()), network()
    one.learn_one(model, X[0], 1)
    for other, twin in (copy.deepcopy((one, model)), pickle.loads(pickle.dumps((one, model)))):
        before, theirs = model.params.copy(), twin.params.copy()
        other.learn_one(twin, X[1], 2)
        assert np.array_equal(model.params, before) and not np.array_equal(twin.params, theirs)
    shallow = copy.copy(one)
    assert shallow._learner is None and shallow.optimizer is one.optimizer


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X[0, :5], 1, ValueError, r"x: got shape \(5,\), expected \(6,\)"),
        (X[:1], 1, ValueError, r"x: got shape \(1, 6\), expected \(6,\)"),
        (np.full(6, np.nan), 1, ValueError, r"x: got nan at \[0\]"),
        (np.array([0, 0, np.inf, 0, 0, 0]), 1, ValueError, r"x: got inf at \[2\]"),
        (np.full(6, 1e300), 1, ValueError, r"x: got 1e\+300 at \[0\], too large for float32"),
        (["a"] * 6, 1, TypeError, "x: got dtype <U1"),
        (X[0], 3, ValueError, r"y: got 3 at \[0\], expected class labels 0 to 2"),
        (X[0], -1, ValueError, r"y: got -1"),
        (X[0], 0.5, ValueError, r"y: got 0.5"),
        (X[0], np.nan, ValueError, r"y: got nan"),
        (X[0], "1", TypeError, "y: got dtype"),
        (X[0], None, TypeError, "y: got dtype object"),
        (X[0], [1, 2], ValueError, r"y: got shape \(1, 2\)"),
        (X[0], [0.5, 0.1, 0.1], ValueError, "y: row 0 sums to 0.7"),
    ],
)
def test_bad_rows_and_truths(x: Any, y: Any, error: type[Exception], message: str, started: bool) -> None:
    model, twin, one, other = (
        network("float32"),
        network("float32"),
        Trainer(optimizer=Adam()),
        Trainer(optimizer=Adam()),
    )
    if started:
        one.learn_one(model, X[1], 2)
        other.learn_one(twin, X[1], 2)
    before = model.params.copy()
    for _ in range(2):
        with pytest.raises(error, match=message):
            one.learn_one(model, x, y)
    assert np.array_equal(model.params, before)
    assert started or (model.loss is None and model.decision == "argmax")
    one.learn_one(model, X[0], 1)
    other.learn_one(twin, X[0], 1)
    assert model.params.tobytes() == twin.params.tobytes()  # nor has anything else been changed


@pytest.mark.parametrize("y", [np.nan, np.inf, 1e39, -1e39, "1", None, [1.0, 2.0]])
@both
def test_bad_values(y: Any, dtype: str) -> None:
    if dtype == "float64" and y in (1e39, -1e39):
        y = np.longdouble(1e39) * 1e300
    model, one = network(dtype, "identity", 1), Trainer("mse")
    one.learn_one(model, X[0], 0.5)
    before = model.params.copy()
    with pytest.raises((ValueError, TypeError), match=r"^y: got"):
        one.learn_one(model, X[0], y)
    assert np.array_equal(model.params, before)


def test_what_is_no_model() -> None:
    with pytest.raises(TypeError, match="model: got str, expected an MLP"):
        Trainer().learn_one("model", X[0], 1)  # type: ignore[arg-type]


def test_what_the_trainer_cannot_do() -> None:
    model = network()
    for one, message in (
        (Trainer(optimizer=AveragedSGD()), "optimizer: AveragedSGD gives its mean at the end of a fit"),
        (Trainer(optimizer=PassiveAggressive()), "optimizer: PassiveAggressive needs one layer"),
        (Trainer(dropout=[0.1, 0.2]), "dropout: got 2 shares, expected 3"),
        (Trainer("poisson"), "loss: 'poisson' makes no sense"),
    ):
        with pytest.raises(ValueError, match=message):
            one.learn_one(model, X[0], 1)
    assert model.loss is None and np.array_equal(model.params, network().params)


def test_divergence_is_said() -> None:
    model, one = MLP([2, 1], seed=1), Trainer("mse", SGD(1e30))
    one.learn_one(model, [1.0, 1.0], 5.0)
    with pytest.raises(FloatingPointError, match=r"the loss of this row is not a number with lr=1e\+30"):
        for _ in range(5):
            one.learn_one(model, [1.0, 1.0], 5.0)
