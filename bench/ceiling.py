"""What one core of this machine can do at most, measured here and now: the yardsticks beside the kernels' rates."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hotloop.machine import vector_bits

CHAINS = 12  # independent multiply-adds in flight: more than latency x units of any core, fewer than its registers
LANES = vector_bits() // 32


@intrinsic
def _chains(typing: Any, start: Any, n: Any) -> Any:
    """n steps of CHAINS vectors v = fma(v, v, v), kept in registers."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.FloatType(), LANES)
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.v{LANES}f32")
        splat = ir.Constant(kind, ir.Undefined)
        for lane in range(LANES):
            splat = builder.insert_element(splat, args[0], ir.IntType(32)(lane))
        vectors = [cgutils.alloca_once_value(builder, splat) for _ in range(CHAINS)]
        with cgutils.for_range(builder, args[1]):
            for vector in vectors:
                value = builder.load(vector)
                builder.store(builder.call(fma, [value, splat, splat]), vector)
        total = builder.load(vectors[0])
        for vector in vectors[1:]:
            total = builder.fadd(total, builder.load(vector))
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(types.float32, types.int64), codegen


@numba.njit(nogil=True)
def _multiply_adds(start, n):  # type: ignore[no-untyped-def]
    return _chains(start, n)


@numba.njit
def _scale(values, factor):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        values[i] *= factor


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@cache
def multiply_add_peak() -> float:
    """GFLOP/s of one core in float32: fused multiply-adds on registers, two operations each."""
    return max(multiply_add_rate(1) for _ in range(7))


def multiply_add_rate(threads: int) -> float:
    """GFLOP/s of so many cores together here and now, over about 50 ms."""
    n = 20_000_000
    _multiply_adds(np.float32(0.5), 1)  # compiles
    with ThreadPoolExecutor(threads) as pool:
        seconds = _seconds(lambda: list(pool.map(_multiply_adds, [np.float32(0.5)] * threads, [n] * threads)))
    return 2e-9 * threads * n * CHAINS * LANES / seconds


@cache
def read_modify_write_peak(n: int) -> float:
    """GB/s of one core that multiplies n float32 in place again and again; each byte counts twice, read and written."""
    return max(read_modify_write_rate(n, 10_000_000) for _ in range(7))


def read_modify_write_rate(n: int, elements: int = 500_000_000) -> float:
    """The same here and now, over so many elements in all: 500 million take about 50 ms."""
    values, passes = np.ones(n, np.float32), max(1, elements // n)
    _scale(values[:1], np.float32(1.0))  # compiles

    def work() -> None:
        for _ in range(passes):
            _scale(values, np.float32(1.0))

    return 2e-9 * values.nbytes * passes / _seconds(work)
