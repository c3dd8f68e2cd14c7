"""Rows divided into parts: every row once, all arrays alike, classes in their shares, the same ones everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from hotloop.data import partition, split

X = np.arange(30.0).reshape(15, 2)
Y = np.arange(15)


@given(
    n=st.integers(2, 80),
    weights=st.lists(st.integers(1, 20), min_size=2, max_size=6),
    seed=st.integers(0, 2**63),
    shuffle=st.booleans(),
    classes=st.integers(0, 5),
)
def test_parts_hold_every_row_once(n: int, weights: list[int], seed: int, shuffle: bool, classes: int) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    labels = np.arange(n) ** 2 % classes if classes else None
    sizes = [round(n * fraction) for fraction in fractions[1:]]
    sizes = [n - sum(sizes), *sizes]
    options = {"fractions": fractions, "seed": seed, "shuffle": shuffle, "stratify": labels}
    rows, values = np.arange(n), np.arange(n)[:, None] * [1.0, 10.0]
    if min(sizes) <= 0:
        with pytest.raises(ValueError, match=r"fractions: .* of \d+ rows leave part \d empty"):
            partition(values, rows, **options)  # type: ignore[arg-type]
        return
    parts = partition(values, rows, **options)  # type: ignore[arg-type]
    assert [len(part[1]) for part in parts] == sizes
    for some, chosen in parts:
        np.testing.assert_array_equal(some, values[chosen])
    assert sorted(np.concatenate([part[1] for part in parts])) == list(range(n))
    if not shuffle:
        assert all((np.diff(chosen) > 0).all() for _, chosen in parts)
        if labels is None:
            np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), rows)
    if labels is not None:
        for (_, chosen), size in zip(parts, sizes, strict=True):
            share = np.bincount(labels[chosen], minlength=classes) - np.bincount(labels, minlength=classes) * size / n
            assert np.abs(share).max() < len(sizes) - 1


def test_two_parts_are_those_of_split() -> None:
    classes = Y % 3
    for stratify in (False, True):
        old = split(X, classes, 0.4, seed=5, stratify=stratify)
        new = partition(X, classes, fractions=(0.6, 0.4), seed=5, stratify=classes if stratify else None)
        for a, b in zip(old, (*new[0], *new[1]), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_seed_alone_decides() -> None:
    rows = np.arange(1000)
    a, b, c = (partition(rows, fractions=(0.5, 0.3, 0.2), seed=seed) for seed in (1, 1, 2))
    assert all((x[0] == y[0]).all() for x, y in zip(a, b, strict=True))
    assert not (a[0][0] == c[0][0]).all()
    assert a[2][0][:5].tolist() == [458, 323, 622, 828, 93]  # on every machine


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "csc_matrix", "coo_array"])
def test_sparse_rows_stay_sparse(kind: str) -> None:
    (train, y_train), (test, y_test) = partition(getattr(sparse, kind)(X), Y, fractions=(0.6, 0.4), seed=3)
    assert train.format == test.format == "csr"
    np.testing.assert_array_equal(train.toarray(), X[y_train])
    np.testing.assert_array_equal(test.toarray(), X[y_test])


def test_lists_frames_and_text() -> None:
    pandas = pytest.importorskip("pandas")
    names = ["abc"[i % 3] for i in range(15)]
    parts = partition(names, pandas.DataFrame(X), Y, fractions=(0.4, 0.4, 0.2), stratify=names)
    for texts, frame, rows in parts:
        assert texts.tolist() == [names[i] for i in rows]
        np.testing.assert_array_equal(frame.to_numpy(), X[rows])
        assert max(np.unique(texts, return_counts=True)[1]) <= 3


def test_polars_frames_stay_frames() -> None:
    polars = pytest.importorskip("polars")
    (_, _), (test, rows) = partition(polars.DataFrame(X), Y)
    assert isinstance(test, polars.DataFrame)
    np.testing.assert_array_equal(test.to_numpy(), X[rows])


def test_parts_are_copies() -> None:
    ((train,), _) = partition(X)
    train[:] = -1
    assert (X >= 0).all()


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ((), {}, "arrays: got none"),
        ((X, Y[:14]), {}, "arrays: got 15, 14 rows, expected as many in each"),
        ((5,), {}, "arrays: got int, expected arrays"),
        ((np.float64(5),), {}, "arrays: got float64"),
        ((X,), {"fractions": (1.0,)}, r"fractions: got \(1.0,\), expected two or more"),
        ((X,), {"fractions": 0.5}, "fractions: got 0.5, expected two or more"),
        ((X,), {"fractions": (0.5, 0.4)}, "which sum to 0.9, expected 1"),
        ((X,), {"fractions": (0.5, -0.5)}, r"fractions\[1\]: got -0.5"),
        ((X,), {"fractions": (0.5, float("nan"))}, r"fractions\[1\]: got nan"),
        ((X,), {"fractions": (0.5, "half")}, r"fractions\[1\]: got 'half'"),
        ((X,), {"fractions": (0.99, 0.01)}, "of 15 rows leave part 1 empty"),
        ((X[:0],), {}, "of 0 rows leave part 0 empty"),
        ((X,), {"seed": -1}, "seed: got -1"),
        ((X,), {"seed": 1.5}, "seed: got 1.5 of type float"),
        ((X,), {"shuffle": 1}, "shuffle: got 1"),
        ((X,), {"stratify": Y[:3]}, r"stratify: got shape \(3,\), expected one class per row, \(15,\)"),
        ((X,), {"stratify": X}, r"stratify: got shape \(15, 2\)"),
        ((X,), {"stratify": np.array(["a", 1, None] * 5, object)}, "stratify: got classes that cannot be ordered"),
    ],
)
def test_what_cannot_be_divided(arrays: tuple[object, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        partition(*arrays, **options)  # type: ignore[arg-type]
