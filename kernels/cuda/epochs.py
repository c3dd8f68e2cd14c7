"""Whole pieces of an epoch in one launch on the GPU: per-sample SGD and mini-batch training, and inference.

A step has three parts, with a barrier after each: forward and backward, where every block owns some of the rows and
meets only its own threads; the gradient, where every block owns some of the weights, and loads its share of the next
rows; and, unless plain SGD has moved the weights in the second, the move. The first `wide` layers, whose weights no
block should read alone, are shared by tiles instead, with a barrier after each. One block has barriers of its own
threads (`single`), several meet as a cooperative grid (`grid`): they must all be resident at once.

Arrays are on the device. Losses are stored for each sample, in the dtype of the parameters, and summed by the host.
"""

from functools import cache
from typing import Any, NamedTuple

from hotloop.kernels.activations import SOFTMAX
from hotloop.kernels.cuda import activations, gradient, network, regularize, updates
from hotloop.kernels.cuda.custom import NOTHING, Activation, Own
from hotloop.kernels.cuda.dense import THREADS
from hotloop.kernels.cuda.network import SHARED, U
from hotloop.kernels.cuda.shim import cuda, device, kernel, launch
from hotloop.kernels.plan import ACTIVATION, BIAS, PADDED, STRIDE, VALUE, WEIGHT, WIDTH
from hotloop.kernels.updates import GRADIENT_ONLY, PASSIVE_AGGRESSIVE

BLOCK = 8192  # most rows of a block of samples: a larger batch adds block after block into the gradient buffer


class Rule(NamedTuple):
    """How a gradient moves the parameters, as `hotloop.kernels.updates.Rule`, with the numbers of every step."""

    code: int
    numbers: Any  # (steps of the piece, 8) of the parameters' dtype: see updates.constants
    grad: Any  # (slices n_params,), or (0,) where plain SGD moves the parameters directly
    first: Any  # (n_params,) or (0,)
    second: Any  # (n_params,) or (0,)


class Scratch(NamedTuple):
    """Working memory of one fit."""

    work: Any  # values and slopes, see network
    row_loss: Any  # (n,) of the parameters' dtype, by position
    squares: Any  # sums of the gradient's squares, see regularize.sum_squares; of the parameters' dtype


@device
def _grid_sync():
    cuda.cg.this_grid().sync()


@device
def _block_sync():
    cuda.syncthreads()


@device
def _whole(grad, n, slices, i, weight, is_weight, regular):
    """Element i of the gradient: the sum of its slices, penalised and clipped."""
    g, zero = grad[i], grad.dtype.type(0)
    for s in range(1, slices):
        g += grad[s * n + i]
    if is_weight:
        g = regularize.penalised(g, weight, regular.l1, regular.l2)
    return regularize.clipped(g, regular.clip_value) if regular.clip_value > zero else g


@device
def _make_whole(plan, params, grad, regular, slices, block, blocks):
    """The first slice = the whole gradient."""
    for layer in range(1, plan.shape[0]):
        begin, bias = plan[layer, WEIGHT], plan[layer, BIAS]
        end = bias + plan[layer, PADDED]
        for i in range(begin + block * cuda.blockDim.x + cuda.threadIdx.x, end, blocks * cuda.blockDim.x):
            grad[i] = _whole(grad, params.shape[0], slices, i, params[i], i < bias, regular)


@device
def _move(plan, params, rule, regular, c, slices, factor, block, blocks):
    """Move every parameter by its gradient: with clip_norm by `factor` times the first slice, else by the whole."""
    grad, n, zero = rule.grad, params.shape[0], params.dtype.type(0)
    for layer in range(1, plan.shape[0]):
        begin, bias = plan[layer, WEIGHT], plan[layer, BIAS]
        end = bias + plan[layer, PADDED]
        for i in range(begin + block * cuda.blockDim.x + cuda.threadIdx.x, end, blocks * cuda.blockDim.x):
            p = params[i]
            g = grad[i] * factor if regular.clip_norm > zero else _whole(grad, n, slices, i, p, i < bias, regular)
            a = rule.first[i] if rule.first.shape[0] > 0 else zero
            b = rule.second[i] if rule.second.shape[0] > 0 else zero
            params[i], a, b = updates.move(rule.code, c, p, g, a, b)
            if rule.first.shape[0] > 0:
                rule.first[i] = a
            if rule.second.shape[0] > 0:
                rule.second[i] = b


@cache
def make_mini_batch(alone: bool, noisy: bool, own: Own = NOTHING, tf32: bool = False) -> Any:
    """The kernel of a piece, for one block or a grid, with input noise or without, with functions of the user's own.

    tf32: with products on tensor cores, see `tensor`; those of few rows or units stay in float32.
    """
    sync, load_rows = _block_sync if alone else _grid_sync, network.make_load_rows(noisy)
    forward, output_delta = network.make_forward(own.activations, tf32), network.make_output_delta(own.loss, own.apart)
    backward, accumulate = network.make_backward(tf32), gradient.make_accumulate(tf32)

    @device
    def forward_and_backward(
        plan, params, work, samples, regular, row_loss, position, rows, parity, loss, scale, restrained, wide, panels
    ):
        block, blocks, layers = cuda.blockIdx.x, cuda.gridDim.x, plan.shape[0]
        share = (rows + blocks - 1) // blocks
        begin, end = min(block * share, rows), min((block + 1) * share, rows)
        for layer in range(1, layers):  # called from one place each: these functions are most of the code
            first, last, part, parts = (0, rows, block, blocks) if layer <= wide else (begin, end, 0, 1)
            height, width = forward(
                plan, params, work, layer, first, last, parity, 0, part, parts, panels
            )  # fmt: skip
            if layer < layers - 1 and regularize.drops(regular, layer):
                cuda.syncthreads()
                regularize.drop(plan, work, regular, layer, position, first, last, height, width, part, parts)
            if layer <= wide:
                sync()
            else:
                cuda.syncthreads()
        for r in range(begin + cuda.threadIdx.x, end, cuda.blockDim.x):
            truth = samples.targets, samples.labels, samples.weights
            sample = samples.order[position + r]
            value = output_delta(plan, work, truth, sample, r, loss, scale)
            row_loss[position + r] = value
            if restrained > work.dtype.type(0):
                x = network.values(plan, 0, parity) + r * plan[0, STRIDE]
                regularize.restrain(plan, work, x, r, value, scale, restrained)
        cuda.syncthreads()
        for layer in range(layers - 1, 1, -1):
            first, last, part, parts = (0, rows, block, blocks) if layer <= wide else (begin, end, 0, 1)
            if layer == wide:
                sync()
            backward(plan, params, work, layer, first, last, part, parts, panels)
            if layer < wide:
                sync()
            else:
                cuda.syncthreads()
        sync()

    @kernel
    def mini_batch(net, samples, start, stop, batch_size, loss, rule, regular, scratch, chunk, slices, wide):
        plan, params = net
        work, row_loss, squares = scratch
        panels = cuda.shared.array(SHARED, work.dtype, alignment=16)
        block, blocks = cuda.blockIdx.x, cuda.gridDim.x
        direct = rule.grad.shape[0] == 0
        into = params if direct else rule.grad
        parity, step, zero, one = 0, 0, work.dtype.type(0), work.dtype.type(1)
        load_rows(plan, work, samples, regular, start, min(chunk, batch_size, stop - start), parity, block, blocks)
        sync()
        position = start
        while position < stop:
            rows = min(batch_size, stop - position)
            numbers = rule.numbers[step]
            restrained = numbers[updates.BETA2] if rule.code == PASSIVE_AGGRESSIVE else zero  # its variant
            scale = (-numbers[updates.LR] if direct else one) / work.dtype.type(rows)
            done = 0
            while done < rows:
                some, at = min(chunk, rows - done), position + done
                forward_and_backward(
                    plan, params, work, samples, regular, row_loss, at, some, parity, loss, scale, restrained, wide,
                    panels,
                )  # fmt: skip
                accumulate(plan, into, work, some, parity, U(slices), direct or done > 0, block, blocks, panels)
                done, parity = done + some, 1 - parity
                following = rows - done if done < rows else min(batch_size, stop - at - some)
                load_rows(plan, work, samples, regular, at + some, min(chunk, following), parity, block, blocks)
                sync()
            if not direct and rule.code != GRADIENT_ONLY:
                c = (
                    numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7]
                )  # fmt: skip
                factor = one
                if regular.clip_norm > zero:
                    _make_whole(plan, params, rule.grad, regular, slices, block, blocks)
                    sync()
                    regularize.sum_squares(rule.grad, params.shape[0], squares, panels, block, blocks)
                    sync()
                    factor = regularize.shrink(regularize.total(squares), regular.clip_norm)
                _move(plan, params, rule, regular, c, slices, factor, block, blocks)
                sync()
                if regular.max_norm > zero:
                    regularize.limit_norms(plan, params, regular.max_norm, block, blocks)
                    sync()
            position, step = position + rows, step + 1

    return mini_batch


def mini_batch(
    net: Any,
    samples: Any,
    start: int,
    stop: int,
    batch_size: int,
    loss: int,
    rule: Rule,
    regular: regularize.Regular,
    scratch: Scratch,
    slices: int = 1,
    wide: int = 0,
    blocks: int = 1,
    chunk: int = BLOCK,
    stream: Any = 0,
    own: Own = NOTHING,
    tf32: bool = False,
) -> None:
    """One step per batch of batch_size samples (the last may be smaller), in one launch of `blocks` blocks.

    Each sample's loss, taken before its batch's step, is written to scratch.row_loss. params and the buffers of the
    rule change in place. With an empty rule.grad the step is plain SGD, straight into the weights, with one slice.
    """
    chosen = make_mini_batch(blocks == 1, regular.noise > 0.0, own, tf32)
    launch(chosen, blocks, THREADS, stream)(
        net, samples, start, stop, batch_size, loss, rule, regular, scratch, chunk, slices, wide
    )


def per_sample(
    net: Any,
    samples: Any,
    start: int,
    stop: int,
    loss: int,
    rule: Rule,
    regular: regularize.Regular,
    scratch: Scratch,
    stream: Any = 0,
) -> None:
    """SGD or PASSIVE_AGGRESSIVE, one step per sample: batches of one, in one block."""
    mini_batch(net, samples, start, stop, 1, loss, rule, regular, scratch, stream=stream)


@cache
def make_predict(own: tuple[Activation, ...] = ()) -> Any:
    """The kernel of inference, with activations of the user's own."""
    forward = network.make_forward(own)

    @kernel
    def predict_kernel(net, inputs, begin, end, chunk, work, size, out):
        plan, params = net
        panels = cuda.shared.array(SHARED, work.dtype, alignment=16)
        top, origin = plan.shape[0] - 1, cuda.blockIdx.x * size
        k, stride = plan[top, WIDTH], plan[top, STRIDE]
        for first in range(begin + cuda.blockIdx.x * chunk, end, cuda.gridDim.x * chunk):
            rows = min(chunk, end - first)
            network.load_inputs(plan, work, inputs, first, rows, origin)
            cuda.syncthreads()
            for layer in range(1, plan.shape[0]):
                forward(plan, params, work, layer, 0, rows, 0, origin, 0, 1, panels)
                cuda.syncthreads()
            base = origin + plan[top, VALUE]
            if plan[top, ACTIVATION] == SOFTMAX:
                for r in range(cuda.threadIdx.x, rows, cuda.blockDim.x):
                    row = work[base + r * stride : base + r * stride + k]
                    activations.softmax(row, k, row)
                cuda.syncthreads()
            for i in range(cuda.threadIdx.x, rows * k, cuda.blockDim.x):
                out[first + i // k, i % k] = work[base + i // k * stride + i % k]

    return predict_kernel


def predict(
    net: Any,
    inputs: Any,
    begin: int,
    end: int,
    chunk: int,
    work: Any,
    out: Any,
    blocks: int = 1,
    stream: Any = 0,
    own: Own = NOTHING,
) -> None:
    """out[begin:end] = the network's outputs for these rows of the inputs; out (n, n_outputs).

    work holds, for each of the blocks, `chunk` rows of values and slopes by the plan.
    """
    if begin < end:
        size = work.shape[0] // blocks
        launch(make_predict(own.activations), blocks, THREADS, stream)(net, inputs, begin, end, chunk, work, size, out)
