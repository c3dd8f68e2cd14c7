"""Figures of merit: the numbers of scikit-learn, in the history and in evaluate, and clear words where none is."""

import math

import numpy as np
import pytest

from hotloop import MLP, SGD, EarlyStopping, Trainer, metrics
from hotloop.monitor import KNOWN, falls

sk = pytest.importorskip("sklearn.metrics")

RNG = np.random.default_rng(12)
X = RNG.normal(size=(80, 4))
NOISE = X + RNG.normal(size=X.shape)
CLASSES = NOISE[:, :3].argmax(axis=1)
TWO = (NOISE[:, 0] > 0.3) * 1
MANY = (NOISE[:, :3] > 0) * 1
VALUES = NOISE[:, :3] * [1, 10, 100]
WEIGHTS = RNG.uniform(0, 3, 80)
OF_CLASSES = ("accuracy", "balanced_accuracy", "f1", "precision", "recall", "auc", "log_loss")
OF_VALUES = ("r2", "mae", "rmse")


def fitted(output: str, loss: str | None, y: np.ndarray, k: int, dtype: str = "float64") -> tuple[MLP, Trainer]:
    """A model trained for a little while, and its trainer."""
    model = MLP([4, k], output=output, dtype=dtype, seed=2)
    trainer = Trainer(loss, SGD(lr=0.02), epochs=5)
    trainer.fit(model, X, y)
    return model, trainer


def evaluated(
    trainer: Trainer, model: MLP, y: np.ndarray, names: tuple[str, ...], weights: np.ndarray | None = None
) -> dict[str, float]:
    """The metrics of these names."""
    found = Trainer(trainer.loss, metrics=names).evaluate(model, X, y, weights)
    assert set(found) == {"loss", *names, *({"r2", "accuracy"} & set(found))}
    return {name: found[name] for name in names}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize(("output", "loss"), [("softmax", None), ("identity", "cross_entropy"), ("softmax", "mse")])
def test_several_classes(output: str, loss: str | None, weights: np.ndarray | None) -> None:
    y = np.eye(3)[CLASSES] if loss == "mse" else CLASSES
    model, trainer = fitted(output, loss, y, 3)
    predicted, shares = model.predict(X), model.forward(X)
    if output == "identity":
        shares = model.predict_proba(X)
    options = {"sample_weight": weights}
    macro = {**options, "average": "macro"}
    assert evaluated(trainer, model, y, OF_CLASSES, weights) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(CLASSES, predicted, **options),
            "balanced_accuracy": sk.balanced_accuracy_score(CLASSES, predicted, **options),
            "f1": sk.f1_score(CLASSES, predicted, **macro),
            "precision": sk.precision_score(CLASSES, predicted, **macro),
            "recall": sk.recall_score(CLASSES, predicted, **macro),
            "auc": sk.roc_auc_score(CLASSES, shares, multi_class="ovr", **macro),
            "log_loss": sk.log_loss(CLASSES, shares, **options),
        },
        rel=1e-12,
    )


BINARY = [
    ("sigmoid", None, TWO, 1),
    ("identity", "logistic", TWO, 1),
    ("softmax", None, TWO, 2),
    ("sigmoid", "mse", TWO, 1),
    ("identity", "hinge", 2 * TWO - 1, 1),
    ("step", None, TWO, 1),
]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize(("output", "loss", "y", "k"), BINARY)
def test_two_classes(output: str, loss: str | None, y: np.ndarray, k: int, weights: np.ndarray | None) -> None:
    model, trainer = fitted(output, loss, y, k)
    predicted, options = (model.predict(X) > 0) * 1, {"sample_weight": weights}
    z = X @ model.weights[0] + model.biases[0]
    scores = z[:, 1] - z[:, 0] if k == 2 else z[:, 0]
    expected = {
        "accuracy": sk.accuracy_score(TWO, predicted, **options),
        "balanced_accuracy": sk.balanced_accuracy_score(TWO, predicted, **options),
        "f1": sk.f1_score(TWO, predicted, **options),
        "precision": sk.precision_score(TWO, predicted, **options),
        "recall": sk.recall_score(TWO, predicted, **options),
        "auc": sk.roc_auc_score(TWO, scores, **options),
    }
    if output in ("sigmoid", "softmax") or loss == "logistic":
        expected["log_loss"] = sk.log_loss(TWO, 1 / (1 + np.exp(-scores)), **options)
    assert evaluated(trainer, model, y, tuple(expected), weights) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("output", "loss", "y"), [("sigmoid", None, MANY), ("identity", "hinge", 2 * MANY - 1)])
def test_labels_that_do_not_exclude_one_another(output: str, loss: str | None, y: np.ndarray) -> None:
    model, trainer = fitted(output, loss, y, 3)
    predicted = (model.predict(X) > 0) * 1
    names = ("accuracy", "f1", "precision", "recall", "auc") + (("log_loss",) if loss is None else ())
    expected = {
        "accuracy": np.mean(predicted == MANY),
        "f1": sk.f1_score(MANY, predicted, average="macro"),
        "precision": sk.precision_score(MANY, predicted, average="macro"),
        "recall": sk.recall_score(MANY, predicted, average="macro"),
        "auc": sk.roc_auc_score(MANY, model.forward(X), average="macro"),
    }
    if loss is None:
        shares = model.forward(X)
        expected["log_loss"] = np.mean([sk.log_loss(MANY[:, j], shares[:, j]) for j in range(3)])
        assert expected["log_loss"] == pytest.approx(trainer.evaluate(model, X, y)["loss"])
    assert evaluated(trainer, model, y, names) == pytest.approx(expected, rel=1e-9)
    each = Trainer(loss, metrics=names).evaluate_each(model, X, y)
    for name in names:
        assert each[name].shape == (3,) and each[name].mean() == pytest.approx(expected[name], rel=1e-9)
    with pytest.raises(ValueError, match=r"'balanced_accuracy' makes no sense .* do not exclude one another"):
        Trainer(loss, metrics=["balanced_accuracy"]).evaluate(model, X, y)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("loss", ["mse", "huber", "poisson"])
def test_values(k: int, loss: str, weights: np.ndarray | None) -> None:
    y = VALUES[:, :k] if loss != "poisson" else np.abs(VALUES[:, :k] // 10)
    model, trainer = fitted("identity", loss, y, k)
    predicted = model.predict(X).reshape(80, k)
    options = {"sample_weight": weights}
    expected = {
        "r2": sk.r2_score(y, predicted, **options),
        "mae": sk.mean_absolute_error(y, predicted, **options),
        "rmse": sk.root_mean_squared_error(y, predicted, **options),
    }
    found = evaluated(trainer, model, y, OF_VALUES, weights)
    assert found == pytest.approx(expected, rel=1e-9)
    each = Trainer(loss, metrics=OF_VALUES).evaluate_each(model, X, y)
    np.testing.assert_allclose(each["r2"], sk.r2_score(y, predicted, multioutput="raw_values"), rtol=1e-9)
    np.testing.assert_allclose(each["mae"], np.abs(y - predicted).mean(axis=0), rtol=1e-9)


def test_every_class_against_the_rest() -> None:
    model, _ = fitted("softmax", None, CLASSES, 3)
    each = Trainer(metrics=("f1", "auc", "recall")).evaluate_each(model, X, CLASSES)
    predicted = model.predict(X)
    np.testing.assert_allclose(each["f1"], sk.f1_score(CLASSES, predicted, average=None))
    np.testing.assert_allclose(each["recall"], sk.recall_score(CLASSES, predicted, average=None))
    assert each["accuracy"].shape == each["auc"].shape == (3,)


def test_a_weighted_loss_is_that_of_repeated_samples() -> None:
    counts = RNG.integers(0, 4, 80)
    repeated = np.repeat(np.arange(80), counts)
    for output, y, k in (("softmax", CLASSES, 3), ("identity", VALUES[:, 0], 1), ("sigmoid", MANY, 3)):
        model, _ = fitted(output, None, y, k)
        names = ("auc", "f1") if output != "identity" else ("mae", "rmse")
        trainer = Trainer(metrics=names)
        weighted = trainer.evaluate(model, X, y, sample_weight=counts)
        assert weighted == pytest.approx(trainer.evaluate(model, X[repeated], y[repeated]), rel=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_history_has_them(dtype: str) -> None:
    model = MLP([4, 6, 3], output="softmax", dtype=dtype, seed=1)
    trainer = Trainer(epochs=3, metrics=("f1", "auc", "f1", "accuracy"))
    history = trainer.fit(model, X, CLASSES, validation_data=(X, CLASSES))
    assert list(history) == ["loss", "lr", "seconds", "val_loss", "val_accuracy", "val_f1", "val_auc"]
    found = trainer.evaluate(model, X, CLASSES)
    assert {name: history[f"val_{name}"][-1] for name in found} == found


@pytest.mark.parametrize(("monitor", "rising"), [("val_f1", True), ("val_log_loss", False)])
def test_early_stopping_watches_them(monitor: str, rising: bool) -> None:
    model = MLP([4, 16, 3], output="softmax", seed=1)
    trainer = Trainer(
        optimizer=SGD(lr=0.2),
        batch_size=1,
        epochs=40,
        early_stopping=EarlyStopping(patience=3, monitor=monitor),
        metrics=("f1", "log_loss"),
    )
    history = trainer.fit(model, X[:60], CLASSES[:60], validation_data=(X[60:], CLASSES[60:]))
    best = max(history[monitor]) if rising else min(history[monitor])
    assert trainer.evaluate(model, X[60:], CLASSES[60:])[monitor.removeprefix("val_")] == best
    with pytest.raises(ValueError, match=f"early_stopping: monitors '{monitor}'.* there is only val_accuracy, besides"):
        Trainer(validation_split=0.2, early_stopping=EarlyStopping(monitor=monitor)).fit(model, X, CLASSES)
    assert {f"val_{name}" for name in metrics.METRICS} < set(KNOWN)


def test_what_cannot_be_told_is_nan_or_0_and_no_warning() -> None:
    model, trainer = fitted("softmax", None, CLASSES, 3)
    names = ("auc", "f1", "precision", "log_loss")
    for truth, known in ((np.zeros(80, int), False), (TWO, True)):  # one class only; one class missing
        found = evaluated(trainer, model, truth, names)
        assert math.isnan(found["auc"]) != known and math.isfinite(found["f1"] + found["log_loss"])
    model, trainer = fitted("identity", None, VALUES[:, 0], 1)
    assert evaluated(trainer, model, np.ones(80), ("r2",))["r2"] == 0.0


@pytest.mark.parametrize(
    ("output", "loss", "y", "k", "name", "reason"),
    [
        ("identity", None, VALUES, 3, "f1", "the model gives values, not classes"),
        ("softmax", None, CLASSES, 3, "rmse", "the model tells classes, not values"),
        ("sigmoid", None, MANY, 3, "r2", "the model tells classes, not values"),
        ("identity", "hinge", 2 * TWO - 1, 1, "log_loss", "its outputs are no probabilities"),
        ("step", None, TWO, 1, "log_loss", "its outputs are no probabilities"),
    ],
)
def test_metrics_that_make_no_sense(
    output: str, loss: str | None, y: np.ndarray, k: int, name: str, reason: str
) -> None:
    model = MLP([4, k], output=output, seed=1)
    before = model.params.tobytes()
    trainer = Trainer(loss, metrics=[name])
    for act in (trainer.fit, trainer.evaluate):
        with pytest.raises(ValueError, match=f"metrics: '{name}' makes no sense with loss .*: {reason}"):
            act(model, X, y)
    assert model.params.tobytes() == before and model.loss is None


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="metrics: got 'acuracy'; did you mean 'accuracy'"):
        Trainer(metrics=["acuracy"])
    with pytest.raises(TypeError, match="metrics: got 'f1', expected a sequence of names"):
        Trainer(metrics="f1")
    with pytest.raises(TypeError, match="metrics: got 5"):
        Trainer(metrics=5)  # type: ignore[arg-type]


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"metrics: 'f1' is computed by scikit-learn: pip install 'hotloop\[sklearn\]'"
    ):
        Trainer(metrics=["f1"])
    Trainer(metrics=["accuracy", "r2", "mae", "rmse"])


def test_smaller_is_better() -> None:
    smaller = {name for name in KNOWN if name.startswith("val_") and falls(name, None)}
    assert smaller == {"val_loss", "val_log_loss", "val_mae", "val_rmse"}
