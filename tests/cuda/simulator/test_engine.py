"""Training and inference through the model on the simulated GPU, against the same run on the processor."""

import numpy as np
import pytest
import test_gpu_sanitizer

from hotloop import MLP, SGD, Adam, AveragedSGD, PassiveAggressive, Standardizer, Trainer, inputs
from hotloop import cuda as gpu
from hotloop.fitting import DivergenceWarning
from hotloop.kernels.cuda import shim


def data(n: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, features, classes])
    return rng.normal(size=(n, features)).astype(np.float32), rng.integers(0, classes, n)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (SGD(lr=0.1), {"batch_size": 5}),
        (SGD(lr=0.05), {"batch_size": 1}),
        (Adam(lr=0.05), {"batch_size": 9, "l2": 0.01}),
        (AveragedSGD(lr=0.1), {"batch_size": None}),
    ],
)
def test_fit_takes_the_same_steps(optimizer, options):
    X, y = data(12, 5, 3)
    runs = []
    for device in ("cpu", "cuda"):
        model = MLP([5, 6, 3], activation="tanh", output="softmax", seed=1)
        history = Trainer(optimizer=optimizer, epochs=2, device=device, **options).fit(model, X, y)
        runs.append((history["loss"], model.params.copy()))
    np.testing.assert_allclose(runs[1][0], runs[0][0], rtol=1e-5)
    np.testing.assert_allclose(runs[1][1], runs[0][1], atol=1e-5)


def test_partial_fit_carries_the_state_on():
    X, y = data(8, 4, 3)
    runs = []
    for device in ("cpu", "cuda"):
        model = MLP([4, 3], output="softmax", seed=1)
        trainer = Trainer(optimizer=SGD(lr=0.1, momentum=0.9), batch_size=4, device=device)
        losses = [trainer.partial_fit(model, X, y) for _ in range(2)]
        runs.append((losses, model.params.copy()))
    np.testing.assert_allclose(runs[1][0], runs[0][0], rtol=1e-5)
    np.testing.assert_allclose(runs[1][1], runs[0][1], atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"input_noise": 0.1}, {"dropout": [0.3]}])
def test_sample_weights_and_sparse_rows(options):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = data(8, 70, 3)
    X[np.abs(X) < 1] = 0
    runs = []
    for device in ("cpu", "cuda"):
        model = MLP([70, 3], output="softmax", seed=1)
        trainer = Trainer(optimizer=SGD(lr=0.1), batch_size=3, epochs=1, device=device, **options)
        trainer.fit(model, sparse.csr_matrix(X), y, sample_weight=np.arange(8))
        runs.append(model.params.copy())
    np.testing.assert_allclose(runs[1], runs[0], atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "output"), [("mse", "identity"), ("mse", "softmax"), ("logistic", "sigmoid"), ("cross_entropy", "softmax")]
)
def test_losses_of_rows(loss, output):
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(6, 4)).astype(np.float32), rng.dirichlet(np.ones(3), 6).astype(np.float32)
    runs = []
    for device in ("cpu", "cuda"):
        model = MLP([4, 3], output=output, seed=1)
        history = Trainer(loss, SGD(lr=0.1), batch_size=4, epochs=1, device=device).fit(model, X, y)
        runs.append((history["loss"], model.params.copy()))
    np.testing.assert_allclose(runs[1][0], runs[0][0], rtol=1e-5)
    np.testing.assert_allclose(runs[1][1], runs[0][1], atol=1e-6)


@pytest.fixture
def on_device(monkeypatch):
    """Bring an array to the simulated device, whose arrays lack the interface by which a model knows them."""
    monkeypatch.setattr(inputs, "on_device", lambda array: hasattr(array, "copy_to_host"))
    return shim.cuda.to_device


@pytest.mark.parametrize(
    ("sizes", "output", "loss", "rows"),
    [
        ([5, 7, 3], "softmax", None, gpu.PREDICT_ROWS),
        ([5, 7, 3], "softmax", None, 15),  # a block has several pieces
        ([5, 3], "sigmoid", None, 15),
        ([5, 1], "identity", "hinge", 15),
        ([5, 2], "identity", None, gpu.PREDICT_ROWS),
    ],
)
def test_predictions_of_arrays_on_the_gpu(sizes, output, loss, rows, on_device, monkeypatch):
    monkeypatch.setattr(gpu, "PREDICT_ROWS", rows)
    X, _ = data(70, 5, 3)
    model = MLP(sizes, activation="gelu", output=output, seed=2)
    if loss == "hinge":
        Trainer(loss, batch_size=None, epochs=1).fit(model, X, np.where(X[:, 0] > 0, 1, -1))
    outputs, predictions = model.forward(on_device(X)), model.predict(on_device(X))
    np.testing.assert_allclose(outputs.copy_to_host(), model.forward(X), atol=2e-6)
    np.testing.assert_allclose(predictions.copy_to_host(), model.predict(X), atol=2e-6)
    if output == "softmax":
        np.testing.assert_array_equal(model.predict_proba(on_device(X)).copy_to_host(), outputs.copy_to_host())
    else:
        with pytest.raises(ValueError, match="X: got an array on a GPU, which predict_proba takes with output"):
            model.predict_proba(on_device(X))


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros((2, 4), np.float32), ValueError, r"X: got shape \(2, 4\), expected \(n_samples, 5\)"),
        (np.zeros((2, 5)), ValueError, "X is float64 on the device, but must be float32"),
    ],
)
def test_arrays_on_the_gpu_that_do_not_fit(X, error, message, on_device):
    with pytest.raises(error, match=message):
        MLP([5, 3], output="softmax").predict(on_device(X))


def test_fit_reads_what_lies_on_the_gpu_in_place(on_device):
    X, y = data(12, 5, 3)
    importance, runs = np.arange(12) % 3 + 1.0, []
    for move in (lambda array: array, on_device):
        model = MLP([5, 6, 3], output="softmax", seed=1)
        trainer = Trainer(optimizer=SGD(lr=0.1), batch_size=5, epochs=1, device="cuda", validation_split=0.25)
        there, truth, weights = move(X), move(y.astype(np.int32)), move(importance)
        history = trainer.fit(model, there, truth, sample_weight=weights)
        trainer.partial_fit(model, there, truth)
        figures = trainer.evaluate(model, there, truth, sample_weight=weights)
        runs.append((history["loss"], history["val_loss"], *figures.values(), model.params.copy()))
    for mine, theirs in zip(runs[1], runs[0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    training = trainer._set(model, there, truth)
    assert trainer.make_engine(model, training, 5, 0).samples.inputs.X is there


def test_a_training_on_the_gpu_that_diverges_is_explained(on_device):
    X, y = data(9, 3, 2)
    trainer = Trainer("mse", SGD(lr=1e4), batch_size=3, epochs=3, device="cuda", stream=shim.cuda.stream())
    with pytest.warns(DivergenceWarning, match="the largest that would not is about"):
        trainer.fit(MLP([3, 1], seed=1), on_device(X), on_device(y.astype(np.float32)))


def test_what_lies_on_the_gpu_is_checked_there(on_device):
    X, y = data(70, 4, 3)
    X[50, 2], X[60, 1] = np.inf, np.nan
    trainer, model = Trainer(device="cuda"), MLP([4, 3], output="softmax")
    with pytest.raises(ValueError, match=r"X: got a NaN or an infinity at \[50, 2\]; expected finite numbers only"):
        trainer.fit(model, on_device(X), y)
    X[50, 2] = X[60, 1] = 0
    with pytest.raises(ValueError, match=r"validation X: got shape \(70, 2\), expected \(n_samples, 4\)"):
        trainer.fit(model, X, y, validation_data=(on_device(X[:, :2].copy()), y))
    with pytest.raises(ValueError, match="X on the device must be C-contiguous"):
        trainer.fit(MLP([2, 3], output="softmax"), on_device(X)[:, :2], y)
    model.prepare = Standardizer().fit(X)
    with pytest.raises(ValueError, match="X: got an array on a GPU, but this model prepares its inputs"):
        trainer.fit(model, on_device(X), y)


def test_what_the_sanitizer_is_given_to_run(on_device):
    test_gpu_sanitizer.work(n=5)


def test_learn_one_is_left_to_the_processor():
    with pytest.raises(ValueError, match=r"device: learn_one .* use device='cpu', or partial_fit"):
        Trainer(device="cuda").learn_one(MLP([2, 2], output="softmax"), np.zeros(2, np.float32), 0)


def assert_like_the_processor(model, trainer, X, y):
    """The same fit on both devices: losses, parameters, and something learned."""
    start, runs = model.params.copy(), []
    for device in ("cpu", "cuda"):
        model.params[:], trainer.device = start, device
        runs.append((trainer.fit(model, X, y)["loss"], model.params.copy()))
    np.testing.assert_allclose(runs[1][0], runs[0][0], rtol=1e-5)
    np.testing.assert_allclose(runs[1][1], runs[0][1], atol=1e-5)
    assert not np.allclose(runs[0][1], start, atol=1e-3)


def test_dropout_of_hidden_units_sample_by_sample():
    X, y = data(7, 5, 3)
    model = MLP([5, 10, 3], output="softmax", seed=1)
    assert_like_the_processor(model, Trainer(optimizer=SGD(lr=0.1), batch_size=1, epochs=2, dropout=0.4, seed=5), X, y)


@pytest.mark.parametrize(("loss", "outputs", "variant"), [("hinge", 3, 1), ("hinge", 1, 2), ("mae", 1, 1)])
def test_passive_aggressive_steps(loss, outputs, variant):
    X, y = data(8, 5, 3)
    if outputs == 1:
        y = np.where(y > 0, 1, -1) if loss == "hinge" else X @ np.arange(5)
    model = MLP([5, outputs], seed=1)
    trainer = Trainer(loss, PassiveAggressive(0.5, variant), batch_size=1, epochs=1)
    assert_like_the_processor(model, trainer, X, y)
