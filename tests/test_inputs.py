"""Dense and compressed rows: the same numbers, the same bits, the same errors."""

import numpy as np
import pytest

from hotloop import MLP, SGD, Trainer, inputs

sparse = pytest.importorskip("scipy.sparse")


def _data(n=90, features=70, density=0.3, seed=0):
    random = np.random.default_rng(seed)
    X = np.where(random.random((n, features)) < density, random.standard_normal((n, features)), 0).astype(np.float32)
    return X, random.integers(0, 3, n)


@pytest.mark.parametrize("batch_size", [1, 7, 32, None, 600])
@pytest.mark.parametrize("hidden", [(), (20,), (130, 5)])
def test_sparse_and_dense_train_to_the_same_bits(batch_size, hidden):
    X, y = _data(n=650 if batch_size == 600 else 90)
    trained = []
    for rows in (X, sparse.csr_matrix(X), sparse.coo_array(X), X.astype(np.float64)):
        model = MLP([70, *hidden, 3], output="softmax", seed=3)
        trainer = Trainer(optimizer=SGD(lr=0.05), batch_size=batch_size, epochs=3, threads=2, validation_split=0.2)
        trainer.fit(model, rows, y)
        trained.append((model.params.tobytes(), tuple(trainer.history["val_loss"]), model.forward(rows).tobytes()))
    assert len(set(trained)) == 1


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_listed_and_streamed_rows_give_the_same_bits(batch_size, dtype, monkeypatch):
    from hotloop import engine

    X, y = _data(features=150)
    trained = []
    for below in (0.0, 2.0):  # never listed, always listed
        monkeypatch.setattr(engine, "_sparse_below", lambda width, window, below=below: below)
        model = MLP([150, 130, 3], activation="tanh", output="softmax", dtype=dtype)
        Trainer(optimizer=SGD(lr=0.05), batch_size=batch_size, epochs=2).fit(model, X, y)
        trained.append(model.params.tobytes())
    assert trained[0] == trained[1]


@pytest.mark.parametrize("hidden", [(), (20,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_listed_once_or_in_every_epoch_give_the_same_bits(hidden, dtype, monkeypatch):
    X, y = _data(features=300, density=0.1)
    X[5] = 0
    listed, trained = [], []
    read = inputs.Rows.listed
    monkeypatch.setattr(inputs.Rows, "listed", lambda rows: listed.append(read(rows)) or listed[-1])
    for most, rows in ((48 << 20, X), (1000, X), (0, X), (0, sparse.csr_matrix(X))):
        monkeypatch.setattr(inputs, "MOST_LISTED", most)
        model = MLP([300, *hidden, 3], output="softmax", dtype=dtype)
        Trainer(optimizer=SGD(lr=0.05), batch_size=1, epochs=4).fit(model, rows, y)
        trained.append(model.params.tobytes())
    assert len(set(trained)) == 1
    assert [rows.compressed for rows in listed] == [True, False, False]
    once, given = listed[0].arrays, sparse.csr_matrix(X)
    assert np.array_equal(once.start, given.indptr)
    assert np.array_equal(once.index[: given.nnz], given.indices)
    assert np.array_equal(once.value[: given.nnz], given.data)


def test_momentum_and_gradients_read_compressed_rows():
    X, y = _data()
    results = []
    for rows in (X, sparse.csr_matrix(X)):
        model = MLP([70, 8, 3], output="softmax")
        trainer = Trainer(optimizer=SGD(lr=0.05, momentum=0.9), batch_size=8, epochs=2)
        trainer.fit(model, rows, y)
        loss, dweights, dbiases = trainer.gradients(model, rows, y)
        results.append((model.params.tobytes(), loss, dweights[0].tobytes(), dbiases[1].tobytes()))
    assert results[0] == results[1]


def test_unsorted_and_repeated_entries_are_put_in_order_without_touching_the_matrix():
    data, indices, starts = np.array([1.0, 2.0, 3.0]), np.array([2, 0, 2]), np.array([0, 3])
    matrix = sparse.csr_matrix((data, indices, starts), shape=(1, 4))
    rows = inputs.read("X", matrix, 4, np.float32)
    assert rows.arrays.index.tolist() == [0, 2]
    assert rows.arrays.value.tolist() == [2.0, 4.0]
    assert matrix.indices.tolist() == [2, 0, 2]


def test_take_keeps_rows_whole():
    X, _ = _data()
    chosen = np.array([5, 0, 5, 89])
    rows = inputs.read("X", sparse.csr_matrix(X), 70, np.float32).take(chosen)
    values, indices, starts = rows.arrays.value, rows.arrays.index, rows.arrays.start
    assert np.array_equal(sparse.csr_matrix((values, indices, starts), shape=(4, 70)).toarray(), X[chosen])


def test_density():
    X, _ = _data(density=0.25)
    exact = np.count_nonzero(X) / X.size
    assert inputs.read("X", sparse.csr_matrix(X), 70, np.float32).density() == exact
    assert inputs.read("X", X, 70, np.float32).density() == exact
    stored = sparse.csr_matrix(np.ones_like(X))  # zeros among the entries
    stored.data = X.ravel().copy()
    assert inputs.read("X", stored, 70, np.float32).density() == exact
    many = sparse.random(3000, 70, 0.3, "csr", np.float32, random_state=4)
    some = inputs.read("X", many, 70, np.float32).density()
    assert some == inputs.read("X", many.toarray(), 70, np.float32).density() == pytest.approx(0.3, abs=0.02)


def test_an_empty_row_gives_the_bias():
    model = MLP([4, 3])
    model.biases[0][:] = [1, 2, 3]
    assert model.forward(sparse.csr_matrix((2, 4))).tolist() == [[1, 2, 3]] * 2


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (sparse.csr_matrix((3, 5)), r"X: got shape \(3, 5\), expected \(n_samples, 4\)"),
        (sparse.csr_matrix((0, 4)), r"X: got shape \(0, 4\)"),
        (sparse.csr_matrix(np.array([[0, np.nan, 0, 0]])), r"X.data: got nan"),
        (sparse.csr_matrix(np.array([[0, 1e300, 0, 0]])), r"X.data: got 1e\+300 .* too large for float32"),
    ],
)
def test_bad_matrices_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        MLP([4, 2]).forward(matrix)


def test_memory_maps_are_not_copied(tmp_path):
    X, y = _data()
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = inputs.read("X", mapped, 70, np.float32)
    assert rows.arrays.X.ctypes.data == mapped.ctypes.data
    models = [MLP([70, 8, 3], output="softmax") for _ in range(2)]
    for model, data in zip(models, (X, mapped), strict=True):
        Trainer(epochs=2).fit(model, data, y)
    assert models[0].params.tobytes() == models[1].params.tobytes()


@pytest.mark.parametrize(
    ("indices", "starts"),
    [([0, 99], [0, 1, 2]), ([0, -5], [0, 1, 2]), ([0, 1], [0, 5000, 2]), ([0, 1], [1, 1, 2]), ([0, 1], [0, 1, 3])],
)
def test_forged_matrices_are_refused(indices, starts):
    matrix = sparse.csr_matrix((2, 5))
    matrix.data = np.array([1.0, 2.0])
    matrix.indices, matrix.indptr = np.array(indices, np.int32), np.array(starts, np.int32)
    with pytest.raises(ValueError, match="X: got"):
        inputs.read("X", matrix, 5, np.float32)
