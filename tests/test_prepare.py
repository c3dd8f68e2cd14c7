"""What is done to X before the first layer: everywhere the model reads X, and kept in its file."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from test_files import ARRAYS, HEADER, forge, refuses

from hotloop import MLP, SGD, Standardizer, TableEncoder, Trainer
from hotloop.prepare import KINDS

RNG = np.random.default_rng(9)
X = RNG.normal(size=(50, 3)) * [1, 100, 0.01] + [5, -1000, 0]
Y = X[:, 0] + X[:, 1] / 100 - 100 * X[:, 2]
TABLE = {"size": X[:, 0], "kind": np.array(["a", "b"])[(X[:, 1] > -1000) * 1]}


def pair(dtype: str = "float32", rows: object = X, **options: object) -> tuple[MLP, MLP, np.ndarray]:
    """A model that standardises, one that does not, and the rows standardised for it."""
    standardizer = Standardizer(**options).fit(rows)  # type: ignore[arg-type]
    models = MLP([3, 5, 1], "tanh", dtype=dtype, seed=4), MLP([3, 5, 1], "tanh", dtype=dtype, seed=4)
    models[0].prepare = standardizer
    return (*models, standardizer.read("X", X, dtype).arrays.X)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [1, 8, None])
def test_it_is_applied_wherever_the_model_reads_rows(dtype: str, batch_size: int | None) -> None:
    one, other, Z = pair(dtype)
    trainer = Trainer(optimizer=SGD(lr=0.02), batch_size=batch_size, epochs=4, validation_split=0.2)
    assert trainer.fit(one, X, Y)["val_loss"] == trainer.fit(other, Z, Y)["val_loss"]
    trainer = Trainer(optimizer=SGD(lr=0.02), epochs=2)
    trainer.fit(one, X, Y, validation_data=(X, Y))
    trainer.fit(other, Z, Y, validation_data=(Z, Y))
    assert one.params.tobytes() == other.params.tobytes()
    assert trainer.evaluate(one, X, Y) == trainer.evaluate(other, Z, Y)
    np.testing.assert_array_equal(trainer.gradients(one, X, Y)[1][0], trainer.gradients(other, Z, Y)[1][0])
    np.testing.assert_array_equal(one.forward(X), other.forward(Z))
    np.testing.assert_array_equal(one.predict(X), other.predict(Z))
    assert [one.predict_one(row) for row in X] == [other.predict_one(row) for row in Z]
    assert [one.predict_one(list(row)) for row in X[:3]] == [other.predict_one(row) for row in Z[:3]]


def test_it_is_applied_to_chunks_and_to_single_rows() -> None:
    one, other, Z = pair()
    trainer, plain = Trainer(epochs=1), Trainer(epochs=1)
    assert trainer.partial_fit(one, X, Y) == plain.partial_fit(other, Z, Y)
    trainer.fit(one, [(X[:30], Y[:30]), (X[30:], Y[30:])])
    plain.fit(other, [(Z[:30], Y[:30]), (Z[30:], Y[30:])])
    assert [trainer.learn_one(one, x, y) for x, y in zip(X, Y, strict=True)] == [
        plain.learn_one(other, z, y) for z, y in zip(Z, Y, strict=True)
    ]
    assert one.params.tobytes() == other.params.tobytes()


def test_probabilities_and_sparse_rows() -> None:
    matrix = sparse.csr_matrix(np.where(np.abs(X) > 5, X, 0))
    model, other = (MLP([3, 1], output="sigmoid", seed=1) for _ in range(2))
    model.prepare = Standardizer().fit(matrix)
    scaled = matrix.toarray() * (1 / model.prepare.scale)
    for m, rows in ((model, matrix), (other, scaled)):
        Trainer(epochs=3).fit(m, rows, Y > 0)
    assert model.params.tobytes() == other.params.tobytes()
    np.testing.assert_array_equal(model.predict_proba(matrix), other.predict_proba(scaled))


def test_a_row_that_is_not_finite_is_refused() -> None:
    model, _, _ = pair()
    for bad in (np.nan, np.inf, 1e300):
        row = X[0].copy()
        row[1] = bad
        with pytest.raises(ValueError, match=r"x: got .* at \[1\]"):
            model.predict_one(row)
        with pytest.raises(ValueError, match=r"X: got .* at \[0, 1\]"):
            model.predict(row[None])


def test_partial_fit_is_seen_at_once() -> None:
    standardizer = Standardizer().fit(X[:10])
    model = MLP([3, 1], seed=1)
    model.prepare = standardizer
    before = model.predict(X)
    standardizer.partial_fit(X[10:])
    assert (model.predict(X) != before).any()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Standardizer(), r"prepare: got Standardizer\(not fitted\); expected a fitted one: call its fit first"),
        (TableEncoder(), r"prepare: got TableEncoder\(not fitted.*call its fit first"),
        (Standardizer().fit(X[:, :2]), r"prepare: gives rows of 2 columns, the model takes 3 \(its sizes\[0\]\)"),
        (TableEncoder().fit(X[:, :2]), r"prepare: gives rows of 2 columns"),
        (Standardizer, "prepare: got type, expected a Standardizer, a TableEncoder or None"),
        ("standard", "prepare: got str"),
    ],
)
def test_what_does_not_fit_the_model(value: object, message: str) -> None:
    model = MLP([3, 1])
    with pytest.raises((ValueError, TypeError), match=message):
        model.prepare = value  # type: ignore[assignment]
    assert model.prepare is None


def encoder() -> TableEncoder:
    return TableEncoder(missing="mean").fit({**TABLE, "gaps": [None, *X[1:, 2]]})


@pytest.mark.parametrize("kind", ["standardizer", "scaled", "table"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_saved_with_the_model(tmp_path: Path, kind: str, dtype: str) -> None:
    prepare = {
        "standardizer": Standardizer().fit(X),
        "scaled": Standardizer(center=False).fit(X),
        "table": encoder(),
    }[kind]
    rows: object = {**TABLE, "gaps": [None, *X[1:, 2]]} if kind == "table" else X
    model = MLP([prepare.width, 4, 1], dtype=dtype, seed=3)
    model.prepare = prepare
    Trainer(epochs=2).fit(model, rows, Y)  # type: ignore[arg-type]
    model.save(tmp_path / "m")
    again = MLP.load(tmp_path / "m")
    assert again.prepare is not None and repr(again.prepare) == repr(model.prepare)
    assert again.predict(rows).tobytes() == model.predict(rows).tobytes()  # type: ignore[arg-type]
    again.save(tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()
    if isinstance(again.prepare, Standardizer):
        again.prepare.partial_fit(X + 1)
        assert isinstance(prepare, Standardizer)
        prepare.partial_fit(X + 1)
        np.testing.assert_allclose(again.prepare.mean, prepare.mean, rtol=1e-13)
        np.testing.assert_allclose(again.prepare.scale, prepare.scale, rtol=1e-13)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_whole_and_independent(duplicate: object) -> None:
    model, _, _ = pair()
    twin = duplicate(model)  # type: ignore[operator]
    assert twin.predict(X).tobytes() == model.predict(X).tobytes()
    twin.prepare.partial_fit(X + 1)
    assert twin.predict(X).tobytes() != model.predict(X).tobytes()


# Files ----------------------------------------------------------------------------------------------------------------

STANDARD = {"kind": "standardizer", "center": True, "count": 50}
NUMERIC, CATEGORIES = {"name": "n", "kind": "numeric", "indicator": False}, ["x"]
ENCODED = {
    "kind": "table",
    "missing": "error",
    "unknown": "zeros",
    "columns": [NUMERIC, {"name": "c", "kind": "categories", "indicator": False, "values": CATEGORIES}],
}
MOMENTS = {"prepare.mean": np.zeros(2), "prepare.squares": np.ones(2)}
SCALES = {"prepare.mean": np.zeros(1), "prepare.scale": np.ones(1)}


def test_forged_files_are_right_where_they_are_not_forged(tmp_path: Path) -> None:
    forge(tmp_path / "m", {**HEADER, "prepare": STANDARD}, {**ARRAYS, **MOMENTS})
    assert MLP.load(tmp_path / "m").prepare is not None
    forge(tmp_path / "m", {**HEADER, "prepare": ENCODED}, {**ARRAYS, **SCALES})
    assert MLP.load(tmp_path / "m").predict({"n": [1], "c": ["x"]}) == 6
    forge(tmp_path / "m", {**HEADER, "prepare": None, "classes": None})
    assert MLP.load(tmp_path / "m").prepare is None


@pytest.mark.parametrize("entry", [5, "standardizer", [], {}, {"kind": "pickle"}, {"kind": None}, {"kind": []}, True])
def test_a_forged_preparation(tmp_path: Path, entry: object) -> None:
    forge(tmp_path / "m", {**HEADER, "prepare": entry}, {**ARRAYS, **MOMENTS})
    refuses(tmp_path / "m", "prepare")


BAD: list[object] = [None, -1, 2.5, 10**30, "x", [], [[]], {}, {"a": 1}, ["x"], [None], [{}], [{"kind": "numeric"}]]


@pytest.mark.parametrize("key", ["center", "count", "missing", "unknown", "columns"])
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_forged_entry_of_a_preparation(tmp_path: Path, key: str, value: object) -> None:
    entry, arrays = (STANDARD, MOMENTS) if key in STANDARD else (ENCODED, SCALES)
    forge(tmp_path / "m", {**HEADER, "prepare": {**entry, key: value}}, {**ARRAYS, **arrays})
    refuses(tmp_path / "m")
    forge(tmp_path / "m", {**HEADER, "prepare": {k: v for k, v in entry.items() if k != key}}, {**ARRAYS, **arrays})
    refuses(tmp_path / "m")


@pytest.mark.parametrize("key", ["name", "kind", "indicator", "values"])
@pytest.mark.parametrize("value", BAD[:-3], ids=repr)
def test_a_forged_column(tmp_path: Path, key: str, value: object) -> None:
    column = {**ENCODED["columns"][1], key: value}  # type: ignore[dict-item]
    if (key, value) in [("name", "x"), ("values", ["x"])]:
        return
    forge(tmp_path / "m", {**HEADER, "prepare": {**ENCODED, "columns": [NUMERIC, column]}}, {**ARRAYS, **SCALES})
    refuses(tmp_path / "m")


@pytest.mark.parametrize(
    ("entry", "arrays"),
    [
        (None, MOMENTS),
        (STANDARD, {}),
        (STANDARD, {"prepare.mean": np.zeros(2)}),
        (STANDARD, {"prepare.mean": np.zeros(3), "prepare.squares": np.ones(3)}),
        (STANDARD, {"prepare.mean": np.zeros(2), "prepare.squares": np.ones(3)}),
        (STANDARD, {"prepare.mean": np.zeros((1, 2)), "prepare.squares": np.ones((1, 2))}),
        (STANDARD, {"prepare.mean": np.zeros(2), "prepare.squares": -np.ones(2)}),
        (STANDARD, {"prepare.mean": np.zeros(2), "prepare.squares": np.full(2, np.nan)}),
        (STANDARD, {"prepare.mean": np.zeros(2, np.float32), "prepare.squares": np.ones(2)}),
        (STANDARD, {**MOMENTS, "prepare.more": np.ones(2)}),
        (STANDARD, {**MOMENTS, "more": np.ones(2)}),
        (ENCODED, {"prepare.mean": np.zeros(2), "prepare.scale": np.ones(2)}),
        (ENCODED, {"prepare.mean": np.zeros(1), "prepare.scale": np.zeros(1)}),
        (ENCODED, {"prepare.mean": np.zeros(1), "prepare.scale": np.full(1, np.inf)}),
        ({**ENCODED, "columns": [NUMERIC, NUMERIC]}, {"prepare.mean": np.zeros(2), "prepare.scale": np.ones(2)}),
    ],
)
def test_arrays_of_a_preparation_that_do_not_fit(tmp_path: Path, entry: object, arrays: dict[str, np.ndarray]) -> None:
    forge(tmp_path / "m", {**HEADER, "prepare": entry}, {**ARRAYS, **arrays})
    refuses(tmp_path / "m")


@pytest.mark.parametrize("value", [*BAD[1:], True, [1], [1, 2, 3], [1, 1], [1, "a"], [1, None], [1, [2]]], ids=repr)
def test_forged_classes(tmp_path: Path, value: object) -> None:
    forge(tmp_path / "m", {**HEADER, "classes": value})
    refuses(tmp_path / "m")


def test_every_preparation_can_be_saved() -> None:
    assert set(KINDS) == {"standardizer", "table"}
