"""Kernels run by Python, thread by thread, with what numba-cuda's simulator lacks or lets pass.

Added: warp shuffles and votes, syncwarp, aligned arrays, several shared arrays on one line. Made strict: shared memory
begins as NaN, not as zeros, and grid-wide barriers of several blocks, which cannot be simulated, are errors.
"""

import os
import sys
import threading
from typing import Any

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    raise RuntimeError(
        "these tests need a process of their own: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/cuda/simulator"
    )

if hasattr(os, "sched_setaffinity"):  # the threads of a block take turns: several cores only hand them to and fro
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
from numba.cuda.simulator import kernel, kernelapi

MOST_THREADS = 64  # of a block: each is a thread of the operating system
PATIENCE = 60  # seconds at a warp's barrier: longer, and its threads have parted
_lock = threading.Lock()


class Warp:
    """The lanes of one warp meet here and see each other's values."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self.values, self.barrier = lanes, [None] * lanes, threading.Barrier(lanes)

    def exchange(self, lane: int, value: Any) -> list[Any]:
        """Every lane's value; all lanes must call."""
        self.values[lane] = value
        self.barrier.wait(PATIENCE)
        seen = list(self.values)
        self.barrier.wait(PATIENCE)
        return seen


def _exchange(mask: int, value: Any) -> tuple[int, list[Any]]:
    thread: Any = threading.current_thread()
    manager, (number, lane) = thread._manager, divmod(thread.thread_id, 32)
    with _lock:
        warps = manager.__dict__.setdefault("warps", {})
        if number not in warps:
            warps[number] = Warp(min(32, int(np.prod(manager._block_dim)) - 32 * number))
    warp = warps[number]
    assert int(mask) & (2**warp.lanes - 1) == 2**warp.lanes - 1, "only whole warps are simulated"
    return lane, warp.exchange(lane, value)


def _shuffle(source: Any) -> Any:
    def shuffle(self: Any, mask: int, value: Any, argument: int, width: int = 32) -> Any:
        lane, values = _exchange(mask, value)
        at = source(lane, int(argument), width)
        return values[at] if 0 <= at < len(values) else value

    return shuffle


def _shared_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
    if isinstance(dtype, kernelapi.types.Type):
        dtype = kernelapi.numpy_support.as_dtype(dtype)
    dtype = np.dtype(dtype)
    caller = sys._getframe(1)
    with _lock:
        if shape == 0:  # the dynamic memory, which all such arrays of a block share
            if "poisoned" not in self.__dict__:
                self.poisoned = np.full(self._dynshared_size // 4, np.nan, np.float32)
            return self.poisoned.view(np.uint8)[: self._dynshared_size // dtype.itemsize * dtype.itemsize].view(dtype)
        place = (caller.f_code.co_filename, caller.f_lineno, caller.f_lasti)
        if place not in self._allocations:
            array = np.empty(shape, dtype)
            array.fill(np.nan if dtype.kind == "f" else np.iinfo(dtype).max)
            self._allocations[place] = array
        return self._allocations[place]


def _local_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
    if isinstance(dtype, kernelapi.types.Type):
        dtype = kernelapi.numpy_support.as_dtype(dtype)
    array = np.empty(shape, dtype)
    array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max)
    return array


def _grid_sync(self: Any) -> None:
    thread: Any = threading.current_thread()
    assert int(np.prod(thread._manager._grid_dim)) == 1, "a barrier of several blocks cannot be simulated"
    thread.syncthreads()


def _run_block(run: Any) -> Any:
    def checked(self: Any, *args: Any) -> None:
        assert int(np.prod(self._block_dim)) <= MOST_THREADS, f"a simulated block has at most {MOST_THREADS} threads"
        run(self, *args)

    return checked


module: Any = kernelapi.FakeCUDAModule
module.shfl_sync = _shuffle(lambda lane, argument, width: lane // width * width + argument % width)
module.shfl_up_sync = _shuffle(lambda lane, argument, width: lane - argument)
module.shfl_down_sync = _shuffle(lambda lane, argument, width: lane + argument)
module.shfl_xor_sync = _shuffle(lambda lane, argument, width: lane ^ argument)
module.syncwarp = lambda self, mask=0xFFFFFFFF: _exchange(mask, None) and None
module.any_sync = lambda self, mask, value: any(_exchange(mask, bool(value))[1])
module.all_sync = lambda self, mask, value: all(_exchange(mask, bool(value))[1])
kernelapi.FakeCUDAShared.array = _shared_array
kernelapi.FakeCUDALocal.array = _local_array
kernelapi.GridGroup.sync = _grid_sync
kernel.BlockManager.run = _run_block(kernel.BlockManager.run)
