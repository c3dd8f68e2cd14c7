"""Dense layers on the GPU: forward, gradients and the fused update, for one row and for many.

The same names and arguments as `hotloop.kernels.dense`, with arrays on the device (anything that has
__cuda_array_interface__), C-contiguous, all of one dtype, and a stream to run on; results stay on the device. An
element is one ascending chain of fused multiply-adds, as on the CPU, where it comes from the tiled product (eight rows
or more); with fewer rows a sum is divided into slices. Nothing is checked here.

tf32=True has the tiled products of float32 on tensor cores (compute capability 8.0 or newer, else a RuntimeError):
operands are rounded to 10 bits behind the leading one, see `hotloop.kernels.cuda.tensor`. Fewer than eight rows of
`forward` stay in float32.
"""

from functools import cache
from typing import Any

from numba import uint32

from hotloop.kernels import activations as codes
from hotloop.kernels.cuda import strips
from hotloop.kernels.cuda.activations import activate, softmax_rows
from hotloop.kernels.cuda.epilogues import make_finish
from hotloop.kernels.cuda.shim import SIMULATOR, cuda, kernel, launch, require_tf32
from hotloop.kernels.cuda.tiles import make_tile

U = uint32
SIDE = 8 if SIMULATOR else 16  # a block has SIDE x SIDE threads
THREADS = SIDE * SIDE
FEW = 8  # rows below which a strip is faster than a tile
STRIP = 16 if SIMULATOR else 32  # columns of a strip
SHARED = THREADS * strips.AREA


@cache
def _processors() -> int:
    """Multiprocessors of the current device."""
    return 1 if SIMULATOR else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


def flat(array: Any) -> Any:
    """All elements of a contiguous array on the device, in one dimension."""
    view = array if SIMULATOR or hasattr(array, "copy_to_host") else cuda.as_cuda_array(array)
    return view.reshape(view.size)


def is_wide(*operands: Any) -> bool:
    """Whether the rows of these arrays all begin on 16 bytes."""
    starts = [0 if SIMULATOR else array.__cuda_array_interface__["data"][0] for array in operands]
    return all(array.shape[-1] % 4 == 0 and at % 16 == 0 for array, at in zip(operands, starts, strict=True))


def _run(kernel: Any, blocks: int, stream: Any, *args: Any) -> None:
    """Launch a kernel on this many blocks, and no launch for none."""
    if blocks > 0:
        launch(kernel, blocks, THREADS, stream)(*args)


def tiles(rows: int, columns: int, each: int) -> int:
    """Tiles of a matrix."""
    return -(-rows // (SIDE * each)) * -(-columns // (SIDE * each))


def choose_each(rows: int, columns: int, array: Any, tf32: bool) -> int:
    """The side of the largest thread tile that leaves a block for every multiprocessor."""
    if tf32:
        require_tf32(flat(array).dtype)
    sides = (8, 4) if not tf32 or SIDE >= 16 else (4,)  # a panel has 4 SIDE / side k, and an instruction eight
    return next((each for each in sides if tiles(rows, columns, each) >= _processors()), 2)


@cache
def forward_kernel(each: int, wide: bool, tf32: bool = False) -> Any:
    """out = f(x @ weight + bias), one block for each tile."""
    tile = make_tile(SIDE, each, True, False, wide, tf32)
    size, shared_size, area, accumulate, start = tile[:5]
    finish = make_finish(tile, each)

    @kernel
    def forward(x, weight, bias, activation, out, rows, depth, columns):
        acc = cuda.local.array(area, x.dtype)
        panels = cuda.shared.array(shared_size, x.dtype, alignment=16)
        across = (columns + U(size - 1)) // U(size)
        corner = U(cuda.blockIdx.x) // across * U(size), U(cuda.blockIdx.x) % across * U(size)
        bounds = rows, columns, U(0), depth
        start(bounds, corner, bias, 0, acc)
        accumulate(x, 0, depth, weight, 0, columns, bounds, corner, panels, acc)
        finish(bounds, corner, activation, acc, out, 0, columns)

    return forward


@cache
def forward_strip_kernel(wide: bool) -> Any:
    """out = f(x @ weight + bias), one block for each strip of a few rows."""
    strip = strips.make_strip(wide)

    @kernel
    def forward_strip(x, weight, bias, activation, out, rows, depth, columns):
        panels = cuda.shared.array(SHARED, x.dtype, alignment=16)
        across = (columns + U(STRIP - 1)) // U(STRIP)
        corner = U(cuda.blockIdx.x) // across * U(strips.GROUP), U(cuda.blockIdx.x) % across * U(STRIP)
        strip(x, 0, depth, weight, 0, columns, (rows, columns, depth), corner, U(STRIP), panels)
        for e in range(cuda.threadIdx.x, strips.GROUP * STRIP, cuda.blockDim.x):
            r, c = corner[0] + U(e) // U(STRIP), corner[1] + U(e) % U(STRIP)
            if r < rows and c < columns:
                out[r * columns + c] = activate(activation, strips.strip_total(bias[c], U(e), U(STRIP), panels))[0]

    return forward_strip


@cache
def input_gradient_kernel(each: int, wide: bool, tf32: bool = False) -> Any:
    """out = delta @ weight.T, one block for each tile."""
    tile = make_tile(SIDE, each, True, True, wide, tf32)
    size, shared_size, area, accumulate, store = tile.size, tile.shared, tile.area, tile.accumulate, tile.store

    @kernel
    def input_gradient(delta, weight, out, rows, depth, columns):
        acc = cuda.local.array(area, delta.dtype)
        panels = cuda.shared.array(shared_size, delta.dtype, alignment=16)
        across = (columns + U(size - 1)) // U(size)
        corner = U(cuda.blockIdx.x) // across * U(size), U(cuda.blockIdx.x) % across * U(size)
        bounds = rows, columns, U(0), depth
        for i in range(area):
            acc[i] = delta.dtype.type(0)
        accumulate(delta, 0, depth, weight, 0, depth, bounds, corner, panels, acc)
        store(bounds, corner, acc, out, 0, columns)

    return input_gradient


@cache
def update_kernel(each: int, wide: bool, fresh: bool, tf32: bool = False) -> Any:
    """weight (fresh: =, else +=) x.T @ delta, one block for each tile, and the bias, one thread for each column."""
    tile = make_tile(SIDE, each, False, False, wide, tf32)
    size, shared_size, area = tile.size, tile.shared, tile.area
    accumulate, start, store = tile.accumulate, tile.start, tile.store

    @kernel
    def update(x, delta, weight, bias, depth, rows, columns):
        acc = cuda.local.array(area, x.dtype)
        panels = cuda.shared.array(shared_size, x.dtype, alignment=16)
        across = (columns + U(size - 1)) // U(size)
        corner = U(cuda.blockIdx.x) // across * U(size), U(cuda.blockIdx.x) % across * U(size)
        bounds = rows, columns, U(0), depth
        if fresh:
            for i in range(area):
                acc[i] = x.dtype.type(0)
        else:
            start(bounds, corner, weight, 0, columns, acc)
        accumulate(x, 0, rows, delta, 0, columns, bounds, corner, panels, acc)
        store(bounds, corner, acc, weight, 0, columns)
        c = corner[1] + U(cuda.threadIdx.x)
        if corner[0] == U(0) and U(cuda.threadIdx.x) < U(size) and c < columns:
            total = x.dtype.type(0) if fresh else bias[c]
            for r in range(depth):
                total += delta[U(r) * columns + c]
            bias[c] = total

    return update


def forward(x: Any, weight: Any, bias: Any, activation: int, out: Any, stream: Any = 0, tf32: bool = False) -> None:
    """out = f(x @ weight + bias) for x (n, fan_in); writes out (n, fan_out)."""
    (rows, depth), columns = x.shape, weight.shape[1]
    if rows < FEW:
        chosen, blocks = forward_strip_kernel(is_wide(x)), -(-rows // strips.GROUP) * -(-columns // STRIP)
    else:
        each = choose_each(rows, columns, x, tf32)
        chosen, blocks = forward_kernel(each, is_wide(x, weight, bias, out), tf32), tiles(rows, columns, each)
    arrays = flat(x), flat(weight), flat(bias), activation, flat(out)
    _run(chosen, blocks, stream, *arrays, U(rows), U(depth), U(columns))
    if activation == codes.SOFTMAX:
        z = flat(out).reshape(rows, columns)
        softmax_rows(z, z, stream)


def forward_row(x: Any, weight: Any, bias: Any, activation: int, out: Any, stream: Any = 0) -> None:
    """out = f(x @ weight + bias) for one row x (fan_in,); writes out (fan_out,)."""
    fan_in, fan_out = weight.shape
    forward(flat(x).reshape(1, fan_in), weight, bias, activation, flat(out).reshape(1, fan_out), stream)


def input_gradient(delta: Any, weight: Any, out: Any, stream: Any = 0, tf32: bool = False) -> None:
    """out = delta @ weight.T for delta (n, fan_out); writes out (n, fan_in)."""
    (rows, depth), columns = delta.shape, weight.shape[0]
    each = choose_each(rows, columns, delta, tf32)
    chosen = input_gradient_kernel(each, is_wide(delta, weight, out), tf32)
    arrays = flat(delta), flat(weight), flat(out)
    _run(chosen, tiles(rows, columns, each), stream, *arrays, U(rows), U(depth), U(columns))


def input_gradient_row(delta: Any, weight: Any, out: Any, stream: Any = 0) -> None:
    """out = delta @ weight.T for one row delta (fan_out,); writes out (fan_in,)."""
    fan_in, fan_out = weight.shape
    input_gradient(flat(delta).reshape(1, fan_out), weight, flat(out).reshape(1, fan_in), stream)


def _update(x: Any, delta: Any, weight: Any, bias: Any, fresh: bool, stream: Any, tf32: bool) -> None:
    (depth, rows), columns = x.shape, delta.shape[1]
    each = choose_each(rows, columns, x, tf32)
    chosen = update_kernel(each, is_wide(x, delta, weight), fresh, tf32)
    arrays = flat(x), flat(delta), flat(weight), flat(bias)
    _run(chosen, tiles(rows, columns, each), stream, *arrays, U(depth), U(rows), U(columns))


def update(x: Any, delta: Any, weight: Any, bias: Any, stream: Any = 0, tf32: bool = False) -> None:
    """weight += x.T @ delta, bias += the column sums of delta, in place: an SGD step if delta holds -lr/n dloss/dz."""
    _update(x, delta, weight, bias, False, stream, tf32)


def update_row(x: Any, delta: Any, weight: Any, bias: Any, stream: Any = 0) -> None:
    """weight += outer(x, delta) and bias += delta for one row x (fan_in,), delta (fan_out,), in place."""
    fan_in, fan_out = weight.shape
    update(flat(x).reshape(1, fan_in), flat(delta).reshape(1, fan_out), weight, bias, stream)


def weight_gradient(x: Any, delta: Any, dweight: Any, dbias: Any, stream: Any = 0, tf32: bool = False) -> None:
    """dweight = x.T @ delta, dbias = the column sums of delta; writes dweight (fan_in, fan_out), dbias (fan_out,)."""
    _update(x, delta, dweight, dbias, True, stream, tf32)


def weight_gradient_row(x: Any, delta: Any, dweight: Any, dbias: Any, stream: Any = 0) -> None:
    """dweight = outer(x, delta) and dbias = delta for one row; writes dweight (fan_in, fan_out), dbias (fan_out,)."""
    fan_in, fan_out = dweight.shape
    weight_gradient(flat(x).reshape(1, fan_in), flat(delta).reshape(1, fan_out), dweight, dbias, stream)
