"""Products with dense rows of which many inputs are zero: masks of bits say which are not.

A zero adds nothing to a sum of fused multiply-adds and changes no weight, so the results have the bits of `dense`.
"""

from hotloop.kernels.entries import (
    BIT_ROWS,
    WORD,
    make_bits_buffer,
    nonzero,
    rows_with_bits,
    tile_bits,
    tile_bits_one,
    tile_bits_pair,
)
from hotloop.kernels.jit import apart, inner
from hotloop.kernels.simd import LANES, advance, prefetch_second
from hotloop.kernels.sparse import PAIR, WIDE

GROUP = 1024  # features whose masks are kept at once

_bits = make_bits_buffer(GROUP // LANES * BIT_ROWS)


@inner
def _product_bits(mask, more, x, x_row, x_k, weight, weight_k, columns, out, out_row):
    """out[r, c] += sum_k x[r, k] weight[k, c] over the k in two masks, for two rows; columns a multiple of 16."""
    c = 0
    while c + WIDE <= columns:
        tile_bits(mask, more, x, x_row, x_k, advance(weight, c), weight_k, advance(out, c), out_row)
        c += WIDE
    while c + PAIR <= columns:
        tile_bits_pair(mask, more, x, x_row, x_k, advance(weight, c), weight_k, advance(out, c), out_row)
        c += PAIR
    if c < columns:
        tile_bits_one(mask, more, x, x_row, x_k, advance(weight, c), weight_k, advance(out, c), out_row)


@apart
def forward_zeros(x, x_row, rows, width, weight, weight_row, columns, out, out_row, source, following, source_row):
    """out[r, c] += sum_k x[r, k] weight[k, c] but for zeros that two rows share; columns a multiple of 16.

    x is zero from width up to a multiple of 16. Two words of features at a time, so that their weights stay in the
    nearest caches for all rows (784-128-10, 32 rows: 0.47 us a row, with one 0.53); two rows at a time, an odd last row
    twice: a weight is loaded once for both, and processors foresee half as many ends of loops wrongly.
    """
    for first in range(0, width, 2 * WORD):
        lines, block = min(2 * WORD, width - first), advance(weight, first * weight_row)
        for r in range(0, rows, 2):
            second = min(1, rows - 1 - r)  # rows from the first of the two
            at, into = advance(x, r * x_row + first), advance(out, r * out_row)
            other, mask, more = advance(at, second * x_row), 0, 0
            for line in range(0, lines, LANES):
                found = nonzero(advance(at, line)) | nonzero(advance(other, line))
                if line < WORD:
                    mask |= found << line
                else:
                    more |= found << (line - WORD)
                prefetch_second(advance(source, following[r] * source_row + first + line))
                prefetch_second(advance(source, following[r + second] * source_row + first + line))
            _product_bits(mask, more, at, second * x_row, 1, block, weight_row, columns, into, second * out_row)


@apart
def update_zeros(x, x_row, rows, first, last, delta, delta_row, weight, weight_row, columns):
    """weight[k, c] += sum_r x[r, k] delta[r, c] but for zeros that two features share, for the features first .. last.

    Two features at a time, an odd last one twice: their weights are read and written once for 64 rows of x
    (784-128-10, 128 rows: 0.35 us a row, with masks of 32 rows 0.44; of 128 rows the deltas outgrow the first-level
    cache, and a training is 5 % slower).
    first a multiple of 16, columns too; x is zero from last up to a multiple of 16.
    """
    bits = _bits()
    for group in range(first, last, GROUP):
        stop = min(last, group + GROUP)
        for begin in range(0, rows, BIT_ROWS):
            some, at = min(BIT_ROWS, rows - begin), advance(x, begin * x_row)
            written = 2 * ((1 << (some - 1)) - 1) + 1
            for k in range(group, stop, LANES):
                for r in range(some):
                    bits[(k - group) // LANES * BIT_ROWS + r] = nonzero(advance(at, r * x_row + k))
            back = advance(delta, begin * delta_row)
            for k in range(group, stop, 2):
                second = min(1, stop - 1 - k)
                mask = rows_with_bits(advance(bits, (k - group) // LANES * BIT_ROWS), 3 << (k % LANES)) & written
                into = advance(weight, k * weight_row)
                if mask != 0:
                    _product_bits(
                        mask, 0, advance(at, k), second, x_row, back, delta_row, columns, into, second * weight_row
                    )
