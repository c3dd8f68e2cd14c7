"""Values of classes: text and numbers in, the same values out, and clear words about those that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from hotloop import MLP, SGD, EarlyStopping, Trainer
from hotloop import classes as values

RNG = np.random.default_rng(8)
X = RNG.normal(size=(60, 4))
CODES = X[:, :3].argmax(axis=1)
NAMES = np.array(["bee", "ant", "cow"])
TWO = (X[:, 0] > 0) * 1


def labels(kind: str, codes: np.ndarray) -> object:
    """Class numbers as values that people have; sorted, the values keep the order of the numbers."""
    text = np.array(["ant", "bee", "cow"])[codes]
    found: dict[str, object] = {
        "array": text,
        "list": text.tolist(),
        "objects": text.astype(object),
        "column": text[:, None],
        "tuple": tuple(text.tolist()),
    }
    for library in ("pandas", "polars"):
        if kind == library:
            return pytest.importorskip(library).Series(text)
    if kind == "categorical":
        return pytest.importorskip("pandas").Series(text, dtype="category")
    return found[kind]


KINDS = ["array", "list", "objects", "column", "tuple", "pandas", "polars", "categorical"]


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_learned_and_predicted(kind: str) -> None:
    named, numbered = MLP([4, 8, 3], output="softmax", seed=1), MLP([4, 8, 3], output="softmax", seed=1)
    trainer = Trainer(optimizer=SGD(lr=0.2), batch_size=4, epochs=20, validation_split=0.2)
    y = labels(kind, CODES)
    one, other = trainer.fit(named, X, y), trainer.fit(numbered, X, CODES)  # type: ignore[arg-type]
    assert named.params.tobytes() == numbered.params.tobytes()
    assert one["val_accuracy"] == other["val_accuracy"]
    assert named.classes is not None and named.classes.tolist() == ["ant", "bee", "cow"] and numbered.classes is None
    predicted = named.predict(X)
    assert predicted.tolist() == named.classes[numbered.predict(X)].tolist()
    assert [named.predict_one(row) for row in X] == predicted.tolist()
    np.testing.assert_array_equal(named.predict_proba(X), numbered.predict_proba(X))
    assert trainer.evaluate(named, X, y) == trainer.evaluate(numbered, X, CODES)  # type: ignore[arg-type]
    assert trainer.evaluate(named, X, np.eye(3)[CODES])["accuracy"] == np.mean(predicted == labels("array", CODES))


OUTPUTS = [
    ("sigmoid", None, TWO),
    ("sigmoid", "mse", TWO),
    ("identity", "logistic", TWO),
    ("step", None, TWO),
    ("identity", "hinge", 2 * TWO - 1),
    ("tanh", "squared_hinge", 2 * TWO - 1),
    ("softmax", "mse", np.eye(3)[CODES]),
    ("identity", "cross_entropy", CODES),
    ("identity", "hinge", CODES),
    ("step", "perceptron", CODES),
]


@pytest.mark.parametrize(("output", "loss", "y"), OUTPUTS)
@pytest.mark.parametrize("given", [["no", "yes", "zero"], [9, 4, 7], [0.5, -1.5, 2.5]])
def test_every_way_to_tell_classes_apart(output: str, loss: str | None, y: np.ndarray, given: list[object]) -> None:
    k = 3 if y.ndim == 2 or y.max() > 1 else 1
    codes, trainer = CODES if k == 3 else TWO, Trainer(loss, SGD(lr=0.1), batch_size=1, epochs=5)
    named, numbered = MLP([4, k], output=output, seed=1), MLP([4, k], output=output, seed=1)
    named.classes = given[: max(2, k)]  # in the order given, which need not be sorted
    spelled = [given[code] for code in codes]
    trainer.fit(named, X, spelled)
    trainer.fit(numbered, X, y)
    assert named.params.tobytes() == numbered.params.tobytes()
    found = numbered.predict(X)
    expected = [given[int(code > 0) if k == 1 else code] for code in found]
    assert named.predict(X).tolist() == expected
    assert [named.predict_one(row) for row in X] == expected
    assert trainer.evaluate(named, X, spelled) == trainer.evaluate(numbered, X, y)


def test_numbers_set_no_classes_and_none_takes_them_away() -> None:
    model = MLP([4, 3], output="softmax")
    Trainer(epochs=1).fit(model, X, CODES)
    assert model.classes is None
    model.classes = NAMES
    assert model.predict(X).dtype.kind == "U"
    model.classes = None
    assert model.predict(X).dtype.kind == "i"


def test_classes_are_not_written_to() -> None:
    model, mine = MLP([4, 3], output="softmax"), NAMES.copy()
    model.classes = mine
    mine[0] = "x"
    assert model.classes.tolist() == ["bee", "ant", "cow"]
    with pytest.raises(ValueError, match="read-only"):
        model.classes[0] = "x"


@pytest.mark.parametrize(
    ("k", "given", "message"),
    [
        (3, ["a", "b"], r"classes: got 2 classes \('a', 'b'\), expected 3"),
        (1, ["a"], r"classes: got 1 classes \('a'\), expected 2"),
        (3, ["a", "b", "a"], "classes: got .*expected every value once"),
        (3, ["a", "b", 3], "classes: got both text and numbers"),
        (3, [1, 2, None], "classes: got None, expected text or finite numbers"),
        (3, [1, 2, np.inf], "classes: got inf"),
        (3, [], "classes: got "),
        (3, [[1], [2], [3]], r"classes: got \[1\]"),
        (3, 5, "classes: got 5"),
    ],
)
def test_classes_that_do_not_fit(k: int, given: object, message: str) -> None:
    model = MLP([4, k], output="sigmoid" if k == 1 else "softmax")
    with pytest.raises((ValueError, TypeError), match=message):
        model.classes = given  # type: ignore[assignment]
    assert model.classes is None


@pytest.mark.parametrize(
    ("output", "y", "message"),
    [
        ("softmax", np.array(["a", "b"])[TWO], r"y: got 2 classes \('a', 'b'\), expected 3, as many as the outputs"),
        ("softmax", np.where(CODES == 2, None, NAMES[CODES].astype(object)), r"y: got None at \[\d+\], expected a cl"),
        ("softmax", np.where(CODES == 2, 5, NAMES[CODES].astype(object)), "y: got both text and numbers"),
        ("softmax", NAMES[CODES].reshape(30, 2), r"y: got shape \(30, 2\), expected one class for each row"),
        ("softmax", NAMES[CODES][:50], r"y: got shape \(50,\), expected 60 rows"),
        ("softmax", NAMES[CODES].astype("S"), r"y: got b'...' at \[0\], expected a class, text or a number"),
        ("identity", NAMES[CODES], "y: got dtype <U3, expected numbers"),
        ("sigmoid", NAMES[CODES], "y: got dtype <U3, expected numbers"),
    ],
)
def test_text_that_cannot_be_learned(output: str, y: np.ndarray, message: str) -> None:
    model = MLP([4, 3], output=output)
    before = model.params.tobytes()
    with pytest.raises((ValueError, TypeError), match=message):
        Trainer().fit(model, X, y)
    assert model.params.tobytes() == before and model.classes is None and model.loss is None


def test_labels_that_the_model_does_not_know() -> None:
    model = MLP([4, 3], output="softmax")
    with pytest.raises(TypeError, match=r"y: got dtype <U3.*model\.classes"):
        Trainer().evaluate(model, X, NAMES[CODES])
    Trainer(epochs=1).fit(model, X, NAMES[CODES])
    with pytest.raises(ValueError, match=r"y: got 'dog' at \[1\], expected one of the classes 'ant', 'bee', 'cow'"):
        Trainer().evaluate(model, X[:2], ["ant", "dog"])
    with pytest.raises(ValueError, match=r"y: got 0 at \[0\]"):
        Trainer().fit(model, X, CODES * 0)
    y = NAMES[CODES].copy()
    y[3] = "dog"
    with pytest.raises(ValueError, match=r"validation y: got 'dog' at \[3\]"):
        Trainer().fit(model, X, NAMES[CODES], validation_data=(X, y))


def test_text_in_chunks_and_in_single_rows() -> None:
    named, numbered, y = (*(MLP([4, 3], output="softmax", seed=1) for _ in range(2)), NAMES[CODES])
    for act in (lambda: Trainer().partial_fit(named, X, y), lambda: Trainer().learn_one(named, X[0], "bee")):
        with pytest.raises(TypeError, match=r"y: got dtype <U3.*once model\.classes is set"):
            act()
    named.classes = NAMES
    one, other = Trainer(epochs=2), Trainer(epochs=2)
    assert one.partial_fit(named, X, y) == other.partial_fit(numbered, X, CODES)
    assert [one.learn_one(named, row, str(label)) for row, label in zip(X, y, strict=True)] == [
        other.learn_one(numbered, row, code) for row, code in zip(X, CODES, strict=True)
    ]
    assert named.params.tobytes() == numbered.params.tobytes()


def test_class_weights_go_by_the_values() -> None:
    named, numbered = (MLP([4, 3], output="softmax", seed=1) for _ in range(2))
    Trainer(epochs=2).fit(named, X, NAMES[CODES], class_weight={"cow": 3.0, "ant": 0.5})
    Trainer(epochs=2).fit(numbered, X, np.array([1, 0, 2])[CODES], class_weight={2: 3.0, 0: 0.5})
    assert named.params.tobytes() == numbered.params.tobytes()


def test_classes_where_none_are_told_apart() -> None:
    for output, loss in (("sigmoid", None), ("identity", "mse")):
        model = MLP([4, 3], output=output)
        model.classes = NAMES
        with pytest.raises(ValueError, match=r"classes: loss .* tells no classes apart; expected model.classes = None"):
            Trainer(loss).fit(model, X, X[:, :3] > 0)


def test_validation_on_text_with_early_stopping_and_prior() -> None:
    model = MLP([4, 3], output="softmax")
    model.classes = ["ant", "bee", "cow"]
    y = labels("array", CODES)
    model.set_prior(y)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.exp(model.biases[-1]), np.bincount(CODES) / 60, rtol=1e-6)
    stopping = EarlyStopping(patience=2, monitor="val_accuracy")
    Trainer(epochs=30, early_stopping=stopping).fit(model, X, y, validation_data=(X, y))  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [["ä", "b\n", ""], [3, -(2**40), 0], [0.1, 1e300, -0.5], [True, False]])
def test_classes_are_saved(tmp_path: Path, given: list[object]) -> None:
    model = MLP([4, len(given) if len(given) > 2 else 1], output="softmax" if len(given) > 2 else "sigmoid", seed=2)
    model.classes = given
    model.save(tmp_path / "m")
    again = MLP.load(tmp_path / "m")
    assert again.classes is not None and model.classes is not None
    assert again.classes.tolist() == given and again.classes.dtype == model.classes.dtype
    assert again.predict(X).tolist() == model.predict(X).tolist()


def test_encode_is_the_inverse_of_indexing() -> None:
    known = values.checked("classes", [7, 3, 5], 3)
    assert values.encode("y", np.array([5.0, 7.0, 3.0]), known).tolist() == [2, 0, 1]
    assert values.encode("y", [[3], [3]], known).tolist() == [1, 1]
