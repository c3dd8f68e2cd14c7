"""Whole trainings: worked examples, gates, repeatability, bad input, Ctrl-C, divergence."""

import hashlib
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import reference

from hotloop import MLP, SGD, Callback, CosineDecay, DivergenceWarning, EarlyStopping, History, Trainer, engine
from hotloop.data import load_digits
from hotloop.kernels import epochs as kernels
from hotloop.kernels import inference, random

RNG = np.random.default_rng(31)
X = RNG.normal(size=(40, 5))
VALUES, LABELS = X @ RNG.normal(size=5), RNG.integers(0, 3, 40)

# Linear regression without bias on two rows: every number below can be worked out by hand.
ROWS, SUMS = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), np.array([6.0, 15.0])


def linear(dtype: str = "float64") -> MLP:
    return MLP([3, 1], bias=False, init="zeros", dtype=dtype)


def test_worked_example_loss_gradient_and_step() -> None:
    model = linear()
    assert Trainer().evaluate(model, ROWS, SUMS)["loss"] == 130.5
    loss, [dweight], [dbias] = Trainer().gradients(model, ROWS, SUMS)
    assert loss == 130.5 and dweight.ravel().tolist() == [-66, -87, -108] and dbias.tolist() == [0]
    history = Trainer(optimizer=SGD(lr=0.1), batch_size=None, epochs=1).fit(model, ROWS, SUMS)
    np.testing.assert_allclose(model.weights[0].ravel(), [6.6, 8.7, 10.8], rtol=1e-15)
    assert history["loss"] == [130.5] and model.loss == "mse"
    assert Trainer().evaluate(model, ROWS, SUMS)["loss"] == pytest.approx(8434.125, rel=1e-14)


def test_worked_example_diverges_and_is_told_the_rate_that_does_not() -> None:
    model = linear()
    with pytest.warns(DivergenceWarning, match=r"from 130.5 to 8434 with lr=0.1; .* about 0.022\b") as record:
        history = Trainer(optimizer=SGD(lr=0.1), batch_size=None, epochs=50).fit(model, ROWS, SUMS)
    assert record[0].filename == __file__  # points at the call of fit
    assert history.stopped == "diverged" and history.epochs < 5
    assert np.isfinite(model.params).all() and np.abs(model.params).max() < 11
    assert not model.params.any()  # the weights from before: zero, not those of the first step, whose loss is 8434


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_worked_example_converges_below_that_rate(dtype: str) -> None:
    model = linear(dtype)
    history = Trainer(optimizer=SGD(lr=0.02), batch_size=None, epochs=1000).fit(model, ROWS, SUMS)
    assert history.stopped == "finished" and history["loss"][-1] < 1e-5
    np.testing.assert_allclose(model.weights[0].ravel(), [1, 1, 1], atol=2e-3)
    np.testing.assert_allclose(model.predict(ROWS), SUMS, atol=1e-2)


GATES = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR = np.array([0, 1, 1, 0])


@pytest.mark.parametrize(
    "truth", [[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], ids=["AND", "OR", "NAND", "NOT"]
)
@pytest.mark.parametrize("init", ["auto", "zeros"])
@pytest.mark.parametrize("batch_size", [1, None])
def test_the_perceptron_learns_gates(truth: list[int], init: str, batch_size: int | None) -> None:
    for seed in range(10):
        model = MLP([2, 1], output="step", init=init, seed=seed)
        Trainer(optimizer=SGD(lr=0.5), batch_size=batch_size, epochs=200, seed=seed).fit(model, GATES, truth)
        assert model.predict(GATES).tolist() == truth
        assert Trainer().evaluate(model, GATES, truth) == {"loss": 0.0, "accuracy": 1.0}


@pytest.mark.parametrize(
    ("output", "loss"),
    [
        ("step", "perceptron"),
        ("sigmoid", "logistic"),
        ("sigmoid", "mse"),
        ("identity", "hinge"),
        ("identity", "logistic"),
    ],
)
def test_no_single_layer_learns_xor(output: str, loss: str) -> None:
    truth = 2 * XOR - 1 if loss == "hinge" else XOR
    for seed in range(25):
        model = MLP([2, 1], output=output, seed=seed)
        Trainer(loss, SGD(lr=0.3), batch_size=1 + 3 * (seed % 2), epochs=100, seed=seed).fit(model, GATES, truth)
        assert Trainer(loss).evaluate(model, GATES, truth)["accuracy"] <= 0.75


def test_two_layers_learn_xor() -> None:
    """With four tanh units, full batch, learning rate 1, 500 epochs; 95 of 100 would do."""
    learned = 0
    for seed in range(100):
        model = MLP([2, 4, 1], "tanh", "sigmoid", seed=seed)
        Trainer(optimizer=SGD(lr=1.0), batch_size=None, epochs=500, seed=seed).fit(model, GATES, XOR)
        learned += model.predict(GATES).tolist() == XOR.tolist()
    assert learned >= 95


def test_digits_are_learned_to_97_percent() -> None:
    digits, labels = load_digits()
    model = MLP([64, 32, 10], output="softmax")
    history = Trainer(optimizer=SGD(lr=0.1), batch_size=8, epochs=15, validation_split=0.2).fit(model, digits, labels)
    assert history["val_accuracy"][-1] > 0.95 and history["loss"][-1] < 0.1


@pytest.mark.parametrize("output", ["identity", "softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_full_batch_is_a_batch_of_all(output: str, dtype: str) -> None:
    y = {"identity": VALUES, "softmax": LABELS, "sigmoid": VALUES > 0}[output]
    found = set()
    for batch_size in (None, 40, 41, 10**6):
        model = MLP([5, 6, 3 if output == "softmax" else 1], "tanh", output, dtype=dtype, seed=1)
        history = Trainer(batch_size=batch_size, epochs=5).fit(model, X, y)
        found.add((model.params.tobytes(), tuple(history["loss"])))
    assert len(found) == 1


@pytest.mark.parametrize("batch_size", [1, 8, None])
@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), SGD(lr=0.1, momentum=0.9)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_seed_gives_the_same_bits_on_any_threads(
    monkeypatch: pytest.MonkeyPatch, batch_size: int | None, optimizer: SGD, dtype: str
) -> None:
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    monkeypatch.setattr(engine, "COLUMNS_PAY", 1)
    found = set()
    for threads in (1, 1, 2, 3, 4):
        model = MLP([5, 33, 3], output="softmax", dtype=dtype, seed=1)
        trainer = Trainer(None, optimizer, None, batch_size, 4, seed=5, validation_split=0.2, threads=threads)
        history = trainer.fit(model, X, LABELS)
        found.add((model.params.tobytes(), tuple(history["loss"]), tuple(history["val_loss"])))
    assert len(found) == 1


def test_another_seed_or_no_shuffling_gives_another_order() -> None:
    found = set()
    for options in ({"seed": 1}, {"seed": 2}, {"shuffle": False}):
        model = MLP([5, 1], seed=1)
        Trainer(batch_size=1, epochs=2, **options).fit(model, X, VALUES)  # type: ignore[arg-type]
        found.add(model.params.tobytes())
    assert len(found) == 3
    one, two = MLP([5, 1], dtype="float64", seed=1), MLP([5, 1], dtype="float64", seed=1)
    Trainer(batch_size=1, epochs=2, shuffle=False).fit(one, X, VALUES)
    for _ in range(2):
        Trainer(batch_size=1, epochs=1, shuffle=False).fit(two, X, VALUES)
    assert one.params.tobytes() == two.params.tobytes()


def test_the_data_is_left_alone() -> None:
    rows, values = X.astype(np.float32), VALUES.astype(np.float32)
    before = rows.tobytes(), values.tobytes()
    Trainer(batch_size=4, epochs=3, validation_split=0.3).fit(MLP([5, 1]), rows, values)
    assert (rows.tobytes(), values.tobytes()) == before


def test_a_second_fit_of_the_same_kind_compiles_nothing() -> None:
    """All data, losses, batch sizes and options of one dtype share one compiled version of each kernel."""

    def fit_everything(n: int) -> None:
        for y, output, k in ((VALUES, "identity", 1), (LABELS, "softmax", 3), (VALUES > 0, "sigmoid", 1)):
            for batch_size, optimizer in ((1, SGD()), (4, SGD()), (None, SGD(lr=0.01, momentum=0.5))):
                rows = X[:n].astype(np.float32)
                rows.flags.writeable = n % 2 == 0
                model = MLP([5, n, k], output=output)
                trainer = Trainer(optimizer=optimizer, batch_size=batch_size, epochs=2, validation_split=0.25)
                trainer.fit(model, rows, y[:n])
                model.predict_one(model.predict(rows)[0] * np.ones(5))

    dispatchers = [
        kernels.per_sample,
        kernels.mini_batch,
        inference.predict,
        inference.predict_row,
        inference.total_loss,
        inference.all_finite,
        random.permutation,
    ]
    fit_everything(40)
    compiled = [list(kernel.signatures) for kernel in dispatchers]
    fit_everything(31)
    assert [list(kernel.signatures) for kernel in dispatchers] == compiled


def test_history_has_a_column_for_everything() -> None:
    model = MLP([5, 3], output="softmax")
    history = Trainer(epochs=4, validation_split=0.25, schedule=CosineDecay()).fit(model, X, LABELS)
    assert list(history) == ["loss", "lr", "seconds", "val_loss", "val_accuracy"]
    assert all(len(column) == 4 for column in history.values()) and history.epochs == 4
    assert history.stopped == "finished" and history.compile_seconds > 0
    assert all(seconds > 0 for seconds in history["seconds"])
    assert list(Trainer(epochs=1).fit(MLP([5, 1]), X, VALUES)) == ["loss", "lr", "seconds"]
    assert "val_r2" in Trainer(epochs=1, validation_split=0.2).fit(MLP([5, 1]), X, VALUES)


def test_the_loss_is_that_of_the_samples_before_their_steps() -> None:
    model = MLP([5, 1], dtype="float64", seed=1)
    before = Trainer().evaluate(model, X, VALUES)["loss"]
    assert Trainer(batch_size=None, epochs=1).fit(model, X, VALUES)["loss"][0] == pytest.approx(before, rel=1e-13)


def test_validation_data_is_evaluated_and_not_trained_on() -> None:
    one, two = MLP([5, 1], seed=1), MLP([5, 1], seed=1)
    history = Trainer(epochs=3).fit(one, X[:30], VALUES[:30], validation_data=(X[30:], VALUES[30:]))
    Trainer(epochs=3).fit(two, X[:30], VALUES[:30])
    assert one.params.tobytes() == two.params.tobytes()
    figures = Trainer().evaluate(one, X[30:], VALUES[30:])
    assert (history["val_loss"][-1], history["val_r2"][-1]) == (figures["loss"], figures["r2"])


@pytest.mark.parametrize(
    ("n", "split", "held"), [(2, 0.1, 1), (10, 0.2, 2), (40, 0.5, 20), (40, 0.001, 1), (40, 0.97, 39)]
)
def test_validation_split_holds_out_a_share(n: int, split: float, held: int) -> None:
    """Row i is the i-th unit vector, so a weight moves exactly if its row was trained on."""
    model = MLP([n, 1], bias=False, init="zeros", dtype="float64")
    history = Trainer(batch_size=1, epochs=1, validation_split=split).fit(model, np.eye(n), np.ones(n))
    assert np.count_nonzero(model.weights[0]) == n - held
    assert history["val_loss"] == [1.0]


def test_validation_split_is_drawn_from_the_seed() -> None:
    def held(seed: int, epochs: int = 1) -> list[int]:
        model = MLP([40, 1], bias=False, init="zeros")
        Trainer(batch_size=1, epochs=epochs, validation_split=0.3, seed=seed).fit(model, np.eye(40), np.ones(40))
        return np.flatnonzero(model.weights[0] == 0).tolist()  # type: ignore[no-any-return]

    assert held(1) == held(1) == held(1, epochs=5) != held(2)
    assert held(1) != sorted(range(28, 40))


@pytest.mark.parametrize("n", [1, 2])
def test_validation_split_must_leave_something(n: int) -> None:
    with pytest.raises(ValueError, match=r"validation_split: 0.9 of .* leaves none to train on"):
        Trainer(validation_split=0.9).fit(MLP([5, 1]), X[:n], VALUES[:n])


def test_tol_stops() -> None:
    model = linear()
    history = Trainer(optimizer=SGD(lr=0.02), batch_size=None, epochs=100_000, tol=1e-6).fit(model, ROWS, SUMS)
    assert history.stopped == "tol" and 10 < history.epochs < 100_000
    shorter = Trainer(optimizer=SGD(lr=0.02), batch_size=None, epochs=100_000, tol=1e-3).fit(linear(), ROWS, SUMS)
    assert shorter.epochs < history.epochs
    never = Trainer(optimizer=SGD(lr=0.02), batch_size=None, epochs=50, tol=0.0).fit(linear(), ROWS, SUMS * 0)
    assert never.stopped == "finished"  # although nothing moves at all


@pytest.mark.parametrize("k", [1, 3])
def test_evaluate_r2(k: int) -> None:
    y = VALUES if k == 1 else X[:, :3]
    model = MLP([5, k], dtype="float64", seed=1)
    found, predicted = Trainer().evaluate(model, X, y), model.predict(X)
    assert found["loss"] == pytest.approx(np.mean((predicted - y) ** 2), rel=1e-12)
    each = 1 - ((y - predicted) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    assert found["r2"] == pytest.approx(np.mean(each), rel=1e-10)
    assert set(found) == {"loss", "r2"}
    assert Trainer().evaluate(MLP([5, 1]), X, np.ones(40))["r2"] == 0.0


def test_evaluate_accuracy_and_loss_of_classes() -> None:
    model = MLP([5, 4, 3], output="softmax", dtype="float64", seed=1)
    found = Trainer().evaluate(model, X, LABELS)
    z = reference.network_forward(model.weights, model.biases, ["relu", "softmax"], X)[-1]
    assert found["loss"] == pytest.approx(
        np.mean([reference.cross_entropy_class(row, label)[0] for row, label in zip(z, LABELS, strict=True)])
    )
    assert found["accuracy"] == np.mean(z.argmax(axis=1) == LABELS)
    assert found == Trainer().evaluate(model, X, np.eye(3)[LABELS]) or found["loss"] == pytest.approx(
        Trainer().evaluate(model, X, np.eye(3)[LABELS])["loss"], rel=1e-14
    )


def test_evaluate_changes_nothing() -> None:
    model = MLP([5, 1], seed=1)
    before = model.params.tobytes()
    Trainer("huber").evaluate(model, X, VALUES)
    Trainer("huber").gradients(model, X, VALUES)
    assert model.params.tobytes() == before and model.loss is None and model.decision == "value"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": "msee"}, ValueError, "loss: got 'msee'; did you mean 'mse'"),
        ({"loss": "crossentropy"}, ValueError, "loss: got 'crossentropy'; did you mean 'cross_entropy'"),
        ({"loss": 3}, ValueError, "loss: got 3"),
        ({"optimizer": 0.1}, TypeError, "optimizer: got 0.1"),
        ({"optimizer": SGD}, TypeError, "optimizer: got <class"),
        ({"batch_size": 0}, ValueError, "batch_size: got 0, expected at least 1"),
        ({"batch_size": 1.0}, TypeError, "batch_size: got 1.0 of type float"),
        ({"epochs": 0}, ValueError, "epochs: got 0"),
        ({"epochs": True}, TypeError, "epochs: got True"),
        ({"shuffle": 1}, TypeError, "shuffle: got 1"),
        ({"seed": -1}, ValueError, "seed: got -1"),
        ({"validation_split": 1.0}, ValueError, "validation_split: got 1.0, expected at least 0 and at most"),
        ({"validation_split": -0.1}, ValueError, "validation_split: got -0.1"),
        ({"validation_split": math.nan}, ValueError, "validation_split: got nan"),
        ({"tol": -1e-9}, ValueError, "tol: got -1e-09"),
        ({"tol": "small"}, TypeError, "tol: got 'small'"),
        ({"threads": 0}, ValueError, "threads: got 0, expected between 1 and 1024"),
        ({"threads": 2.0}, TypeError, "threads: got 2.0"),
        ({"progress": "yes"}, TypeError, "progress: got 'yes' of type str"),
    ],
)
def test_bad_options(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Trainer(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("X", "y", "options", "message"),
    [
        (X[:, :4], VALUES, {}, r"^X: got shape \(40, 4\), expected \(n_samples, 5\)"),
        (X[0], VALUES[:1], {}, "^X: got shape .*one row"),
        (X[:0], VALUES[:0], {}, "^X: got no rows"),
        (X, VALUES[:39], {}, r"^y: got shape \(39,\), expected 40 rows"),
        (X, None, {}, "^y: "),
        (X, np.where(np.arange(40) == 7, np.nan, VALUES), {}, r"^y: got nan at \[7, 0\]"),
        (np.where(np.arange(200).reshape(40, 5) == 8, np.inf, X), VALUES, {}, r"^X: got inf at \[1, 3\]"),
        (X * 1e39, VALUES, {}, r"^X: got .* at \[0, 0\], too large for float32"),
        (X.astype(object), VALUES, {}, "^X: got dtype object, expected numbers"),
        (X.astype(str), VALUES, {}, "^X: got dtype <U"),
        ([[1, 2, 3, 4, 5], [1]], [1, 2], {}, "^X: .*rows of different lengths"),
        (X, VALUES, {"validation_data": (X, VALUES[:3])}, r"^validation y: got shape \(3,\)"),
        (X, VALUES, {"validation_data": (X[:, :2], VALUES)}, "^validation X: got shape"),
        (X, VALUES, {"validation_data": X}, r"^validation_data: expected a pair \(X, y\)"),
        (X, VALUES, {"validation_data": (X, VALUES, VALUES)}, r"^validation_data: expected a pair"),
    ],
)
def test_a_failing_fit_leaves_the_model_alone(X: object, y: object, options: dict[str, object], message: str) -> None:
    model = MLP([5, 1], seed=1)
    before = model.params.tobytes()
    with pytest.raises((ValueError, TypeError), match=message):
        Trainer("mae").fit(model, X, y, **options)  # type: ignore[arg-type]
    assert model.params.tobytes() == before and model.loss is None and model.decision == "value"


def test_things_that_do_not_go_together() -> None:
    model = MLP([5, 1], seed=1)
    with pytest.raises(ValueError, match="validation_data: got data beside validation_split"):
        Trainer(validation_split=0.1).fit(model, X, VALUES, validation_data=(X, VALUES))
    with pytest.raises(ValueError, match="loss: 'cross_entropy' makes no sense with output 'sigmoid'"):
        Trainer("cross_entropy").fit(MLP([5, 3], output="sigmoid"), X, LABELS)
    with pytest.raises(TypeError, match="model: got list, expected an MLP"):
        Trainer().fit([5, 1], X, VALUES)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model: got NoneType"):
        Trainer().evaluate(None, X, VALUES)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("validation_split", [0.0, 0.25])
def test_overflow_ends_the_training_with_finite_weights(batch_size: int | None, validation_split: float) -> None:
    model = MLP([5, 8, 1], seed=1)
    before = model.params.tobytes()
    trainer = Trainer(
        optimizer=SGD(lr=1e20), batch_size=batch_size, epochs=9, tol=1e-9, validation_split=validation_split
    )
    with pytest.warns(DivergenceWarning, match="training diverged in epoch"):
        history = trainer.fit(model, X, VALUES)
    assert history.stopped == "diverged" and history.epochs < 9
    assert np.isfinite(model.params).all()
    if history.epochs == 1:
        assert model.params.tobytes() == before
    assert len({len(column) for column in history.values()}) == 1  # one entry for each epoch


@pytest.mark.parametrize("callbacks", [(), (Callback(),)], ids=["alone", "watched"])
def test_a_weight_that_no_loss_shows_is_found_too(callbacks: tuple[Callback, ...]) -> None:
    """The weights of a feature that is always zero: no product of sparse rows meets them."""
    rows = np.eye(8, 16, dtype=np.float32)[np.arange(40) % 8]
    model = MLP([16, 64, 1], seed=1)

    def schedule(epoch: int, epochs: int) -> float:
        if epoch == 2:
            model.weights[0][12] = np.nan
        return 1.0

    trainer = Trainer(optimizer=SGD(0.01), schedule=schedule, batch_size=4, epochs=6, callbacks=callbacks)
    with pytest.warns(DivergenceWarning, match="training diverged in epoch"):
        history = trainer.fit(model, rows, np.ones(40))
    assert history.stopped == "diverged" and history.epochs == 3
    assert np.isfinite(history["loss"]).all() and np.isfinite(model.params).all()


def test_a_divergence_that_is_an_error_leaves_finite_weights_too() -> None:
    model = MLP([5, 8, 1], seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DivergenceWarning):
            Trainer(optimizer=SGD(lr=1e20), epochs=9).fit(model, X, VALUES)
    assert np.isfinite(model.params).all()


@pytest.mark.parametrize("size", [1e30, 1e200])
def test_huge_targets_end_in_a_divergence_and_in_nothing_else(size: float) -> None:
    model = MLP([5, 1], dtype="float32" if size < 1e38 else "float64", seed=1)
    with pytest.warns(DivergenceWarning):
        Trainer(epochs=3).fit(model, X, np.full(40, size))
    assert np.isfinite(model.params).all()


def test_a_loss_that_starts_at_zero_is_no_divergence() -> None:
    """A perceptron of zeros is right about every 0: its first loss says nothing of how large losses are."""
    model = MLP([2, 1], output="step", init="zeros")
    history = Trainer(optimizer=SGD(lr=1.0), batch_size=None, epochs=50).fit(model, GATES, [0, 0, 0, 1])
    assert history.stopped == "finished" and model.predict(GATES).tolist() == [0, 0, 0, 1]


def test_divergence_restores_the_best_weights_under_early_stopping() -> None:
    model = MLP([3, 1], bias=False, init="zeros", dtype="float64")
    stopping = EarlyStopping(patience=50, monitor="loss")
    with pytest.warns(DivergenceWarning):
        Trainer(optimizer=SGD(lr=0.024), batch_size=None, epochs=500, early_stopping=stopping).fit(model, ROWS, SUMS)
    assert np.isfinite(model.params).all()


# Ctrl-C --------------------------------------------------------------------------------------------------------------

LONG = """
import signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background ignore it
import numpy as np
from hotloop import MLP, SGD, Trainer, engine
engine.THREAD_PAYS = {pays}
X = np.random.default_rng(0).normal(size=({n}, 20)).astype(np.float32)
model = MLP([20, 30, 1], seed=1)
before, handler = model.params.copy(), signal.getsignal(signal.SIGINT)
trainer = Trainer(optimizer=SGD(lr=1e-4), batch_size={batch_size}, epochs=10**9, threads={threads})
Trainer(optimizer=SGD(lr=1e-4), batch_size={batch_size}, epochs=1, threads={threads}).fit(model, X, X[:, 0])
print("ready", flush=True)
try:
    trainer.fit(model, X, X[:, 0])
except KeyboardInterrupt as error:
    came = time.monotonic()
    assert np.isfinite(model.params).all() and (model.params != before).any()
    assert signal.getsignal(signal.SIGINT) is handler
    assert threading.active_count() == 1
    print(came, trainer.history.stopped, error, sep="\\n")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to another process")
@pytest.mark.parametrize(
    ("n", "batch_size", "threads"),
    [(200_000, 1, 1), (200_000, 32, 1), (200_000, 32, 2), (200_000, None, 2), (4, 1, 1), (4, 4, 2)],
)
def test_ctrl_c_ends_a_training_at_once(n: int, batch_size: int | None, threads: int) -> None:
    code = LONG.format(n=n, batch_size=batch_size, threads=threads, pays=200_000 if threads == 1 else 1)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    came, stopped, message = out.splitlines()
    seconds = float(came) - sent
    # Not asserted: other programs may want the cores. A training that goes on regardless runs into the timeout above.
    print(f"{1000 * seconds:.0f} ms from Ctrl-C to KeyboardInterrupt")
    assert message.startswith("training stopped in epoch ") and "the model keeps what it has learned so far" in message
    assert stopped == "interrupted"


def interrupt_in(module: ModuleType, place: str, monkeypatch: pytest.MonkeyPatch) -> MLP:
    """Ctrl-C arrives in a training while the named kernel runs for the third time."""
    original, calls = getattr(module, place), []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(module, place, interrupted)
    model = MLP([5, 1], seed=1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Trainer(batch_size=1, epochs=50, callbacks=[lambda run: None]).fit(model, X, VALUES)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    return model


@pytest.mark.parametrize(("module", "place"), [(kernels, "per_sample"), (inference, "all_finite")])
def test_ctrl_c_is_never_lost(module: ModuleType, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.isfinite(interrupt_in(module, place, monkeypatch).params).all()


def uninterrupted_fit() -> History:
    """Three epochs that no KeyboardInterrupt may end: it would end the test run."""
    try:
        return Trainer(batch_size=1, epochs=3).fit(MLP([5, 1]), X, VALUES)
    except KeyboardInterrupt:
        pytest.fail("KeyboardInterrupt, though the program had another handler")


def test_a_program_that_ignores_ctrl_c_goes_on_ignoring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = kernels.per_sample

    def interrupted(*arguments: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(kernels, "per_sample", interrupted)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        history = uninterrupted_fit()
        assert history.epochs == 3 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_programs_own_handler_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls, called = kernels.per_sample, [], []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(kernels, "per_sample", interrupted)
    before = signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
    try:
        history = uninterrupted_fit()
    finally:
        signal.signal(signal.SIGINT, before)
    assert called == [signal.SIGINT] and history.epochs == 3  # it chose to go on


# The same bits on every machine ---------------------------------------------------------------------------------------

GOLDEN = {
    "relu-identity-1": "90d05a4170afb35b",
    "tanh-softmax-1": "cc7153f94a9262cf",
    "tanh-softmax-16": "033a41c13f32cf46",
    "gelu-sigmoid-16": "53fd2416623d5280",
}


def golden() -> dict[str, str]:
    """Hashes of float32 weights after short trainings; the inputs are integers, so no library has a say in them."""
    grid = np.arange(48 * 20).reshape(48, 20)
    rows = (grid * 7919 % 13 - 6) / np.float32(4) * (grid * 31 % 5 != 0)
    labels = np.arange(48) * 7 % 3
    found = {}
    for name in GOLDEN:
        hidden, output, batch_size = name.split("-")
        y = {"identity": rows[:, :3], "softmax": labels, "sigmoid": np.eye(3)[labels]}[output]
        model = MLP([20, 33, 17, 3], hidden, output, seed=12)
        Trainer(optimizer=SGD(lr=0.02), batch_size=int(batch_size), epochs=3, seed=34).fit(model, rows, y)
        assert np.isfinite(model.params).all()
        found[name] = hashlib.sha256(b"".join(part.tobytes() for part in model.weights + model.biases)).hexdigest()[:16]
    return found


def test_golden_bits() -> None:
    assert golden() == GOLDEN


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["haswell", "generic"])
def test_golden_bits_on_other_processors(processor: str) -> None:
    """AVX2 code, and code without fused multiply-add, give the bits of this machine's own."""
    if processor == "haswell" and "avx2" not in host_features():
        pytest.skip("this processor has no AVX2")
    environment = {**os.environ, "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    if processor == "haswell":
        del environment["NUMBA_CPU_FEATURES"]
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_trainer; print(test_trainer.golden())"
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(GOLDEN)


def host_features() -> str:
    """The vector extensions of this processor."""
    from hotloop.machine import simd_features

    return " ".join(simd_features())
