"""Runs the epoch kernels in pieces of about 20 ms, on as many threads as pay, and lets Python breathe in between."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop import layout
from hotloop.inputs import Rows
from hotloop.kernels import epochs
from hotloop.kernels.network import PADDED, STRIDE, WIDTH, Lists, Network, Samples
from hotloop.kernels.sparse import SPAN
from hotloop.objectives import Objective

PIECE_SECONDS = 0.02  # long beside the cost of a piece (0.1 ms with threads), short beside a person's patience
THREAD_PAYS = 200_000  # multiply-adds a thread must have in a step: about 5 us, twenty times the barriers' cost
PREDICT_ROWS = 64  # rows of an inference block: their values stay in the first-level cache


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back while kernels run: a thread that left its fellows waiting at a barrier would hang them.

    Yields a function that tells whether the signal has come.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)


class Pieces:
    """Divides a run of rows into pieces by the time the last piece took."""

    def __init__(self, step: int, first: int) -> None:
        self.step = step
        self.rows = max(step, first // step * step)

    def run(self, n: int, work: Callable[[int, int], float], after: Callable[[int, float], bool]) -> bool:
        """Call work(start, stop) over 0 .. n and after(stop, result) behind each; False if `after` said to stop."""
        start = 0
        while start < n:
            stop = min(n, start + self.rows)
            began = time.perf_counter()
            result = work(start, stop)
            seconds = time.perf_counter() - began
            if not after(stop, result):
                return False
            fitting = int((stop - start) * min(4.0, PIECE_SECONDS / max(seconds, 1e-6)))
            self.rows = max(self.step, fitting // self.step * self.step)
            start = stop
        return True


class Engine:
    """One model, one objective, one batch size: the working memory of a fit, and the call of its kernel."""

    def __init__(
        self, network: Network, rows: Rows, objective: Objective, batch_size: int, threads: int, per_sample: bool
    ) -> None:
        self.n, self.batch_size, self.per_sample = len(rows), batch_size, per_sample
        self.code = objective.code
        self.order = np.arange(self.n)
        listed = int(rows.compressed or rows.density() < _sparse_below(int(network.plan[1, WIDTH]), per_sample))
        self.samples = Samples(rows.arrays, objective.targets, objective.labels, self.order, listed)
        block = 1 if per_sample else min(batch_size, epochs.BLOCK)
        plan, size = replan(network.plan, objective.activation, block)
        self.network = Network(plan, network.params)
        lists = size if per_sample else block * int(plan[0, STRIDE]) * listed
        marks = 0 if per_sample else block * (-(-int(plan[0, WIDTH]) // SPAN) + 1) * listed
        dtype = network.params.dtype
        self.scratch = epochs.Scratch(
            layout.aligned(size, dtype),
            Lists(np.zeros(lists, np.int32), np.zeros(lists, dtype), np.zeros(marks, np.int32)),
            np.zeros(epochs.BLOCK),
            np.zeros(1, np.int64),
        )
        work = _products(plan) * 3 * min(batch_size, self.n)
        self.threads = 1 if per_sample else max(1, min(threads, work // THREAD_PAYS))
        self.pieces = Pieces(min(batch_size, self.n), 256)
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, start: int, stop: int, rule: epochs.Rule) -> float:
        """Train on positions start .. stop of the order; return the sum of the losses."""
        net, samples, code, scratch = self.network, self.samples, self.code, self.scratch
        if self.per_sample:
            return float(epochs.per_sample(net, samples, start, stop, code, rule.lr, scratch))

        def work(thread: int) -> float:
            size, threads = self.batch_size, self.threads
            return float(epochs.mini_batch(net, samples, start, stop, size, code, rule, scratch, thread, threads))

        return _together(self._pool, self.threads, work)


def _products(plan: NDArray[np.int64]) -> int:
    """Multiply-adds of one row's forward pass."""
    return int((plan[1:, PADDED] * plan[:-1, WIDTH]).sum())


def _together(pool: ThreadPoolExecutor | None, threads: int, work: Callable[[int], float]) -> float:
    """work(thread) for every thread at once, thread 0 on this one; what that one returned."""
    others = [pool.submit(work, thread) for thread in range(1, threads)] if pool else []
    result = work(0)
    for other in others:
        other.result()
    return result


def _sparse_below(width: int, per_sample: bool) -> float:
    """The density below which visiting only the non-zero inputs is faster, for a first layer of this width.

    Measured with AVX-512 at densities 0.2 and 1: 784-128-10 2.7 and 9.3 us listed against 5.9 us in one pass (batch 1),
    2.4 and about 8 against 4.2 (batch 32). Below 64 units, finding the entries costs as much as using them.
    """
    return (0.5 if per_sample else 0.4) * (1.0 if width >= 64 else 0.5)


def replan(plan: NDArray[np.int64], output: int, rows: int) -> tuple[NDArray[np.int64], int]:
    """The plan of the same network for blocks of `rows` rows and another last activation; the workspace's size."""
    sizes = [int(width) for width in plan[:, 0]]
    return layout.make_plan(sizes, [*plan[1:-1, 6], output], bool(plan[1, 5]), rows)


def infer(network: Network, rows: Rows, output: int, threads: int) -> NDArray[Any]:
    """The network's outputs (n, k) for these rows, by the given last activation; rows are divided over threads."""
    n, k = len(rows), int(network.plan[-1, WIDTH])
    out = np.empty((n, k), network.params.dtype)
    plan, size = replan(network.plan, output, PREDICT_ROWS)
    net = Network(plan, network.params)
    per_row = _products(plan)
    threads = max(1, min(threads, n * per_row // THREAD_PAYS, -(-n // PREDICT_ROWS)))
    work = [layout.aligned(size, network.params.dtype) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def piece(start: int, stop: int) -> float:
        def part(thread: int) -> float:
            begin = start + (stop - start) * thread // threads
            end = start + (stop - start) * (thread + 1) // threads
            epochs.predict(net, rows.arrays, begin, end, PREDICT_ROWS, work[thread], out)
            return 0.0

        return _together(pool, threads, part)

    Pieces(PREDICT_ROWS * threads, 4096).run(n, piece, lambda stop, result: True)
    if pool is not None:
        pool.shutdown()
    return out
