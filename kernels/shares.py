"""How the threads of a step divide its work: by how fast each of them was in the last steps.

Cores differ, by design or because other programs use them too, and the slowest makes all others wait: with one of two
cores at 0.7 of the other's speed, equal halves take 1.2 times as long. Shares change no bit.
"""

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hotloop.kernels import barrier
from hotloop.kernels.jit import inner, inner_or_python
from hotloop.kernels.simd import pointer

PARTS = 8  # for each thread, into which a step's work is divided: coarse, so that weights seldom change cores
LEAST = 50_000  # cycles of a share that say something of the pace: about 20 us
SLOWEST = 3  # times slower than the mean: no thread gets less than such a one should
_I64 = ir.IntType(64)
_COUNTS = platform.machine().lower() in ("x86_64", "amd64")  # elsewhere programs may not read the cycle counter


@intrinsic
def clock(typing):
    """Cycles since some time; always 0 where programs may not count them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not _COUNTS:
            return _I64(0)
        kind = ir.FunctionType(_I64, [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

    return types.int64(), codegen


@inner
def note(counter, thread, share, since):
    """Remember what the whole work would have cost this thread, whose share took since the clock showed `since`.

    Smoothed over a few steps. counter: int64 array (barrier.APART (threads + 1),), beside the thread's turns.
    """
    begin, end, parts = share
    cycles = clock() - since
    if cycles >= LEAST:
        at = pointer(counter, barrier.APART * (thread + 1))
        whole = cycles * parts // max(1, end - begin)
        before = at[1] if at[1] > 0 else whole
        at[1] = before + (min(whole, 2 * before) - before) // 4  # at most twice: a thread may have been put to sleep


@inner
def of_thread(counter, thread, threads):
    """(begin, end, parts): the thread's share of a step are the parts begin .. end of so many.

    To be called by all threads after one meeting and before another, between which none notes anything.
    """
    parts = PARTS * threads
    if threads == 1:
        return 0, parts, parts
    total, measured = 0.0, True
    for other in range(threads):
        whole = pointer(counter, barrier.APART * (other + 1))[1]
        measured = measured and whole > 0
        total += 1.0 / max(whole, 1)
    if not measured:
        return PARTS * thread, PARTS * (thread + 1), parts
    least, bounded, until, begin, end = total / (SLOWEST * threads), 0.0, 0.0, 0, 0
    for other in range(threads):
        bounded += max(least, 1.0 / pointer(counter, barrier.APART * (other + 1))[1])
    for other in range(thread + 1):
        until += max(least, 1.0 / pointer(counter, barrier.APART * (other + 1))[1])
        begin, end = end, int(parts * until / bounded + 0.5)
    return begin, end, parts


@inner_or_python
def bounds(n, share, unit):
    """(begin, end): this share of n items, in whole units but at the end."""
    begin, end, parts = share
    return min(n, -(-n * begin // (parts * unit)) * unit), min(n, -(-n * end // (parts * unit)) * unit)
