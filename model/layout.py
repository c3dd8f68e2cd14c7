"""Where things lie: parameters in one flat, aligned buffer, values and slopes in one workspace.

A layer's weight is (fan_in, padded): fan_out rounded up to the vector's 16 lanes, the padding zero and staying zero,
so the kernels have no column edge. Weights begin on cache lines.
"""

import weakref
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hotloop.kernels import sparse
from hotloop.kernels.plan import ACTIVATION, BIAS, COLUMNS, HAS_BIAS, PADDED, SLOPE, STRIDE, VALUE, WEIGHT, WIDTH
from hotloop.kernels.simd import LANES

CACHE_LINE, HUGE_PAGE, MANY_PAGES = 64, 2 << 20, 64 << 10  # bytes
MOST_SPARE = 4  # huge pages that are kept although nobody uses them
_spare: list[NDArray[np.uint8]] = []
PAGE_ALIAS = 256  # rows a multiple of this many elements apart fall into the same few cache sets
WINDOW = 16
SPARSE, SPARSE_WIDE = 0.35, 0.05  # of the inputs are not zero: below that, windows of one sample are faster


def aligned(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """Zeros (count,) that begin on a cache line, or on a huge page if they fill many small ones.

    Scattered 4 KB pages fall unevenly into the second-level cache: one mini-batch training took 2.4 to 4.8 us a sample
    from run to run, and 2.6 with huge pages. NumPy asks the system for them from 4 MB on; what is not touched costs no
    memory. What is smaller than one huge page lies in one that is kept for the next: the system has to set all of it to
    zero before anyone may use it, which short fits feel.
    """
    size = count * np.dtype(dtype).itemsize
    if MANY_PAGES <= size < HUGE_PAGE:
        part = _huge_page()[:size]
        part.fill(0)
        return part.view(dtype)
    alignment = HUGE_PAGE if size >= HUGE_PAGE else CACHE_LINE
    raw = np.zeros(size + (2 * HUGE_PAGE if size >= HUGE_PAGE else CACHE_LINE), np.uint8)
    start = -raw.__array_interface__["data"][0] % alignment
    return raw[start : start + size].view(dtype)


def _huge_page() -> NDArray[np.uint8]:
    """A huge page with anything in it; its memory goes back to _spare with the last array that lies in it."""
    try:
        raw = _spare.pop()
    except IndexError:
        raw = np.empty(2 * HUGE_PAGE, np.uint8)
    start = -raw.__array_interface__["data"][0] % HUGE_PAGE
    page = np.frombuffer(raw.data[start : start + HUGE_PAGE], np.uint8)  # what arrays in it refer to
    weakref.finalize(page, _give_back, raw).atexit = False
    return page


def _give_back(raw: NDArray[np.uint8]) -> None:
    if len(_spare) < MOST_SPARE:
        _spare.append(raw)


def padded(width: int) -> int:
    """The width rounded up to whole vectors."""
    return -(-width // LANES) * LANES


def parameter_count(sizes: Sequence[int]) -> int:
    """Elements of the flat buffer, padding included."""
    return sum((fan_in + 1) * padded(fan_out) for fan_in, fan_out in pairwise(sizes))


def make_plan(sizes: Sequence[int], activations: Sequence[int], bias: bool, rows: int) -> tuple[NDArray[np.int64], int]:
    """The plan of `kernels.network` for blocks of `rows` rows, and the elements of the workspace it speaks of."""
    plan = np.zeros((len(sizes), COLUMNS), np.int64)
    parameter = place = 0
    for layer, width in enumerate(sizes):
        line = plan[layer]
        stride = padded(width)
        if rows > 1 and stride % PAGE_ALIAS == 0:
            stride += LANES
        line[WIDTH], line[PADDED], line[STRIDE] = width, padded(width), stride
        line[VALUE], line[SLOPE] = place, place + rows * stride
        place += 2 * rows * stride
        if layer > 0:
            line[WEIGHT] = parameter
            line[BIAS] = parameter + sizes[layer - 1] * padded(width)
            line[HAS_BIAS] = bias
            line[ACTIVATION] = activations[layer - 1]
            parameter += (sizes[layer - 1] + 1) * padded(width)
    return plan, place


def window(plan: NDArray[np.int64], density: float) -> int:
    """Samples of a window of per-sample training, see `epochs.per_sample`: a constant of the algorithm.

    It decides how sums are rounded, so it depends on nothing but the network's shape and the data's density, which are
    the same on every machine and for dense and compressed rows. bench/windows.py, us a sample: windows of 8, 16 and 24,
    784-128-10 2.10, 1.75 and 1.71 on MNIST, 3.6, 3.3 and 3.3 on dense rows. A window spares the weights' way through
    the caches, which is short for few entries: windows of 1 and of 16, 200-10 0.19 and 0.26 at density 0.2; 784-10 0.36
    and 0.86 at 0.2, 0.59 and 0.86 at 0.4; 784-30-10 1.03 and 1.19 at 0.3, 1.39 and 1.20 at 0.4; 784-64-10 1.30 and 1.64
    on MNIST; 784-128-10 0.97 and 1.82 at 0.05, 3.0 and 2.2 at 0.2; 3000-512-10 19 and 31 at 0.05.
    """
    return 1 if density < (SPARSE if plan[1, PADDED] <= sparse.NARROW else SPARSE_WIDE) else WINDOW
