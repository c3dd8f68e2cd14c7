"""Chunks and partial_fit: the same as whole data where they must be, prefetch, errors, Ctrl-C."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hotloop import (
    MLP,
    SGD,
    Adam,
    AveragedSGD,
    Callback,
    CosineDecay,
    DivergenceWarning,
    EarlyStopping,
    ExponentialDecay,
    Lion,
    OneCycle,
    ReduceOnPlateau,
    Trainer,
    Warmup,
)
from hotloop.chunks import Chunks, is_source

RNG = np.random.default_rng(13)
X = RNG.normal(size=(60, 5))
Y = X @ RNG.normal(size=5)
LABELS = RNG.integers(0, 3, 60)
PARTS = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 60, 16)]


def producers() -> int:
    return sum(thread.name == "hotloop chunks" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert producers() == 0


@pytest.mark.parametrize("optimizer", [SGD(0.01), SGD(0.001, 0.9), Adam(0.01), Lion(0.01), AveragedSGD(0.01)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 8, None])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_chunk_is_the_whole_data(optimizer: Any, batch_size: int | None, dtype: str) -> None:
    models = [MLP([5, 6, 1], dtype=dtype, seed=1) for _ in range(2)]
    trainer = Trainer(None, optimizer, ExponentialDecay(0.8), batch_size, 4, seed=3, dropout=0.2)
    whole = trainer.fit(models[0], X, Y, validation_data=(X, Y))
    chunked = trainer.fit(models[1], [(X, Y)], validation_data=(X, Y))
    assert models[0].params.tobytes() == models[1].params.tobytes()
    for name in ("loss", "lr", "val_loss", "val_r2"):
        assert whole[name] == chunked[name]


@pytest.mark.parametrize("optimizer", [SGD(0.01), SGD(0.01, 0.9), Adam(0.01)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_chunks_of_whole_batches_are_the_whole_data_in_order(optimizer: Any, batch_size: int) -> None:
    schedule = Warmup(20, CosineDecay(30 if batch_size == 4 else 120, per="step"))
    models = [MLP([5, 6, 1], seed=1) for _ in range(2)]
    trainer = Trainer(None, optimizer, schedule, batch_size, 3, shuffle=False)
    whole, chunked = trainer.fit(models[0], X, Y), trainer.fit(models[1], PARTS)
    assert models[0].params.tobytes() == models[1].params.tobytes() and whole["lr"] == chunked["lr"]
    np.testing.assert_allclose(whole["loss"], chunked["loss"], rtol=1e-12)


class Loader:
    """Something like PyTorch's DataLoader: iterable again and again, gives lists."""

    def __iter__(self) -> Iterator[list[Any]]:
        return iter([[rows, values] for rows, values in PARTS])


@pytest.mark.parametrize("source", [PARTS, tuple(PARTS), Loader(), lambda: iter(PARTS), lambda: PARTS])
def test_sources(source: Any) -> None:
    model, twin = MLP([5, 1], seed=1), MLP([5, 1], seed=1)
    history = Trainer(epochs=3).fit(model, source)
    Trainer(epochs=3).fit(twin, PARTS)
    assert history.epochs == 3 and model.params.tobytes() == twin.params.tobytes()


def test_an_iterator_serves_one_epoch() -> None:
    model, twin = MLP([5, 1], seed=1), MLP([5, 1], seed=1)
    with pytest.raises(ValueError, match=r"chunks: got an iterator, .* epochs=3; expected a list"):
        Trainer(epochs=3).fit(model, iter(PARTS))
    Trainer(epochs=1).fit(model, (part for part in PARTS))
    Trainer(epochs=1).fit(twin, PARTS)
    assert model.params.tobytes() == twin.params.tobytes()


def test_sparse_chunks_and_weights() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    rows = X * (np.abs(X) > 1)
    weights = RNG.random(60)
    one, two = MLP([5, 3], output="softmax", seed=1), MLP([5, 3], output="softmax", seed=1)
    trainer = Trainer(batch_size=4, epochs=2, shuffle=False, label_smoothing=0.1)
    trainer.fit(one, rows, LABELS, sample_weight=weights, class_weight={0: 2.0, 1: 1.0, 2: 0.5})
    parts = [slice(i, i + 20) for i in range(0, 60, 20)]
    trainer.fit(
        two, [(sparse.csr_array(rows[p]), LABELS[p], weights[p]) for p in parts], class_weight={0: 2.0, 1: 1.0, 2: 0.5}
    )
    assert one.params.tobytes() == two.params.tobytes()


def test_rows_are_shuffled_within_their_chunk() -> None:
    found = set()
    for options in ({"seed": 1}, {"seed": 2}, {"shuffle": False}):
        model = MLP([5, 1], seed=1)
        Trainer(batch_size=1, epochs=2, **options).fit(model, PARTS)  # type: ignore[arg-type]
        found.add(model.params.tobytes())
    assert len(found) == 3


def test_the_next_chunk_is_made_while_the_present_one_trains() -> None:
    made: list[int] = []
    waiting = threading.Event()

    def source() -> Iterator[Any]:
        for i, part in enumerate(PARTS):
            made.append(i)
            if i == 1:
                waiting.set()
            yield part

    def look(run: Any) -> None:
        assert waiting.wait(10) and made[-1] <= 3

    class First(Callback):
        def piece(self, run: Any) -> None:
            if run.samples == 16:  # the first chunk: the second is made already, the third is not before it is wanted
                assert waiting.wait(10) and made == [0, 1]

    Trainer(epochs=1, callbacks=[First(), look]).fit(MLP([5, 1]), source)
    assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("at", [0, 2])
def test_an_error_of_the_producer_comes_through(at: int) -> None:
    closed = []

    def source() -> Iterator[Any]:
        try:
            for i, part in enumerate(PARTS):
                if i == at:
                    raise OSError("the disk is gone")
                yield part
        finally:
            closed.append(True)

    model = MLP([5, 1], seed=1)
    before, trainer = model.params.copy(), Trainer(epochs=2)
    with pytest.raises(OSError, match="the disk is gone"):
        trainer.fit(model, source)
    assert closed and np.isfinite(model.params).all()
    assert (model.params == before).all() == (at == 0)
    assert trainer.history.stopped == ("error" if at else "finished")


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ((X[:4, :3], Y[:4]), r"chunks\[1\] X: got shape \(4, 3\)"),
        ((X[:4], Y[:3]), r"chunks\[1\] y: got shape \(3,\)"),
        ((X[:4],), r"chunks\[1\]: expected \(X, y\) or \(X, y, sample_weight\), got tuple"),
        (X[:2], r"chunks\[1\]: expected \(X, y\) or .*, got ndarray"),
        ((X[:4], Y[:4], [1.0]), r"sample_weight: got shape \(1,\)"),
    ],
)
def test_a_bad_chunk_is_named(chunk: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(epochs=1).fit(MLP([5, 1]), [PARTS[0], chunk])


@pytest.mark.parametrize(
    ("source", "options", "arguments", "message"),
    [
        ([], {}, {}, "chunks: got none, expected at least one"),
        (lambda: [], {}, {}, "chunks: got none"),
        (PARTS, {"validation_split": 0.5}, {}, "validation_split: got a share of chunks"),
        (PARTS, {}, {"sample_weight": np.ones(60)}, "sample_weight: got weights beside chunks"),
        (PARTS, {}, {"class_weight": "balanced"}, "class_weight: got 'balanced' with chunks"),
        (PARTS, {"schedule": OneCycle()}, {}, "schedule: OneCycle.* expected its length in steps"),
        (PARTS, {"early_stopping": EarlyStopping()}, {}, "early_stopping: monitors 'val_loss', but there is no"),
        (PARTS, {"schedule": ReduceOnPlateau()}, {}, "schedule: monitors 'val_loss', but there is no"),
    ],
)
def test_what_chunks_do_not_go_with(source: Any, options: Any, arguments: Any, message: str) -> None:
    model = MLP([5, 1], seed=1)
    before = model.params.tobytes()
    with pytest.raises(ValueError, match=message):
        Trainer(**options).fit(model, source, **arguments)
    assert model.params.tobytes() == before and model.loss is None


def test_a_function_that_gives_its_iterator_only_once() -> None:
    parts = iter(PARTS)
    with pytest.raises(ValueError, match=r"chunks: got none in epoch 2, .* must return a new iterator each time"):
        Trainer(epochs=2).fit(MLP([5, 1]), lambda: parts)


def test_what_is_a_source() -> None:
    for value in (PARTS, [], Loader(), iter(PARTS), lambda: PARTS, ((X, Y),)):
        assert is_source(value)
    for value in (X, X.tolist(), [1, 2], (1.0, 2.0), "rows.csv", None, 3, {"X": X}, [(1, 2), (3, 4)]):
        assert not is_source(value)
    for rows in (X, X.tolist()):
        with pytest.raises((TypeError, ValueError), match=r"^y: "):
            Trainer().fit(MLP([5, 1]), rows)


def test_limits_and_early_stopping_on_chunks() -> None:
    stopping = EarlyStopping(patience=2, min_delta=100.0, monitor="loss")
    assert Trainer(epochs=9, early_stopping=stopping).fit(MLP([5, 1]), PARTS).stopped == "early stopping"

    def endless() -> Iterator[Any]:
        while True:
            yield PARTS[0]

    history = Trainer(max_seconds=0.2).fit(MLP([5, 1]), endless)
    assert history.stopped == "time" and history.epochs == 1

    def stuck() -> Iterator[Any]:
        yield PARTS[0]
        waiting.wait(30)

    waiting = threading.Event()
    history = Trainer(max_seconds=0.2).fit(MLP([5, 1]), stuck)
    assert history.stopped == "time" and history.epochs == 1
    waiting.set()
    for thread in threading.enumerate():
        if thread.name == "hotloop chunks":
            thread.join(10)


def test_diverging_chunks() -> None:
    model = MLP([5, 1], seed=1)
    with pytest.warns(DivergenceWarning, match="training diverged in epoch"):
        history = Trainer(optimizer=SGD(1e20), epochs=3).fit(model, PARTS)
    assert history.stopped == "diverged" and np.isfinite(model.params).all()


def test_memory_is_let_go() -> None:
    """At most the chunk that trains, the next, and the one being made are alive."""
    import weakref

    alive: list[Any] = []

    def source() -> Iterator[Any]:
        for _ in range(20):
            rows = X.astype(np.float32)
            alive.append(weakref.ref(rows))
            assert sum(reference() is not None for reference in alive) <= 4
            yield rows, Y

    Trainer(epochs=1).fit(MLP([5, 1]), source)


def test_chunks_alone() -> None:
    with Chunks([1, 2, 3], 2, lambda i, item: 10 * i + item) as chunks:
        assert chunks.first() == 1
        assert list(chunks.epoch(0, lambda: False)) == [1, 12, 23]
        assert list(chunks.epoch(1, lambda: False)) == [1, 12, 23]
        seen: list[int] = []
        passing = chunks.epoch(1, lambda: bool(seen))
        seen.append(next(passing))
        assert list(passing) == []


SLOW = """
import threading, time
import numpy as np
from hotloop import MLP, Trainer
X = np.random.default_rng(0).normal(size=(64, 20)).astype(np.float32)
def source():
    yield X, X[:, 0]
    print("ready", flush=True)
    time.sleep(30)
model, trainer = MLP([20, 1]), Trainer(epochs=2)
try:
    trainer.fit(model, source)
except KeyboardInterrupt as error:
    print(time.monotonic(), trainer.history.stopped, error, sep="\\n")
"""


def test_ctrl_c_while_a_chunk_is_waited_for() -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    _, stopped, message = out.splitlines()
    assert stopped == "interrupted" and message.startswith("training stopped in epoch 1 of 2, after 64 samples")


# partial_fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD(0.01), SGD(0.01, 0.9), Adam(0.01), Lion(0.01)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 8, None])
@pytest.mark.parametrize("schedule", [None, CosineDecay(), ExponentialDecay(0.97, per="step"), OneCycle(length=30)])
def test_partial_fit_call_by_call_is_fit(optimizer: Any, batch_size: int | None, schedule: Any) -> None:
    models = [MLP([5, 6, 1], seed=1) for _ in range(2)]
    trainer = Trainer(None, optimizer, schedule, batch_size, 4, seed=3)
    history = trainer.fit(models[0], X, Y)
    losses = [trainer.partial_fit(models[1], X, Y) for _ in range(4)]
    assert models[0].params.tobytes() == models[1].params.tobytes() and losses == history["loss"]
    assert models[1].loss == "mse"


def test_partial_fit_on_parts_is_fit_on_chunks() -> None:
    models = [MLP([5, 6, 1], seed=1) for _ in range(2)]
    trainer = Trainer(optimizer=Adam(0.01), epochs=1)
    trainer.fit(models[0], PARTS)
    for rows, values in PARTS:
        trainer.partial_fit(models[1], rows, values)
    assert models[0].params.tobytes() == models[1].params.tobytes()


def test_another_model_or_a_fit_begins_afresh() -> None:
    def learned(steps: list[str]) -> bytes:
        trainer = Trainer(optimizer=SGD(0.01, 0.9), epochs=1)
        model, other = MLP([5, 1], seed=1), MLP([5, 1], seed=2)
        for step in steps:
            if step == "fit":
                trainer.fit(other, X, Y)
            else:
                trainer.partial_fit(other if step == "other" else model, X, Y)
        return model.params.tobytes()

    assert learned(["model", "other", "model"]) == learned(["model", "fit", "model"]) != learned(["model", "model"])


def test_partial_fit_that_diverges_leaves_the_weights_from_before() -> None:
    model = MLP([5, 1], seed=1)
    trainer = Trainer(optimizer=SGD(0.01, 0.9))
    trainer.partial_fit(model, X, Y)
    before = model.params.tobytes()
    with pytest.warns(DivergenceWarning, match="partial_fit diverged with lr=0.01") as record:
        assert np.isnan(trainer.partial_fit(model, X * 1e30, Y))
    assert record[0].filename == __file__ and model.params.tobytes() == before
    assert np.isfinite(trainer.partial_fit(model, X, Y)) and np.isfinite(model.params).all()


def test_what_partial_fit_refuses() -> None:
    model = MLP([5, 1], seed=1)
    before = model.params.tobytes()
    with pytest.raises(ValueError, match="optimizer: AveragedSGD gives its mean at the end of a fit"):
        Trainer(optimizer=AveragedSGD()).partial_fit(model, X, Y)
    with pytest.raises(ValueError, match=r"^X: got shape"):
        Trainer().partial_fit(model, X[:, :2], Y)
    with pytest.raises(ValueError, match=r"schedule: OneCycle.* expected its length in steps"):
        Trainer(schedule=OneCycle()).partial_fit(model, X, Y)
    assert model.params.tobytes() == before and model.loss is None
