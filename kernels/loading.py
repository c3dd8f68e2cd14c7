"""Brings the samples of an epoch into the first layer, as dense rows or as lists of their entries."""

from hotloop.kernels import sparse
from hotloop.kernels.jit import call, inlined, inner, inner_or_python
from hotloop.kernels.plan import PADDED, STRIDE, VALUE, WIDTH
from hotloop.kernels.simd import LANES, advance, pointer, prefetch_second

ALL, LISTED, ZEROS = range(3)  # the first layer's inputs: every one, those listed, all that are not zero
AHEAD = 8  # samples that are asked for before they are needed


@inner_or_python
def kind(samples, window):
    """What the first layer visits: ALL inputs, those LISTED, or all of dense rows but ZEROS.

    Dense rows are listed for windows of one sample, always; masks of zeros pay for many rows.
    """
    if samples.listed == 0:
        return ALL
    return LISTED if samples.inputs.start.shape[0] > 0 or window == 1 else ZEROS


@inner
def fetch_row(X, sample, width):
    """Begin to bring one dense row into the cache: rows come in random order, and memory takes 100 ns to answer."""
    row = pointer(X, sample * width)
    for j in range(0, width, LANES):
        prefetch_second(advance(row, j))


@inner
def fetch_entries(indices, values, begin, end):
    """Begin to bring the entries of one compressed row into the cache."""
    for k in range(begin, end, LANES):
        prefetch_second(pointer(indices, k))
        prefetch_second(pointer(values, k))


@inner
def fetch_ahead(samples, position):
    """Begin to bring the entries of the sample that comes AHEAD of this position of the order."""
    _, values, indices, starts = samples.inputs
    following = samples.order[min(position + AHEAD, samples.order.shape[0] - 1)]
    fetch_entries(indices, values, starts[following], starts[following + 1])


@inner
def entries_of(plan, samples, lists, position, r, window):
    """(index, value): the entries of the sample at this position, which is the LISTED row r.

    With windows of one sample compressed rows are read where they are: 784-10 0.7 us a sample with a copy, 0.6 without.
    """
    _, values, indices, starts = samples.inputs
    if window == 1 and starts.shape[0] > 0:
        at = starts[samples.order[position]]
        return pointer(indices, at), pointer(values, at)
    at = r * plan[0, STRIDE]
    return pointer(lists.index, at), pointer(lists.value, at)


@inlined
def load_rows(plan, work, lists, samples, inputs, position, begin, end):
    """Bring the samples at position + begin .. position + end of the order into the input rows begin .. end.

    inputs: see `kind`; rows that are LISTED go to the lists.
    """
    X, entry_values, entry_indices, entry_starts = samples.inputs
    order = samples.order
    indices, values, marks = lists
    width, stride, base = plan[0, WIDTH], plan[0, STRIDE], plan[0, VALUE]
    blocks, size = sparse.blocks_of(width, plan[1, PADDED]), sparse.span(width, plan[1, PADDED])
    for r in range(begin, end):
        sample = order[position + r]
        row = pointer(work, base + r * stride)
        index, value, ends = pointer(indices, r * stride), pointer(values, r * stride), pointer(marks, r * (blocks + 1))
        if entry_starts.shape[0] > 0:
            at, count = entry_starts[sample], entry_starts[sample + 1] - entry_starts[sample]
            entries = pointer(entry_indices, at), pointer(entry_values, at)
            fetch_ahead(samples, position + r)
            if inputs == LISTED:
                call(samples.parts.load, (entries[0], entries[1], count, width, size, index, value, ends))
            else:
                sparse.fill_out(entries[0], entries[1], count, width, row)
        else:
            source = pointer(X, sample * width)
            if inputs != ZEROS:  # which zeros.forward_zeros asks for
                fetch_row(X, order[min(position + r + AHEAD, order.shape[0] - 1)], width)
            if inputs == LISTED:
                call(samples.parts.load, (source, width, size, index, value, ends))
            else:
                for j in range(width):
                    row[j] = source[j]
