"""First layers of which only the rows that a batch meets are moved: the same result as moving all."""

from typing import Any

import numpy as np
import pytest

from hotloop import MLP, SGD, Adadelta, Adagrad, Adam, CosineDecay, RMSprop, Trainer, engine
from hotloop.optimizers import Optimizer

sparse = pytest.importorskip("scipy.sparse")

X = sparse.random(70, 300, density=0.01, random_state=3, format="csr", dtype=np.float64)
y = (np.asarray(X.sum(axis=1)).ravel() > 1.5).astype(int)


def train(
    monkeypatch: pytest.MonkeyPatch, optimizer: Optimizer, dtype: str, below: float, rows: Any = X, **options: Any
) -> tuple[MLP, list[float], int]:
    """A trained model, its losses, and the number of features that the engine treated lazily."""
    seen: list[int] = []
    make = engine._lazy

    def spy(*arguments: Any) -> Any:
        made = make(*arguments)
        seen.append(len(made.done))
        return made

    monkeypatch.setattr(engine, "_lazy", spy)
    monkeypatch.setattr(engine, "LAZY_BELOW", below)
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    model = MLP([300, 17, 2], "tanh", "softmax", dtype=dtype, seed=2)
    history = Trainer(optimizer=optimizer, batch_size=4, epochs=5, progress=False, **options).fit(model, rows, y)
    return model, history["loss"], seen[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(lr=0.1, momentum=0.9),
        SGD(lr=0.1, momentum=0.9, nesterov=True),
        Adagrad(lr=0.1),
        RMSprop(lr=0.01),
        RMSprop(lr=0.01, momentum=0.5),
        Adadelta(),
    ],
    ids=str,
)
def test_lazy_is_the_same_as_moving_every_row(
    monkeypatch: pytest.MonkeyPatch, optimizer: Optimizer, dtype: str
) -> None:
    lazy, losses, features = train(monkeypatch, optimizer, dtype, 1.0, schedule=CosineDecay())
    monkeypatch.undo()
    every, expected, none = train(monkeypatch, optimizer, dtype, 0.0, schedule=CosineDecay())
    assert (features, none) == (300, 0)
    tolerance = 2e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(lazy.params, every.params, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    assert np.abs(lazy.params - MLP([300, 17, 2], "tanh", "softmax", dtype=dtype, seed=2).params).max() > 0.01


def test_bits_depend_neither_on_threads_nor_on_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for threads, seconds in ((1, 0.02), (1, 1e-9), (2, 0.02), (2, 1e-9)):
        monkeypatch.setattr(engine, "PIECE_SECONDS", seconds)
        model, losses, features = train(monkeypatch, SGD(lr=0.1, momentum=0.9), "float32", 1.0, threads=threads)
        monkeypatch.undo()
        assert features == 300
        found.add((model.params.tobytes(), tuple(losses)))
    assert len(found) == 1


@pytest.mark.parametrize("options", [{"l2": 0.1}, {"clip_norm": 1.0}, {"max_norm": 1.0}], ids=str)
def test_what_moves_every_weight_is_not_lazy(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    assert train(monkeypatch, Adagrad(), "float32", 1.0, **options)[2] == 0


def test_adam_and_dense_rows_are_not_lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(monkeypatch, Adam(), "float32", 1.0)[2] == 0
    monkeypatch.undo()
    assert train(monkeypatch, Adagrad(), "float32", 1.0, X.toarray())[2] == 0
