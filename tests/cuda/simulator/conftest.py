"""Kernels run by Python, thread by thread, with what numba-cuda's simulator lacks or lets pass.

Added: warp shuffles and votes, syncwarp, aligned arrays, several shared arrays on one line. Made strict: shared memory
begins as NaN, not as zeros; grid-wide barriers of several blocks, which cannot be simulated, are errors; the threads of
a block must meet at the same barrier.

The threads take turns, each as far as it gets without the others, after every barrier in another order, drawn anew but
the same whenever a test is run: where a barrier is missing, some thread comes before another that it should wait for.
The simulator's own threads race, while one more asks again and again whether all wait: the suite took four times as
long, and a missing barrier showed by chance.
"""

import os
import sys
from _thread import allocate_lock, start_new_thread
from collections import deque
from contextlib import ExitStack
from random import Random
from typing import Any

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    raise RuntimeError(
        "these tests need a process of their own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/simulator"
    )

if hasattr(os, "sched_setaffinity"):  # the threads of a block take turns: several cores only hand them to and fro
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
import pytest
from numba.core.types import Float, Integer, Type
from numba.cuda.simulator import kernel, kernelapi

MOST_THREADS = 64  # of a block: each is a thread of the operating system
WARP = 32


order = Random()


@pytest.fixture(autouse=True)
def _order_of_turns(request: pytest.FixtureRequest) -> None:
    order.seed(request.node.name)


class Thread:
    """One of a block's threads, which sleeps until its turn."""

    def __init__(self, number: int, index: tuple[int, ...]) -> None:
        self.number, self.index, self.turn = number, kernelapi.Dim3(*index), allocate_lock()
        self.turn.acquire()
        self.place: Any = None  # where it waits for others


class Block:
    """What numba-cuda calls a BlockManager."""

    running: "Block"

    def __init__(self, function: Any, grid_dim: Any, block_dim: Any, debug: bool) -> None:
        self.function, self.grid_dim, self.block_dim = function, grid_dim, block_dim
        assert int(np.prod(block_dim)) <= MOST_THREADS, f"a simulated block has at most {MOST_THREADS} threads"
        self.threads = [Thread(number, index[::-1]) for number, index in enumerate(np.ndindex(*block_dim[::-1]))]
        self.alive, self.ready, self.now = len(self.threads), deque(self.threads), self.threads[0]
        order.shuffle(self.ready)
        self.barrier: list[Thread] = []
        self.warps: list[list[Thread]] = [[] for _ in range(0, self.alive, WARP)]
        self.values: list[Any] = [None] * self.alive  # what the lanes of the warps show each other
        self.error, self.ended = None, allocate_lock()

    def run(self, place: tuple[int, ...], *args: Any) -> None:
        """Run the block at this place of the grid to its end."""
        Block.running, self.context = self, kernel._get_kernel_context()
        self.context.blockIdx = kernelapi.Dim3(*place)
        self.ended.acquire()
        for thread in self.threads:
            start_new_thread(self._live, (thread, args))
        self._next()
        self.ended.acquire()
        if self.error:
            raise self.error

    def _live(self, thread: Thread, args: tuple[Any, ...]) -> None:
        thread.turn.acquire()
        try:
            self._begin_turn(thread)
            self.function(*args)
        except BaseException as error:
            if self.error is None:  # else the others end by it
                error.add_note(f"in thread {thread.number} of the simulated block {tuple(self.context.blockIdx)}")
                self.error = error
        self.alive -= 1
        if self.barrier and len(self.barrier) == self.alive:
            self._open(self.barrier)
        self._next()

    def _begin_turn(self, thread: Thread) -> None:
        self.now, self.context.threadIdx = thread, thread.index
        if self.error:
            raise SystemExit

    def _next(self) -> None:
        """Give the turn to the next thread that does not wait for others."""
        if not self.ready and self.alive:
            self.error = self.error or AssertionError("some threads of a warp do not come to where the others wait")
            for waiting in (self.barrier, *self.warps):
                self._open(waiting)
        (self.ready.popleft().turn if self.ready else self.ended).release()

    def _open(self, waiting: list[Thread]) -> None:
        """All are here: they go on."""
        order.shuffle(waiting)
        self.ready.extendleft(waiting)
        waiting.clear()

    def meet(self, waiting: list[Thread], count: int, place: Any) -> None:
        """Wait until so many threads are here, all at the same place of the program."""
        assert not waiting or waiting[0].place == place, "threads meet at different barriers"
        thread = self.now
        thread.place = place
        waiting.append(thread)
        if len(waiting) == count:
            self._open(waiting)
        self._next()
        thread.turn.acquire()
        self._begin_turn(thread)

    def exchange(self, mask: int, value: Any, place: Any) -> tuple[int, list[Any]]:
        """This thread's lane, and every lane's value; all lanes must call."""
        number, first = self.now.number // WARP, self.now.number // WARP * WARP
        lanes = min(WARP, len(self.threads) - first)
        assert int(mask) & (2**lanes - 1) == 2**lanes - 1, "only whole warps are simulated"
        self.values[self.now.number] = value
        self.meet(self.warps[number], lanes, place)
        seen = self.values[first : first + lanes]
        self.meet(self.warps[number], lanes, place)
        return self.now.number - first, seen


def _place(depth: int = 2) -> Any:
    """Where the kernel is that calls."""
    frame = sys._getframe(depth)
    return frame.f_code, frame.f_lasti


def _exchange(mask: int, value: Any) -> tuple[int, list[Any]]:
    return Block.running.exchange(mask, value, _place(3))


def _shuffle(source: Any) -> Any:
    def shuffle(self: Any, mask: int, value: Any, argument: int, width: int = 32) -> Any:
        lane, values = _exchange(mask, value)
        at = source(lane, int(argument), width)
        return values[at] if 0 <= at < len(values) else value

    return shuffle


def _syncthreads(self: Any) -> None:
    block = Block.running
    block.meet(block.barrier, block.alive, _place())


def _grid_sync(self: Any) -> None:
    block = Block.running
    assert int(np.prod(block.grid_dim)) == 1, "a barrier of several blocks cannot be simulated"
    block.meet(block.barrier, block.alive, _place())


def _shared_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
    if shape == 0:  # the dynamic memory, which all such arrays of a block share
        if "poisoned" not in self.__dict__:
            self.poisoned = np.full(self._dynshared_size // 4, np.nan, np.float32)
        dtype = _dtype(dtype)
        return self.poisoned.view(np.uint8)[: self._dynshared_size // dtype.itemsize * dtype.itemsize].view(dtype)
    place = _place()
    if place not in self._allocations:
        self._allocations[place] = _local_array(self, shape, dtype)
    return self._allocations[place]


def _dtype(dtype: Any) -> np.dtype[Any]:
    return np.dtype(kernelapi.numpy_support.as_dtype(dtype) if isinstance(dtype, kernelapi.types.Type) else dtype)


def _local_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
    array = np.empty(shape, _dtype(dtype))
    array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max)
    return array


def _plain(arg: Any) -> Any:
    """A kernel's argument as NumPy's array, which is read faster than the simulator's."""
    if isinstance(arg, tuple):
        return type(arg)(*map(_plain, arg)) if hasattr(arg, "_fields") else tuple(map(_plain, arg))
    return arg._ary if isinstance(arg, kernel.FakeCUDAArray) else arg


_entered: dict[int, ExitStack] = {}  # modules whose `cuda` is, for the time of a launch, the simulator's


def _call(self: Any, *args: Any) -> Any:
    context = kernel._get_kernel_context()
    if context is None:
        try:
            return _launch(self, *(_plain(arg) if isinstance(arg, tuple) else arg for arg in args))
        finally:
            while _entered:
                _entered.popitem()[1].close()
    if id(self.fn.__globals__) not in _entered:
        stack = _entered[id(self.fn.__globals__)] = ExitStack()
        stack.enter_context(kernel.swapped_cuda_module(self.fn, context))
    return self.fn(*args)


NUMBERS = {bool, int, float, *np.sctypeDict.values()}


def _number(self: Any, *args: Any) -> Any:
    """uint32(value), without asking at length whether uint32(int64) is meant, a signature."""
    return getattr(np, self.name)(*args) if args and type(args[0]) in NUMBERS else Type.__call__(self, *args)


module: Any = kernelapi.FakeCUDAModule
del module.threadIdx, module.blockIdx  # set with every turn
module.shfl_sync = _shuffle(lambda lane, argument, width: lane // width * width + argument % width)
module.shfl_up_sync = _shuffle(lambda lane, argument, width: lane - argument)
module.shfl_down_sync = _shuffle(lambda lane, argument, width: lane + argument)
module.shfl_xor_sync = _shuffle(lambda lane, argument, width: lane ^ argument)
module.syncwarp = lambda self, mask=0xFFFFFFFF: _exchange(mask, None) and None
module.any_sync = lambda self, mask, value: any(_exchange(mask, bool(value))[1])
module.all_sync = lambda self, mask, value: all(_exchange(mask, bool(value))[1])
module.syncthreads = _syncthreads
kernelapi.FakeCUDAShared.array = _shared_array
kernelapi.FakeCUDALocal.array = _local_array
kernelapi.GridGroup.sync = _grid_sync
kernel.BlockManager = Block
_launch = kernel.FakeCUDAKernel.__call__
kernel.FakeCUDAKernel.__call__ = _call
kernel.FakeWithinKernelCUDAArray = _plain
Integer.__call__ = Float.__call__ = _number
