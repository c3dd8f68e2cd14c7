"""The kernel of many small models: each is trained by one block of threads, all of its epochs in one launch."""

from functools import cache
from typing import Any, NamedTuple

from numba import float32
from numba import uint32 as U  # noqa: N812 - in every index

from hotloop.kernels.cuda import block, updates
from hotloop.kernels.cuda.custom import NOTHING, Own
from hotloop.kernels.cuda.regularize import two_sum
from hotloop.kernels.cuda.shim import cuda, kernel

MOST_THREADS = 256  # of a block

# What a launch says of each model.
FIRST, LAYERS, LOSS, SIZE, ROOM, DROPPED, INPUTS_DROPPED, MODEL_FIELDS = range(8)


class Models(NamedTuple):
    """Who trains what, on the device."""

    lines: Any  # (n_lines, block.FIELDS) uint32
    table: Any  # (n_models, MODEL_FIELDS) uint32: first line, layers, loss code, elements of p (one copy), rows of w,
    #             and the shares, of HALVES, of hidden units and of inputs dropped
    seed: Any  # (n_models,) int64
    bounds: Any  # (n_models, 5) float32: l1, l2, clip_value, clip_norm, max_norm, 0 for none
    noise: Any  # (n_models,) float64: the deviation of input noise
    chosen: Any  # (n_blocks,) int32: the model of each block
    start: Any  # (n_models,) int64: where its parameters begin
    params: Any  # (n_params,) float32
    first: Any  # (n_params,) what the rule remembers; (0,) where it has none
    second: Any


class Data(NamedTuple):
    """The samples, and each model's order of them."""

    X: Any  # (n, n_features) float32
    targets: Any  # (n, n_outputs) float32, or (1, 1)
    labels: Any  # (n,) int32, or (0,)
    orders: Any  # (n_models, epochs of this launch, n) int32; (1, ...) where models share them, (1, 1, n) epochs too


class Course(NamedTuple):
    """The rule and its numbers."""

    rates: Any  # (n_models, n_epochs, 4) float32: lr, -lr / batch_size, -lr / rows of the last batch, 1 - lr decay
    corrections: Any  # (n_steps, 2) float32: the factor of lr, and ROOT; (1, 2) where they stay
    numbers: Any  # (beta1, 1 - beta1, beta2, 1 - beta2, eps) float32
    rule: int  # a code of `updates`
    batch_size: int
    direct: int  # 1: plain SGD, straight into the weights
    begin: int  # the epochs of this launch
    end: int
    before: int  # epochs done before the first


@cache
def make_train(
    rows_each: int,
    params_shared: bool,
    work_shared: bool,
    drops: bool,
    bounded: bool = False,
    noisy: bool = False,
    own: Own = NOTHING,
) -> Any:
    """The kernel for batches (4 rows a thread) or few rows (1), with parameters and rows in shared memory or not.

    drops, bounded, noisy: whether some models drop units, have penalties or bounds, add noise to their inputs (whose
    draws are of float64). own: functions of the user's own.

    Its registers are not bounded: 96 to 136, of which bounds that let one more block onto a multiprocessor spilt some.
    """
    backward, accumulate = block.make_block(rows_each)
    forward, output_delta = block.make_forward(rows_each, own.numbered), block.make_output_delta(own.loss)

    @kernel
    def train(models, data, course, room_p, room_w, sums):
        """Train the model of each block; sums (n_models, n_epochs): the mean loss of each epoch.

        room_p, room_w: memory of each block, (n_blocks, ...), where it is not shared; (1, 1) where it is.
        """
        lines, table = models.lines, models.table
        X, targets, labels, orders = data
        fast = cuda.shared.array(0, float32)
        m = models.chosen[cuda.blockIdx.x]
        first, layers, loss, size = table[m, FIRST], table[m, LAYERS], table[m, LOSS], table[m, SIZE]
        top, start = U(first + layers), models.start[m]
        thread, threads = U(cuda.threadIdx.x), U(cuda.blockDim.x)
        grad, state_1 = size, U(size * U(2 - course.direct))
        state_2 = U(state_1 + (size if models.first.shape[0] > 0 else U(0)))
        end = U(state_2 + (size if models.second.shape[0] > 0 else U(0)))
        p = fast if params_shared else room_p[cuda.blockIdx.x]
        w = (fast[end:] if params_shared else fast) if work_shared else room_w[cuda.blockIdx.x]
        block.move_params(lines, first, layers, p, models.params, start, True)
        if course.direct == 0:
            for i in range(thread, size, threads):
                p[grad + U(i)] = float32(0)
        if models.first.shape[0] > 0:
            block.move_params(lines, first, layers, p[state_1:], models.first, start, True)
        if models.second.shape[0] > 0:
            block.move_params(lines, first, layers, p[state_2:], models.second, start, True)
        n, step = U(X.shape[0]), U(0)
        for passed in range(course.end - course.begin):
            epoch = course.begin + passed
            order = orders[m if orders.shape[0] > 1 else 0, passed if orders.shape[1] > 1 else 0]
            rates = course.rates[m, epoch]
            total, rest = float32(0), float32(0)
            position = U(0)
            while position < n:
                batch = U(min(U(course.batch_size), n - position))
                into, scale = U(0), rates[1] if batch == U(course.batch_size) else rates[2]
                if course.direct == 0:
                    into, scale = grad, float32(1) / float32(batch)
                begin = U(0)
                while begin < batch:
                    rows = U(min(table[m, ROOM], batch - begin))
                    count = U((rows + U(rows_each - 1)) // U(rows_each) * U(rows_each))
                    samples = order[position + begin :]
                    block.load_rows(lines, first, w, X, samples, rows, count)
                    cuda.syncthreads()
                    if noisy:
                        at = position + begin
                        block.add_noise(
                            lines, first, w, rows, models.noise[m], models.seed[m], course.before + epoch, at
                        )
                        cuda.syncthreads()
                    for layer in range(first + U(1), top + U(1)):
                        if drops:
                            below = U(layer) - U(1)
                            share = table[m, INPUTS_DROPPED if below == first else DROPPED]
                            if share > U(0):
                                at = position + begin
                                block.drop(
                                    lines, first, layers, below, w, rows, share, models.seed[m], course.before + epoch,
                                    at,
                                )  # fmt: skip
                                cuda.syncthreads()
                        forward(lines, U(layer), p, w, count)
                        cuda.syncthreads()
                    r = thread
                    while r < count:
                        sample = samples[min(r, rows - U(1))]
                        target = targets[sample if targets.shape[0] > 1 else 0]
                        label = labels[sample] if labels.shape[0] > 0 else 0
                        value = output_delta(lines, top, w, r, rows, loss, target, label, scale)
                        total, rest = two_sum(total, rest, value)
                        r = U(r + threads)
                    cuda.syncthreads()
                    for back in range(layers - U(1)):
                        backward(lines, U(top - U(back)), p, w, count)
                        cuda.syncthreads()
                    accumulate(lines, first, layers, p, into, w, count)
                    cuda.syncthreads()
                    begin = U(begin + rows)
                if course.direct == 0:
                    at = min(step, U(course.corrections.shape[0] - 1))
                    beta1, rest1, beta2, rest2, eps = course.numbers
                    rate, root = rates[0] * course.corrections[at, 0], course.corrections[at, 1]
                    c = rate, rates[3], beta1, rest1, beta2, rest2, eps, root
                    factor = float32(1)
                    if bounded:
                        factor = block.bound_gradient(lines, first, layers, p, grad, w, models.bounds[m])
                    i = thread
                    while i < size:
                        a = p[state_1 + i] if models.first.shape[0] > 0 else float32(0)
                        b = p[state_2 + i] if models.second.shape[0] > 0 else float32(0)
                        p[i], a, b = updates.move(course.rule, c, p[i], factor * p[grad + i], a, b)
                        p[grad + i] = float32(0)
                        if models.first.shape[0] > 0:
                            p[state_1 + i] = a
                        if models.second.shape[0] > 0:
                            p[state_2 + i] = b
                        i = U(i + threads)
                    cuda.syncthreads()
                    if bounded and models.bounds[m, 4] > float32(0):
                        block.limit_norms(lines, first, layers, p, models.bounds[m, 4])
                step, position = U(step + U(1)), U(position + batch)
            w[U(2) * thread], w[U(2) * thread + U(1)] = total, rest
            cuda.syncthreads()
            if thread == 0:
                for t in range(U(1), min(threads, table[m, ROOM])):
                    total, rest = two_sum(total, rest, w[U(2) * t])
                    rest += w[U(2) * t + U(1)]
                sums[m, epoch] = (total + rest) / float32(n)
            cuda.syncthreads()
        block.move_params(lines, first, layers, p, models.params, start, False)
        if models.first.shape[0] > 0:
            block.move_params(lines, first, layers, p[state_1:], models.first, start, False)
        if models.second.shape[0] > 0:
            block.move_params(lines, first, layers, p[state_2:], models.second, start, False)

    return train
