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
