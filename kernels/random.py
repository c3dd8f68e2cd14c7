"""Counter-based random numbers: any draw can be made again from (seed, stream, index), in any order, on any thread.

Philox4x32-10: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
The seed is the key. The counter's upper half names the stream (shuffle of epoch e, weights of layer l, ...).
"""

from functools import partial
from math import sqrt  # not np.sqrt, which numba-cuda lacks

import numpy as np

from hotloop.kernels.jit import inlined, inner, jit
from hotloop.kernels.scalar import log
from hotloop.kernels.simd import make_buffer

SHUFFLE, INIT, DROPOUT, NOISE = 1, 2, 3, 4  # kinds of streams
DRAWS = 256  # of a permutation are made at once

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)

_draws = make_buffer(DRAWS)


@partial(jit, inside=inlined)
def philox(c0, c1, c2, c3, k0, k1):
    """Ten rounds of Philox4x32: four random 32-bit words (as uint64) from a 128-bit counter and a 64-bit key.

    Compiled into loops, which vectorise then (bench/bench_random.py, 784 x 128 uniform weights: 0.23 ms, NumPy's 0.59).
    """
    c0, c1, c2, c3 = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _MASK, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@partial(jit, inside=inlined)
def four(seed, kind, stream, index):
    """Four random 32-bit words (as uint64), number `index` of the stream (kind, stream) of a seed."""
    key, counter = np.uint64(seed), np.uint64(index)
    return philox(
        counter & _MASK, counter >> _SHIFT, np.uint64(stream) & _MASK, np.uint64(kind), key & _MASK, key >> _SHIFT
    )


@partial(jit, inside=inlined)
def words(seed, kind, stream, index):
    """Two random 64-bit words, uint64, number `index` of the stream (kind, stream) of a seed."""
    a, b, c, d = four(seed, kind, stream, index)
    return (a << _SHIFT) | b, (c << _SHIFT) | d


@partial(jit, inside=inlined)
def uniform(seed, kind, stream, index):
    """Two float64 uniform in [0, 1), with 53 random bits each."""
    a, b = words(seed, kind, stream, index)
    unit = 1.0 / 9007199254740992.0
    return float(a >> np.uint64(11)) * unit, float(b >> np.uint64(11)) * unit


@inner
def exchange(out, i, draw):
    """Exchange out[i] with the element at a place drawn from 0 .. i: the high half of draw (i + 1), draw of 32 bits.

    Its bias is below i / 2**32.
    """
    j = np.int64((np.uint64(draw) * np.uint64(i + 1)) >> _SHIFT)
    out[i], out[j] = out[j], out[i]


@jit
def permutation(seed, epoch, out):
    """Fill out (n,) int64 with the order of the samples in an epoch: Fisher and Yates' shuffle of 0..n-1.

    Four draws for each Philox call, and these in loops of their own, which vectorise
    (bench/bench_random.py, 1,797 samples: 4.2 us, NumPy's 26).
    """
    n, draws = out.shape[0], _draws(_MASK)
    for i in range(n):
        out[i] = i
    for first in range(0, n, DRAWS):
        some = min(DRAWS, n - first)
        for block in range(0, some, 4):
            a, b, c, d = four(seed, SHUFFLE, epoch, first + block)
            draws[block], draws[block + 1], draws[block + 2], draws[block + 3] = a, b, c, d
        for k in range(some):
            exchange(out, n - 1 - first - k, draws[k])


@jit
def fill_uniform(seed, stream, limit, out):
    """Fill out (rows, columns) in place with draws uniform in [-limit, limit)."""
    rows, columns = out.shape
    for r in range(rows):
        for c in range(columns):
            u, _ = uniform(seed, INIT, stream, r * columns + c)
            out[r, c] = limit * (2.0 * u - 1.0)


@jit
def normal(seed, kind, stream, index):
    """A float64 normal draw of mean 0 and standard deviation 1.

    Marsaglia's polar method (SIAM Review 6, 1964): only square root and our own logarithm, so the same bits everywhere.
    """
    s, u, attempt = 0.0, 0.0, 0
    while s >= 1.0 or s == 0.0:
        a, b = uniform(seed, kind, stream, index * 64 + attempt)
        u, v = 2.0 * a - 1.0, 2.0 * b - 1.0
        s = u * u + v * v
        attempt += 1
    return u * sqrt(-2.0 * log(s) / s)


@jit
def fill_normal(seed, stream, scale, out):
    """Fill out (rows, columns) in place with normal draws of mean 0 and standard deviation `scale`."""
    rows, columns = out.shape
    for r in range(rows):
        for c in range(columns):
            out[r, c] = scale * normal(seed, INIT, stream, r * columns + c)
