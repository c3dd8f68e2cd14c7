"""Early stopping: what it accepts, when it stops, and which weights it leaves."""

import math

import numpy as np
import pytest

from hotloop import MLP, SGD, EarlyStopping, History, Trainer

RNG = np.random.default_rng(5)
X = RNG.normal(size=(24, 6))
NOISE = RNG.normal(size=24)  # nothing to learn: validation gets worse while training gets better
XV, NOISE_V = RNG.normal(size=(24, 6)), RNG.normal(size=24)


def overfit(stopping: EarlyStopping | None, epochs: int = 200, **options: object) -> tuple[MLP, History]:
    """A training that overfits noise, with the same seed each time."""
    model = MLP([6, 16, 1], activation="tanh", seed=2)
    trainer = Trainer(optimizer=SGD(lr=0.1), batch_size=4, epochs=epochs, early_stopping=stopping, **options)  # type: ignore[arg-type]
    return model, trainer.fit(model, X, NOISE, validation_data=(XV, NOISE_V))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"patience": 0}, ValueError, "patience: got 0, expected at least 1"),
        ({"patience": 1.5}, TypeError, "patience: got 1.5 of type float"),
        ({"min_delta": -1e-3}, ValueError, "min_delta: got -0.001"),
        ({"min_delta": math.nan}, ValueError, "min_delta: got nan"),
        ({"monitor": "val_los"}, ValueError, "monitor: got 'val_los'; did you mean 'val_loss'"),
        ({"restore_best": 1}, TypeError, "restore_best: got 1"),
    ],
)
def test_bad_arguments(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EarlyStopping(**options)  # type: ignore[arg-type]


def test_score_is_smaller_for_better() -> None:
    assert EarlyStopping(monitor="val_loss").score(0.5) < EarlyStopping(monitor="val_loss").score(0.6)
    for monitor in ("val_accuracy", "val_r2"):
        assert EarlyStopping(monitor=monitor).score(0.6) < EarlyStopping(monitor=monitor).score(0.5)


@pytest.mark.parametrize("patience", [1, 3, 10])
@pytest.mark.parametrize("monitor", ["val_loss", "val_r2"])
def test_it_stops_after_patience_epochs_and_restores_the_best_weights(patience: int, monitor: str) -> None:
    model, history = overfit(EarlyStopping(patience=patience, monitor=monitor))
    assert history.stopped == "early stopping" and history.epochs < 200
    best = int(np.argmin(history["val_loss"]))  # r2 on fixed data is the loss upside down
    assert history.epochs == best + 1 + patience
    twin, _ = overfit(None, epochs=best + 1)
    assert model.params.tobytes() == twin.params.tobytes()
    assert Trainer().evaluate(model, XV, NOISE_V)["loss"] == history["val_loss"][best]


def test_restore_best_false_leaves_the_last_weights() -> None:
    model, history = overfit(EarlyStopping(patience=3, restore_best=False))
    assert history.stopped == "early stopping"
    twin, _ = overfit(None, epochs=history.epochs)
    assert model.params.tobytes() == twin.params.tobytes()


def test_the_best_weights_are_restored_when_the_epochs_run_out_too() -> None:
    model, history = overfit(EarlyStopping(patience=1000), epochs=60)
    assert history.stopped == "finished" and history.epochs == 60
    assert Trainer().evaluate(model, XV, NOISE_V)["loss"] == min(history["val_loss"]) < history["val_loss"][-1]


def test_min_delta_counts_small_improvements_as_none() -> None:
    _, patient = overfit(EarlyStopping(patience=5, monitor="loss"), epochs=50)
    _, strict = overfit(EarlyStopping(patience=5, monitor="loss", min_delta=100.0), epochs=50)
    assert strict.epochs == 6 and strict.stopped == "early stopping"  # the first epoch is always an improvement
    assert patient.epochs > 6


def test_accuracy_of_classes_is_monitored() -> None:
    labels = RNG.integers(0, 3, 24)
    model = MLP([6, 3], output="softmax")
    stopping = EarlyStopping(patience=4, monitor="val_accuracy")
    history = Trainer(optimizer=SGD(lr=0.5), epochs=200, early_stopping=stopping).fit(
        model, X, labels, validation_data=(XV, labels)
    )
    best = int(np.argmax(history["val_accuracy"]))
    assert history.stopped == "early stopping" and history.epochs == best + 5
    assert Trainer().evaluate(model, XV, labels)["accuracy"] == max(history["val_accuracy"])


def test_loss_needs_no_validation_data() -> None:
    model = MLP([6, 1])
    history = Trainer(epochs=3, early_stopping=EarlyStopping(monitor="loss")).fit(model, X, NOISE)
    assert history.epochs == 3


def test_a_figure_that_will_not_exist_is_refused_before_anything_changes() -> None:
    model = MLP([6, 1], seed=1)
    before = model.params.copy()
    with pytest.raises(ValueError, match=r"early_stopping: monitors 'val_loss', but there is no validation data"):
        Trainer(early_stopping=EarlyStopping()).fit(model, X, NOISE)
    for loss, monitor in ((None, "val_accuracy"), ("logistic", "val_r2")):
        with pytest.raises(ValueError, match=f"early_stopping: monitors '{monitor}'"):
            Trainer(loss=loss, early_stopping=EarlyStopping(monitor=monitor), validation_split=0.5).fit(
                model, X, (NOISE > 0) * 1.0
            )
    assert model.params.tobytes() == before.tobytes() and model.loss is None


def test_the_wrong_object() -> None:
    with pytest.raises(TypeError, match=r"early_stopping: got 5, expected EarlyStopping\(patience=...\)"):
        Trainer(early_stopping=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("restore_best", [True, False])
def test_a_target_stops_at_once(restore_best: bool) -> None:
    _, plain = overfit(None, epochs=30)
    target = min(plain["loss"][:9])
    epochs = plain["loss"].index(target) + 1
    stopping = EarlyStopping(monitor="loss", target=target, min_delta=10.0, patience=100, restore_best=restore_best)
    model, history = overfit(stopping)
    assert history.stopped == "target" and history.epochs == epochs > 1
    twin, _ = overfit(None, epochs=epochs)  # its own weights, although min_delta counts no improvement
    assert model.params.tobytes() == twin.params.tobytes()


def test_a_target_that_rises() -> None:
    labels = RNG.integers(0, 2, 24)
    stopping = EarlyStopping(monitor="val_accuracy", target=1.0, patience=10_000)
    model = MLP([6, 32, 2], output="softmax", seed=1)
    trainer = Trainer(optimizer=SGD(lr=0.1), epochs=5000, early_stopping=stopping)
    history = trainer.fit(model, X, labels, validation_data=(X, labels))
    assert history.stopped == "target" and history["val_accuracy"][-1] == 1.0 and max(history["val_accuracy"][:-1]) < 1


def test_a_figure_of_another_name() -> None:
    assert EarlyStopping(monitor="kappa", mode="max").score(1.0) == -1.0
    assert EarlyStopping(monitor="val_accuracy", mode="min").score(1.0) == 1.0
    assert (
        EarlyStopping(monitor="val_balanced_accuracy").score(1.0) == EarlyStopping(monitor="val_auc").score(1.0) == -1
    )
    assert EarlyStopping(monitor="val_rmse").score(1.0) == EarlyStopping(monitor="log_loss").score(1.0) == 1
    with pytest.raises(ValueError, match="early_stopping: monitors 'kappa', but this training has only loss, lr, sec"):
        Trainer(early_stopping=EarlyStopping(monitor="kappa", mode="max")).fit(MLP([6, 1]), X, NOISE)
    for options, message in (
        ({"mode": "up"}, "mode: got 'up'"),
        ({"target": math.nan}, "target: got nan, expected a finite number"),
        ({"monitor": "kappa"}, "monitor: got 'kappa'"),
    ):
        with pytest.raises(ValueError, match=message):
            EarlyStopping(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="monitor: got 3"):
        EarlyStopping(monitor=3, mode="min")  # type: ignore[arg-type]


# Time ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_time_limit_stops_within_an_epoch_and_keeps_what_is_learned(batch_size: int) -> None:
    rows, values = np.tile(X, (50_000, 1)).astype(np.float32), np.tile(NOISE, 50_000)
    model = MLP([6, 16, 1], seed=2)
    trainer = Trainer(batch_size=batch_size, epochs=10**6, max_seconds=0.1)
    history = trainer.fit(model, rows, values, validation_data=(XV, NOISE_V))
    assert history.stopped == "time" and history.epochs == 1
    assert (model.params != MLP([6, 16, 1], seed=2).params).any()
    figures = Trainer().evaluate(model, XV, NOISE_V)
    assert history["val_loss"] == [figures["loss"]] and history["val_r2"] == [figures["r2"]]


def test_the_time_limit_and_early_stopping() -> None:
    """The best weights are restored, as at any other end."""
    model, history = overfit(EarlyStopping(patience=10**6), epochs=10**6, max_seconds=0.3)
    assert history.stopped == "time" and 1 < history.epochs < 10**6
    assert Trainer().evaluate(model, XV, NOISE_V)["loss"] == min(history["val_loss"])


def test_a_training_that_is_done_in_time() -> None:
    assert overfit(None, epochs=2, max_seconds=1000)[1].stopped == "finished"


@pytest.mark.parametrize("limit", [0, -1, math.nan])
def test_bad_limits(limit: float) -> None:
    with pytest.raises(ValueError, match="max_seconds: got"):
        Trainer(max_seconds=limit)
