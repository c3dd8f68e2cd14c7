"""Pieces, threads and Ctrl-C: none of them may change a bit of the result."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import reference

from hotloop import MLP, SGD, Trainer, engine, inputs, layout
from hotloop.engine import Engine, Interrupts, Pieces, infer
from hotloop.kernels import activations
from hotloop.objectives import bind
from hotloop.optimizers import gradient_only

RNG = np.random.default_rng(2)
CASES = [
    ("relu", "softmax", "cross_entropy"),
    ("tanh", "softmax", "mse"),
    ("silu", "identity", "huber"),
    ("sigmoid", "sigmoid", "logistic"),
]


def data(n: int, output: str, loss: str, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Inputs with zeros in them, and y for a model of 19 inputs and 5 outputs."""
    X = (RNG.normal(size=(n, 19)) * (RNG.random((n, 19)) < 0.6)).astype(dtype)
    labels = RNG.integers(0, 5, n)
    return X, labels if loss == "cross_entropy" else np.eye(5)[labels]


def run(
    case: tuple[str, str, str],
    X: np.ndarray,
    y: np.ndarray,
    batch_size: int,
    threads: int,
    per_sample: bool,
    dtype: str,
) -> tuple[bytes, float]:
    """Two epochs with the engine alone; parameters and the sum of the losses."""
    hidden, output, loss = case
    model = MLP([19, 33, 17, 5], hidden, output, dtype=dtype, seed=6)
    machine = Engine(model._network, inputs.dense(X), bind(loss, model, y, len(X)), batch_size, threads, per_sample)
    rule = SGD(lr=0.05).rule(np.array([0.05]), model.params[:0], SGD().init(model.params))
    try:
        total = sum(machine.run(0, len(X), rule) for _ in range(2))
        assert machine.threads == (1 if per_sample else threads)
    finally:
        machine.close()
    return model.params.tobytes(), total


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_windows_and_batches_of_one_take_the_same_steps(
    monkeypatch: pytest.MonkeyPatch, case: tuple[str, str, str], dtype: str
) -> None:
    monkeypatch.setattr(layout, "WINDOW", 1)
    X, y = data(50, *case[1:], dtype)
    (ours, loss), (theirs, other) = run(case, X, y, 1, 1, True, dtype), run(case, X, y, 1, 1, False, dtype)
    atol = 2e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(np.frombuffer(ours, dtype), np.frombuffer(theirs, dtype), rtol=0, atol=atol)
    assert loss == pytest.approx(other, rel=atol)
    assert ours != theirs  # narrow layers have an order of sums of their own, see sparse.accumulate_row


@pytest.mark.parametrize("batch_size", [1, 7, 30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_listed_compressed_and_dense_rows_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, dtype: str
) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    X, y = data(60, "softmax", "cross_entropy", dtype)
    X[3], X[:, 5] = 0, 0  # an empty row, an empty column
    found = set()
    for below, given in ((0.0, X), (2.0, X), (0.0, sparse.csr_array(X)), (0.0, sparse.coo_matrix(X))):
        monkeypatch.setattr(engine, "_sparse_below", lambda width, window, below=below: below)
        model = MLP([19, 33, 5], output="softmax", dtype=dtype, seed=1)
        history = Trainer(optimizer=SGD(lr=0.1), batch_size=batch_size, epochs=3).fit(model, given, y)
        found.add((model.params.tobytes(), tuple(history["loss"]), model.forward(given).tobytes()))
    assert len(found) == 1


@pytest.mark.parametrize("batch_size", [1, 7, 32, 50])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch, batch_size: int, dtype: str) -> None:
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    for case in CASES[:2]:
        X, y = data(50, *case[1:], dtype)
        alone = run(case, X, y, batch_size, 1, False, dtype)
        for threads in (2, 3, 4):
            assert run(case, X, y, batch_size, threads, False, dtype) == alone


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_threads_do_not_change_a_bit_of_a_large_batch(monkeypatch: pytest.MonkeyPatch, momentum: float) -> None:
    X, y = data(1300, "softmax", "cross_entropy")
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(engine, "THREAD_PAYS", 1)
        model = MLP([19, 33, 5], output="softmax", seed=1)
        trainer = Trainer(optimizer=SGD(0.1, momentum), batch_size=1200, epochs=3, threads=threads)
        history = trainer.fit(model, X, y)
        found.append((model.params.tobytes(), history["loss"]))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [511, 512, 513, 600, 1025])
def test_batches_above_one_block_are_one_batch(n: int, dtype: str) -> None:
    X, y = data(n, "softmax", "cross_entropy", dtype)
    model = MLP([19, 8, 5], "tanh", "softmax", dtype=dtype, seed=1)
    weights, biases = ([np.array(part, float) for part in parts] for parts in (model.weights, model.biases))
    loss, dweights, dbiases = reference.network_gradients(
        weights, biases, ["tanh", "softmax"], "cross_entropy", np.float64(X), y
    )
    history = Trainer(optimizer=SGD(lr=0.5), batch_size=n, epochs=1).fit(model, X, y)
    eps = float(np.finfo(dtype).eps)
    assert history["loss"][0] == pytest.approx(loss, rel=50 * eps)
    for new, old, grad in zip(model.weights + model.biases, weights + biases, dweights + dbiases, strict=True):
        np.testing.assert_allclose(new, old - 0.5 * grad, rtol=0, atol=50 * eps * np.abs(old).max() + 50 * eps)


def test_small_steps_run_on_one_thread() -> None:
    X, y = data(50, "softmax", "cross_entropy")
    model = MLP([19, 5], output="softmax")
    machine = Engine(model._network, inputs.dense(X), bind(None, model, y, 50), 32, 8, False)
    assert machine.threads == 1 and machine._pool is None
    machine.close()


@pytest.mark.parametrize("step", [1, 7, 32])
def test_pieces_cover_everything_once_in_whole_steps(step: int) -> None:
    for first in (1, 256):
        pieces, done = Pieces(step, first), []

        def work(start: int, stop: int, done: list[tuple[int, int]] = done) -> float:
            done.append((start, stop))
            return float(stop - start)

        seen: list[float] = []
        assert pieces.run(10_000, work, lambda stop, result, seen=seen: seen.append(result) is None)
        assert done[0][0] == 0 and done[-1][1] == 10_000 and sum(seen) == 10_000
        assert all(before[1] == after[0] for before, after in pairwise(done))
        assert all((stop - start) % step == 0 for start, stop in done[:-1])
        assert pieces.run(0, work, lambda stop, result: True)


def test_pieces_grow_when_they_are_fast_shrink_when_they_are_slow_and_stop_when_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(engine.time, "perf_counter", lambda: clock[0])

    def at(seconds_per_row: float) -> Callable[[int, int], float]:
        def work(start: int, stop: int) -> float:
            sizes.append(stop - start)
            clock[0] += (stop - start) * seconds_per_row
            return 0.0

        return work

    sizes: list[int] = []
    pieces = Pieces(10, 100)
    pieces.run(1_000_000, at(1e-6), lambda stop, result: True)
    assert sizes[:3] == [100, 400, 1600] and max(sizes) * 1e-6 == pytest.approx(engine.PIECE_SECONDS, rel=0.01)
    sizes.clear()
    pieces.run(100_000, at(0.99e-3), lambda stop, result: True)
    assert sizes[1] == 20 and sizes[-2] == 20  # 20 ms at a time
    sizes.clear()
    pieces.run(100, at(1.0), lambda stop, result: True)
    assert sizes[-1] == 10  # never less than a step
    sizes.clear()
    assert not pieces.run(100, at(1.0), lambda stop, result: stop < 30)
    assert len(sizes) == 3


def test_the_size_of_the_pieces_does_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(300, "softmax", "cross_entropy")
    for batch_size in (1, 32):
        found = []
        for seconds in (1e-9, 0.02):
            monkeypatch.setattr(engine, "PIECE_SECONDS", seconds)
            model = MLP([19, 12, 5], output="softmax", seed=1)
            history = Trainer(batch_size=batch_size, epochs=3).fit(model, X, y)
            found.append(model.params.tobytes())
        assert found[0] == found[1]
        assert history.epochs == 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
def test_inference_does_not_depend_on_threads_or_blocks(monkeypatch: pytest.MonkeyPatch, n: int, dtype: str) -> None:
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    X, _ = data(n, "softmax", "cross_entropy", dtype)
    model = MLP([19, 33, 5], "gelu", "softmax", dtype=dtype, seed=1)

    def outputs_for(rows: np.ndarray, threads: int) -> bytes:
        return infer(model._network, inputs.dense(rows), activations.SOFTMAX, threads).tobytes()

    outputs = [outputs_for(X, threads) for threads in (1, 2, 3, 4)]
    assert len(set(outputs)) == 1
    assert outputs[0].startswith(b"".join(outputs_for(X[i : i + 1], 1) for i in range(min(n, 70))))


def test_ctrl_c_is_noted_and_the_former_handler_comes_back() -> None:
    called = []
    before = signal.signal(signal.SIGINT, lambda number, frame: called.append(number))
    mine = signal.getsignal(signal.SIGINT)
    try:
        with Interrupts() as interrupts:
            interrupts.deliver("nothing has come")
            signal.raise_signal(signal.SIGINT)
            assert not called
            interrupts.deliver("the program has a handler of its own")
            interrupts.deliver("once is enough")
            assert called == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is mine
        with pytest.raises(ZeroDivisionError), Interrupts():
            raise ZeroDivisionError
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)

    def inside() -> bool:
        with Interrupts() as interrupts:
            return signal.getsignal(signal.SIGINT) is before and not interrupts.came

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result()


def test_training_and_inference_in_several_threads_at_once() -> None:
    X, y = data(200, "softmax", "cross_entropy")

    def train(seed: int) -> bytes:
        model = MLP([19, 12, 5], output="softmax", seed=seed)
        Trainer(batch_size=8, epochs=5, seed=seed).fit(model, X, y)
        return model.params.tobytes() + model.predict(X).tobytes()

    alone = [train(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(train, range(4))) == alone


def test_threads_end_with_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "THREAD_PAYS", 1)
    before = threading.active_count()
    X, y = data(100, "softmax", "cross_entropy")
    model = MLP([19, 12, 5], output="softmax")
    Trainer(batch_size=50, epochs=2, threads=4, validation_split=0.5).fit(model, X, y)
    model.predict(X)
    assert threading.active_count() == before


def test_code_of_the_gradient_only_rule_moves_nothing() -> None:
    X, y = data(20, "softmax", "cross_entropy")
    model = MLP([19, 12, 5], output="softmax", seed=1)
    before = model.params.tobytes()
    grad = np.zeros_like(model.params)
    machine = Engine(model._network, inputs.dense(X), bind(None, model, y, 20), 20, 1, False)
    machine.run(0, 20, gradient_only(grad))
    assert model.params.tobytes() == before and grad.any()


def test_pace_takes_the_faster_choice_and_tries_the_other_ever_more_rarely() -> None:
    pace = engine.Pace(1, 4)
    assert not pace.probing()
    seconds = {4: 0.03, 1: 0.02}
    tried = []
    for piece in range(200):
        if pace.probing():
            tried.append(piece)
            pace.note(pace.other, 100, seconds[pace.other])
        pace.note(pace.threads, 100, seconds[pace.threads])
        assert pace.threads == 1
    gaps = np.diff(tried)
    assert len(tried) >= 4 and (gaps[1:] >= gaps[:-1]).all() and gaps[-1] >= 32


def test_pace_leaves_threads_that_crawl_and_returns_to_them() -> None:
    pace = engine.Pace(1, 2)
    seconds = {2: 0.02, 1: 0.03}
    chosen = []
    for piece in range(300):
        seconds[2] = 2.0 if 100 <= piece < 150 else 0.02  # another program wants the cores
        if pace.probing():
            pace.note(pace.other, 100, seconds[pace.other])
        chosen.append(pace.threads)
        pace.note(pace.threads, 100, seconds[pace.threads])
    assert chosen[0] == 1 and chosen[4] == chosen[99] == 2 and chosen[102:150] == [1] * 48 and chosen[-1] == 2


def test_pace_wants_threads_to_pay_and_doubts_its_first_measure() -> None:
    pace = engine.Pace(1, 8)
    chosen = []
    for piece in range(12):
        if pace.probing():
            pace.note(pace.other, 100, 0.02 if pace.other == 1 else 0.01 if piece < 4 else 0.019)  # then hardly faster
        chosen.append(pace.threads)
        pace.note(pace.threads, 100, 0.02 if pace.threads == 1 else 0.025)
    assert 8 in chosen[:5] and set(chosen[7:]) == {1}


def test_pace_of_one_thread_is_one_thread() -> None:
    pace = engine.Pace(1, 1)
    for _ in range(20):
        pace.note(1, 100, 0.02)
        assert not pace.probing() and pace.threads == 1
