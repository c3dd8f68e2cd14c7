"""Runs the epoch kernels in pieces of about 20 ms, on as many threads as pay, and lets Python breathe in between."""

import math
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import FrameType, TracebackType
from typing import Any

import numpy as np
from numba.np.numpy_support import from_dtype
from numpy.typing import DTypeLike, NDArray

from hotloop import layout
from hotloop.inputs import Rows
from hotloop.kernels import (
    activations,
    barrier,
    epochs,
    inference,
    lazy,
    losses,
    parts,
    regularize,
    runs,
    steps,
    updates,
)
from hotloop.kernels.jit import address_of
from hotloop.kernels.plan import ACTIVATION, HAS_BIAS, PADDED, STRIDE, WIDTH, Lists, Network, Samples
from hotloop.kernels.simd import LANES
from hotloop.kernels.sparse import NARROW, blocks_of
from hotloop.objectives import Objective
from hotloop.regularization import Regularization

PIECE_SECONDS = 0.02  # long beside the cost of a piece (0.1 ms with threads), short beside a person's patience
THREAD_PAYS = 200_000  # multiply-adds a thread must have in a step: about 5 us, twenty times the barriers' cost
# Weights of the first layer, of inputs that are not zero, that a thread must have when threads divide a window's steps.
# Two of them were 1.2 times as fast as one on dense rows before 256 x 4,096 and 784 x 1,024 weights, 1.0 before 1,024 x
# 512 and 0.5 before 784 x 128.
COLUMNS_PAY = 400_000
STARTS = 100  # times THREAD_PAYS, about 0.5 ms of work: before that much, threads are not started, which takes 0.3 ms
LAZY_BELOW = 0.02  # of the features are met by a batch: at 0.006 lazy is twice as fast, at 0.06 slower
LONG_STEP = 100_000_000  # multiply-adds, about 2 ms: waiting at a barrier no longer counts
FIRST_ROWS = 1 << 15  # of a fit's first piece at most: of the smallest networks a row takes 0.2 us
LISTING_PAYS = 3  # passes over dense rows: listing 784 pixels takes 0.3 us, and spares each pass 0.15
SHORTEST = 1e-3  # seconds of a piece that says something of the pace
FIRST_TRY = 2  # pieces before threads are tried, or tried again: the first ones are too small to tell
GAIN = 0.9  # of the time: what more threads must save, or be left to others
PROBE_SHARE = 8  # of a piece is run with the other number of threads, when that is tried
PREDICT_ROWS = 64  # rows of an inference block: their values stay in the first-level cache


class Interrupts:
    """Holds Ctrl-C back while kernels run: a thread that left its fellows waiting at a barrier would hang them.

    `deliver`, called between pieces, lets it through. A program's own handler is called there; where the program
    ignores Ctrl-C, or in another thread than the main one, nothing is held.
    """

    def __init__(self) -> None:
        self.noted = False  # Ctrl-C has come
        self._before: Any = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if callable(before):
                self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = True

    @property
    def came(self) -> bool:
        """Whether Ctrl-C waits to be delivered, and would end the training."""
        return self.noted and self._before is signal.default_int_handler

    def deliver(self, message: str) -> None:
        """Raise KeyboardInterrupt with this message if Ctrl-C has come, or call the program's own handler."""
        if self.came:
            raise KeyboardInterrupt(message)
        if self.noted:
            self.noted = False
            self._before(signal.SIGINT, None)


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
        self,
        network: Network,
        rows: Rows,
        objective: Objective,
        batch_size: int,
        threads: int,
        per_sample: bool = False,
        regularization: Regularization | None = None,
        seed: int = 0,
        lazy_from: int | None = None,
        passes: int = 1,
    ) -> None:
        self.n, self.batch_size, self.per_sample = len(rows), batch_size, per_sample
        in_a_line = network.plan[-1, PADDED] == LANES and objective.activation == activations.IDENTITY
        self.code = losses.ready(objective.code, network.params.dtype, in_a_line)
        self.order = np.arange(self.n)
        layers = len(network.plan) - 1
        regularization = regularization or Regularization()
        self.regular = regularization.for_kernels(layers, network.params.dtype, seed)
        density = rows.density()
        window = min(layout.window(network.plan, density), self.n) if per_sample else 0
        below = _sparse_below(int(network.plan[1, WIDTH]), window)
        sparse = density < below or (rows.compressed and density < layout.SPARSE)
        listed = int(window == 1 or (sparse and not regularization.changes_inputs(layers)))
        if listed and window == 1 and not rows.compressed and passes >= LISTING_PAYS:
            rows = rows.listed()
        samples = Samples(rows.arrays, objective.targets, objective.labels, objective.weights, self.order, listed)
        self.samples = parts.ready(samples, window, self.code)
        block = 2 * window if per_sample else min(batch_size, epochs.BLOCK)
        plan, size = replan(network, objective.activation, block)
        self.network = Network(plan, network.params)
        if per_sample:
            work = entries = int((density if listed else 1.0) * plan[0, WIDTH] * plan[1, PADDED])
            most = min(threads, entries // COLUMNS_PAY, int(plan[1, PADDED]) // LANES)
        else:
            work = products(self.network) * 3 * min(batch_size, self.n)
            most = min(threads, work // THREAD_PAYS)
        self.threads = max(1, most)
        self._row_work, self._done = work // (1 if per_sample else min(batch_size, self.n)), 0  # multiply-adds
        listed_rows = block * int(listed and (rows.compressed or window == 1))
        lists = size if per_sample else int(plan[0, STRIDE]) * listed_rows
        marks = (blocks_of(int(plan[0, WIDTH]), int(plan[1, PADDED])) + 1) * listed_rows + (layers + 1) * per_sample
        dtype = network.params.dtype
        self.scratch = epochs.Scratch(
            layout.aligned(size, dtype),
            Lists(layout.aligned(lists, np.int32), layout.aligned(lists, dtype), layout.aligned(marks, np.int32)),
            np.zeros(epochs.BLOCK),
            np.zeros((2 * window, window), dtype),
            np.zeros(int(plan[0, WIDTH]) * window * int(listed and rows.compressed), dtype),
            np.zeros(-(-network.params.size // regularize.BLOCK), dtype),
            np.zeros(1),
            np.zeros(barrier.APART * (self.threads + 1), np.int64),
            _lazy(rows, density, batch_size, lazy_from, dtype),
        )
        self._pace = Pace(1, self.threads) if work < LONG_STEP else Pace(self.threads, self.threads)
        self.whole = window if per_sample else min(batch_size, self.n)  # rows that no piece divides
        # The first piece is what threads are not started for; the later ones are what takes PIECE_SECONDS.
        self.pieces = Pieces(self.whole, min(FIRST_ROWS, STARTS * THREAD_PAYS // max(1, self._row_work)))
        self._kernel: Callable[..., None] = epochs.per_sample if per_sample else epochs.mini_batch
        self._address = 0  # where it is, once it is compiled or loaded
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, start: int, stop: int, rule: updates.Rule) -> float:
        """Train on positions start .. stop of the order; return the sum of the losses since `restart`."""
        pace, size, rule = self._pace, self.whole, steps.ready(rule)
        self._done += self._row_work * (stop - start)
        if self._done < STARTS * THREAD_PAYS:
            self._timed(1, start, stop, rule)
            return float(self.scratch.total[0])
        if pace.probing():
            rows = max(size, (stop - start) // (PROBE_SHARE * size) * size)
            awake = min(stop, start + size)  # threads that slept need a millisecond to wake up: not measured
            middle = min(stop, awake + rows)
            self._timed(pace.other, start, awake, rule)
            pace.note(pace.other, middle - awake, self._timed(pace.other, awake, middle, rule))
            start = middle
        pace.note(pace.threads, stop - start, self._timed(pace.threads, start, stop, rule))
        return float(self.scratch.total[0])

    def restart(self, epoch: int) -> None:
        """Begin an epoch: a new sum of losses, new draws of dropout and noise."""
        self.scratch.total[0], self.regular.epoch[0] = 0.0, epoch

    @property
    def runs_epochs(self) -> bool:
        """Whether `run_epochs` can be called, by one thread alone, and epochs are so short that it pays."""
        return self.threads == 1 and self._row_work * self.n < LONG_STEP and self._address != 0

    def run_epochs(self, rule: updates.Rule, course: runs.Course) -> tuple[int, int]:
        """Train epoch after epoch in one call; how many, and why no more: see kernels.runs."""
        net, samples, regular, scratch = self.network, self.samples, self.regular, self.scratch
        ready = steps.ready(rule)
        return runs.run_epochs(self._address, net, samples, self.whole, self.code, ready, regular, scratch, course)

    def _timed(self, threads: int, start: int, stop: int, rule: updates.Rule) -> float:
        """Train on these positions with this many threads; return the seconds it took."""
        kernel, net, samples, regular, scratch = self._kernel, self.network, self.samples, self.regular, self.scratch
        began = time.perf_counter()

        def work(thread: int) -> None:
            kernel(net, samples, start, stop, self.whole, self.code, rule, regular, scratch, thread, threads)

        _together(self._pool, threads, work)
        seconds = time.perf_counter() - began
        if self._kernel is kernel and hasattr(kernel, "overloads"):  # Numba has seen the types of this engine
            self._kernel, self._address = _entry(kernel, net.params.dtype, len(kernel.overloads))
        return seconds


@lru_cache(maxsize=64)
def _entry(kernel: Any, dtype: DTypeLike, known: int) -> tuple[Any, int]:
    """The machine code of an epoch kernel for parameters of this dtype, where only one of the `known` is for them.

    As Python calls it, and its address for kernels. Its tuples have the same types in every engine, and do not change
    within one: Numba's look at them takes 10 us a call, of the 270 of an epoch of 1,792 rows of 64-32-10.
    """
    kind = from_dtype(np.dtype(dtype))
    found = [made for kinds, made in kernel.overloads.items() if kinds[0].types[1].dtype == kind]
    return (found[0].entry_point, address_of(found[0])) if len(found) == 1 else (kernel, 0)


class Pace:
    """Chooses between one thread and all of them, by the time a row took with either.

    Threads that meet at a barrier every few microseconds crawl when other programs want the same cores (measured: 70
    times slower than one thread), and the results do not depend on the number of threads: so it may change at any time.
    One thread begins: with eight on two cores an epoch of 784-128-10 with batch 32 took twice as long before they were
    given up. The choice that lost is tried again on a part of every WAIT-th piece, and half as often each time it loses
    again.
    """

    WAIT, LONGEST = 8, 512

    def __init__(self, threads: int, other: int) -> None:
        self.threads, self.other = threads, other
        self._seconds: dict[int, float] = {}  # a row took, when last tried
        self._wait, self._pieces = self.WAIT, self.WAIT - FIRST_TRY

    def probing(self) -> bool:
        """Whether the next rows are to be run with the other number of threads."""
        return self.threads != self.other and self._pieces >= self._wait

    def note(self, threads: int, rows: int, seconds: float) -> None:
        """What a run of so many rows took."""
        if self.threads == self.other or rows == 0:
            return
        if threads == self.threads and seconds < SHORTEST:
            self._pieces += 1
            return
        self._seconds[threads] = seconds / rows
        best = self._seconds.get(self.threads, math.inf)
        if threads == self.other:
            self._pieces, self._wait = 0, min(self.LONGEST, 2 * self._wait)
            if self._seconds[threads] < best * (GAIN if threads > self.threads else 1.0):
                self._switch()
        else:
            self._pieces += 1
            if best > 1.5 * self._seconds.get(self.other, math.inf):
                self._switch()

    def _switch(self) -> None:
        self.threads, self.other = self.other, self.threads
        self._wait, self._pieces = self.WAIT, self.WAIT - FIRST_TRY  # soon tried again: one measure may be wrong


def _together(pool: ThreadPoolExecutor | None, threads: int, work: Callable[[int], None]) -> None:
    """work(thread) for every thread at once, thread 0 on this one."""
    others = [pool.submit(work, thread) for thread in range(1, threads)] if pool else []
    work(0)
    for other in others:
        other.result()


def _lazy(rows: Rows, density: float, batch_size: int, done: int | None, dtype: DTypeLike) -> lazy.Lazy:
    """Whether, and with what memory, only the rows of weights that a batch meets are moved, `done` steps being done.

    Where a batch meets a good part of them, moving all is faster. done None: all are moved.
    """
    if done is None or not rows.compressed or density * batch_size >= LAZY_BELOW:
        return no_lazy_rows()
    features = rows.arrays.X.shape[1]
    memory = lazy.Lazy(np.full(features, done, np.int64), np.zeros(features, np.int32), np.zeros(1, np.int64))
    return lazy.ready(memory, dtype)


def no_lazy_rows() -> lazy.Lazy:
    """The memory of a first layer whose rows are all moved."""
    return lazy.Lazy(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))


def products(network: Network) -> int:
    """Multiply-adds of one row's forward pass."""
    plan = network.plan
    return int((plan[1:, PADDED] * plan[:-1, WIDTH]).sum())


def _sparse_below(width: int, window: int) -> float:
    """The density below which visiting only the non-zero inputs is faster, for a first layer of this width.

    window: samples of a window, 0 for mini-batches; windows of one are always listed. What skipping costs grows with
    the density, and a narrow layer has little to skip. bench/windows.py, us a sample with all inputs and without the
    zeros: batch 32, 784-10 0.64 and 0.56 at density 0.02, 0.65 and 0.75 at 0.1; 784-30-10 0.93 and 0.85 at 0.1, 0.93
    and 0.91 on MNIST (0.19); 784-128-10 2.9 and 1.3 on MNIST, 2.8 and 2.4 at 0.4; windows of 16, 200-32-10 0.44 and
    0.58 at 0.3, 784-64-10 1.9 and 2.4 at 0.3, 784-128-10 3.4 and 1.7 on MNIST, 3.3 and 2.9 at 0.4.
    """
    if width > NARROW:
        return 0.45 if window > 0 else 0.4
    if window > 0:
        return 0.0
    return 0.2 if width > LANES else 0.08


def replan(network: Network, output: int, rows: int) -> tuple[NDArray[np.int64], int]:
    """The plan of the same network for blocks of `rows` rows and another last activation; the workspace's size.

    Its activations are `ready` for the kernels. The plan is shared by all who asked for it, and not to be changed.
    """
    return _replanned(network.plan.tobytes(), len(network.plan), output, rows, network.params.dtype)


@lru_cache(maxsize=64)
def _replanned(lines: bytes, count: int, output: int, rows: int, dtype: DTypeLike) -> tuple[NDArray[np.int64], int]:
    plan = np.frombuffer(lines, np.int64).reshape(count, -1)
    sizes = [int(width) for width in plan[:, WIDTH]]
    codes = [activations.ready(int(code), dtype) for code in (*plan[1:-1, ACTIVATION], output)]
    return layout.make_plan(sizes, codes, bool(plan[1, HAS_BIAS]), rows)


def infer(
    network: Network, rows: Rows, output: int, threads: int, breathe: Callable[[], None] = lambda: None
) -> NDArray[Any]:
    """The network's outputs (n, k) for these rows, by the given last activation; rows are divided over threads.

    breathe is called between pieces. Rows on a GPU are inferred there, and the outputs brought to the host.
    """
    if rows.on_device:
        from hotloop import cuda

        return np.asarray(cuda.infer(network, rows.arrays, output, len(rows)).copy_to_host())
    n, k = len(rows), int(network.plan[-1, WIDTH])
    out = np.empty((n, k), network.params.dtype)
    if n <= PREDICT_ROWS:  # one block on this thread: for one row of 64-32-10 6 us instead of 18
        plan, size = replan(network, output, n)
        work_of_one = layout.aligned(size, network.params.dtype)
        inference.predict(Network(plan, network.params), rows.arrays, 0, n, n, work_of_one, out)
        breathe()
        return out
    plan, size = replan(network, output, PREDICT_ROWS)
    net = Network(plan, network.params)
    per_row = products(net)
    threads = max(1, min(threads, n * per_row // THREAD_PAYS, -(-n // PREDICT_ROWS)))
    work = [layout.aligned(size, network.params.dtype) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def piece(start: int, stop: int) -> float:
        def part(thread: int) -> None:
            begin = start + (stop - start) * thread // threads
            end = start + (stop - start) * (thread + 1) // threads
            inference.predict(net, rows.arrays, begin, end, PREDICT_ROWS, work[thread], out)

        _together(pool, threads, part)
        return 0.0

    def after(stop: int, result: float) -> bool:
        breathe()
        return True

    try:
        Pieces(PREDICT_ROWS * threads, 4096).run(n, piece, after)
    finally:
        if pool is not None:
            pool.shutdown()
    return out
