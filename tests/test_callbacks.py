"""Callbacks: when they are called, what they see, what they may change, and what happens when they fail."""

import math
import signal
from pathlib import Path

import numpy as np
import pytest

from hotloop import MLP, SGD, AveragedSGD, BestModel, Callback, EarlyStopping, Trainer, engine
from hotloop.callbacks import Run

RNG = np.random.default_rng(11)
X = RNG.normal(size=(40, 5))
Y = X @ RNG.normal(size=5)
MANY = np.tile(X, (2000, 1))  # several pieces to an epoch
MANY_Y = np.tile(Y, 2000)


class Diary(Callback):
    """Writes down what it is called for, and fails at one place if told so."""

    def __init__(self, fail: str = "") -> None:
        self.calls: list[str] = []
        self.fail = fail

    def note(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fail:
            raise RuntimeError(f"failed in {name}")

    def begin(self, run: Run) -> None:
        self.note("begin")

    def piece(self, run: Run) -> None:
        self.note("piece")

    def epoch(self, run: Run) -> None:
        self.note("epoch")

    def end(self, run: Run) -> None:
        self.note("end")


def test_the_order_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    diary = Diary()
    Trainer(epochs=2, callbacks=[diary]).fit(MLP([5, 1]), X, Y)
    assert diary.calls == ["begin", "piece", "epoch", "piece", "epoch", "end"]
    diary = Diary()
    monkeypatch.setattr(engine, "PIECE_SECONDS", 1e-4)
    Trainer(batch_size=1, epochs=2, callbacks=[diary]).fit(MLP([5, 1]), MANY, MANY_Y)
    assert diary.calls.count("piece") > 4 and diary.calls.count("epoch") == 2


def test_what_a_run_shows() -> None:
    seen = []

    class Look(Callback):
        def piece(self, run: Run) -> None:
            seen.append((run.epoch, run.samples, run.lr))
            assert run.model is model and run.trainer is trainer

        def epoch(self, run: Run) -> None:
            assert run.history.epochs == run.epoch + 1 and run.samples == 40
            assert run.figures == {name: column[-1] for name, column in run.history.items()}
            assert list(run.history) == list(run.columns)

    model = MLP([5, 1])
    trainer = Trainer(optimizer=SGD(0.1), schedule=lambda epoch, epochs: 1 / (1 + epoch), epochs=3, callbacks=[Look()])
    history = trainer.fit(model, X, Y, validation_data=(X, Y))
    assert seen == [(0, 40, 0.1), (1, 40, 0.05), (2, 40, pytest.approx(0.1 / 3))]
    assert trainer.history is history


def test_a_function_is_called_behind_every_epoch() -> None:
    losses: list[float] = []
    trainer = Trainer(epochs=3, callbacks=[lambda run: losses.append(run.history["loss"][-1])])
    assert trainer.fit(MLP([5, 1]), X, Y)["loss"] == losses


def test_callbacks_that_only_look_change_no_bit() -> None:
    models = MLP([5, 1], seed=1), MLP([5, 1], seed=1)
    for model, callbacks in zip(models, ((), (Diary(),)), strict=True):
        Trainer(batch_size=1, epochs=2, callbacks=callbacks).fit(model, MANY, MANY_Y)
    assert models[0].params.tobytes() == models[1].params.tobytes()


@pytest.mark.parametrize("place", ["begin", "piece", "epoch", "end"])
def test_an_error_ends_the_training_and_comes_through(place: str) -> None:
    before, after, failing = Diary(), Diary(), Diary(place)
    handler = signal.getsignal(signal.SIGINT)
    model = MLP([5, 1], seed=1)
    trainer = Trainer(epochs=3, callbacks=[before, failing, after])
    with pytest.raises(RuntimeError, match=f"failed in {place}"):
        trainer.fit(model, X, Y)
    assert before.calls[-1] == failing.calls[-1] == "end"
    assert after.calls == [] if place == "begin" else after.calls[-1] == "end"
    assert trainer.history.stopped == "error" and np.isfinite(model.params).all()
    assert signal.getsignal(signal.SIGINT) is handler
    failing.fail = ""
    assert trainer.fit(model, X, Y).stopped == "finished"


def test_two_errors_are_both_told() -> None:
    first, second = Diary("epoch"), Diary("end")
    with pytest.raises(RuntimeError, match="failed in end") as caught:
        Trainer(callbacks=[first, second]).fit(MLP([5, 1]), X, Y)
    assert "failed in epoch" in str(caught.value.__context__) and first.calls[-1] == "end"


@pytest.mark.parametrize("place", ["begin", "piece", "epoch"])
def test_a_callback_stops_the_training(place: str) -> None:
    class Stop(Callback):
        def stop(self, run: Run) -> None:
            run.stop("enough")
            run.stop("the first reason counts")

    setattr(Stop, place, Stop.stop)
    model = MLP([5, 1], seed=1)
    history = Trainer(batch_size=1, epochs=9, callbacks=[Stop()]).fit(model, MANY, MANY_Y)
    assert history.stopped == "enough" and history.epochs == (place != "begin")
    assert (model.params == MLP([5, 1], seed=1).params).all() == (place == "begin")
    with pytest.raises(ValueError, match="reason: got ''"):
        Trainer(callbacks=[lambda run: run.stop("")]).fit(model, X, Y)


def test_an_epoch_that_was_ended_early_counts_the_samples_it_had() -> None:
    samples = []

    class Stop(Callback):
        def piece(self, run: Run) -> None:
            samples.append(run.samples)
            run.stop()

    twin, model = MLP([5, 1], dtype="float64", seed=1), MLP([5, 1], dtype="float64", seed=1)
    trainer = Trainer(batch_size=1, epochs=3, shuffle=False, callbacks=[Stop()])
    history = trainer.fit(model, MANY, MANY_Y, validation_data=(X, Y))
    [n] = samples
    assert history.stopped == "callback" and n < len(MANY) and history.epochs == 1
    whole = Trainer(batch_size=1, epochs=1, shuffle=False).fit(twin, MANY[:n], MANY_Y[:n])
    assert model.params.tobytes() == twin.params.tobytes() and history["loss"] == whole["loss"]
    assert history["val_loss"] == [Trainer().evaluate(model, X, Y)["loss"]]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_callback_changes_the_learning_rate(batch_size: int) -> None:
    def halve(run: Run) -> None:
        run.lr_factor *= 0.5

    one, two = MLP([5, 3, 1], seed=1), MLP([5, 3, 1], seed=1)
    history = Trainer(optimizer=SGD(0.015625), batch_size=batch_size, epochs=4, callbacks=[halve]).fit(one, X, Y)
    assert history["lr"] == [0.015625 * 0.5**epoch for epoch in range(4)]
    trainer = Trainer(optimizer=SGD(0.015625), batch_size=batch_size, epochs=4, schedule=lambda epoch, _: 0.5**epoch)
    trainer.fit(two, X, Y)
    assert one.params.tobytes() == two.params.tobytes()


def test_a_learning_rate_of_zero_from_the_next_piece_on() -> None:
    seen = []

    class Freeze(Callback):
        def piece(self, run: Run) -> None:
            run.lr_factor = 0.0
            seen.append(run.model.params.copy())

    Trainer(batch_size=1, epochs=2, callbacks=[Freeze()]).fit(MLP([5, 1]), MANY, MANY_Y)
    assert len(seen) > 2 and all((params == seen[0]).all() for params in seen)


@pytest.mark.parametrize("factor", [-1.0, math.nan, "fast"])
def test_a_bad_factor_is_refused(factor: float) -> None:
    def spoil(run: Run) -> None:
        run.lr_factor = factor

    with pytest.raises((ValueError, TypeError), match=f"lr_factor: got '?{factor}"):
        Trainer(callbacks=[spoil]).fit(MLP([5, 1]), X, Y)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Diary(), "callbacks: got .* expected a list of callbacks"),
        ([Diary], r"callbacks\[0\]: got <class"),
        ([Diary(), 3], r"callbacks\[1\]: got 3, expected a Callback or a function"),
    ],
)
def test_the_wrong_objects(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Trainer(callbacks=value)  # type: ignore[arg-type]


def test_end_sees_the_model_as_it_will_be() -> None:
    class End(Callback):
        def end(self, run: Run) -> None:
            seen.append((run.model.params.tobytes(), run.history.stopped))

    seen: list[tuple[bytes, str]] = []
    model = MLP([5, 1], seed=1)
    stopping = EarlyStopping(patience=1, min_delta=100.0, monitor="loss")
    Trainer(epochs=9, early_stopping=stopping, callbacks=[End()]).fit(model, X, Y)
    assert seen == [(model.params.tobytes(), "early stopping")]


# BestModel -----------------------------------------------------------------------------------------------------------


def test_the_best_model_is_saved(tmp_path: Path) -> None:
    noise, held = RNG.normal(size=40), RNG.normal(size=(40, 5))
    model, path = MLP([5, 30, 1], "tanh", seed=1), tmp_path / "best.safetensors"
    losses = []
    best = BestModel(path)
    trainer = Trainer(
        optimizer=SGD(0.2), batch_size=4, epochs=40,
        callbacks=[best, lambda run: losses.append(Trainer().evaluate(MLP.load(path), held, noise)["loss"])],
    )  # fmt: skip
    for _ in range(2):  # the second run begins from nothing
        losses.clear()
        history = trainer.fit(model, X, noise, validation_data=(held, noise))
        assert losses == np.minimum.accumulate(history["val_loss"]).tolist() and losses[-1] < history["val_loss"][-1]
    assert list(tmp_path.iterdir()) == [path] and MLP.load(path).loss == "mse"


def test_the_best_model_by_a_figure_that_rises(tmp_path: Path) -> None:
    path, labels, held = tmp_path / "best.safetensors", RNG.integers(0, 2, 40), RNG.normal(size=(40, 5))
    trainer = Trainer(optimizer=SGD(0.5), epochs=30, callbacks=[BestModel(path, "val_accuracy")])
    history = trainer.fit(MLP([5, 20, 2], output="softmax"), X, labels, validation_data=(held, labels))
    found = Trainer().evaluate(MLP.load(path), held, labels)["accuracy"]
    assert found == max(history["val_accuracy"]) > history["val_accuracy"][-1]


def test_the_best_model_of_averaged_sgd_is_the_mean(tmp_path: Path) -> None:
    model, path = MLP([5, 1], seed=1), tmp_path / "best.safetensors"
    trainer = Trainer(optimizer=AveragedSGD(0.01), epochs=3, callbacks=[BestModel(path, "loss")])
    trainer.fit(model, X, Y)
    assert MLP.load(path).params.tobytes() == model.params.tobytes()


def test_a_best_model_that_cannot_be_saved(tmp_path: Path) -> None:
    model = MLP([5, 1], seed=1)
    before = model.params.tobytes()
    with pytest.raises(ValueError, match="BestModel: monitors 'val_loss', but there is no validation data"):
        Trainer(callbacks=[BestModel(tmp_path / "best")]).fit(model, X, Y)
    with pytest.raises(FileNotFoundError, match=r"path: folder .* does not exist"):
        Trainer(callbacks=[BestModel(tmp_path / "nowhere" / "best", "loss")]).fit(model, X, Y)
    assert model.params.tobytes() == before
    with pytest.raises(ValueError, match="monitor: got 'val_los'; did you mean 'val_loss'"):
        BestModel(tmp_path / "best", "val_los")
    with pytest.raises(ValueError, match="min_delta: got -1"):
        BestModel(tmp_path / "best", min_delta=-1)
