"""Random numbers on the GPU: the same words, orders and initial weights as `hotloop.kernels.random`, bit for bit.

`philox`, `words` and `uniform` are for kernels to call; the others launch over arrays on the device, on a stream.
"""

from hotloop.kernels import random as cpu
from hotloop.kernels.cuda.shim import cuda, device, kernel, launch, shared

THREADS = 32  # one warp: orders are few and long, and spread over all processors

philox, words, uniform, normal = shared(cpu.philox), shared(cpu.words), shared(cpu.uniform), shared(cpu.normal)
_four, _exchange = shared(cpu.four), shared(cpu.exchange)


@device
def _permutation(seed, epoch, out):
    """Fill out (n,) with the order of the samples in an epoch."""
    n = out.shape[0]
    for i in range(n):
        out[i] = i
    for block in range(0, n, 4):
        a, b, c, d = _four(seed, cpu.SHUFFLE, epoch, block)
        for lane in range(min(4, n - block)):
            _exchange(out, n - 1 - block - lane, (a if lane < 1 else b) if lane < 2 else (c if lane < 3 else d))


@kernel
def permutations_kernel(seeds, epoch, out):
    """out[m, e] = the order of epoch `epoch` + e by seed m: one thread for each, as each swap needs the last."""
    i = cuda.grid(1)
    models, epochs = out.shape[0], out.shape[1]
    if i < models * epochs:
        m, e = i // epochs, i % epochs
        _permutation(seeds[m], epoch + e, out[m, e])


def permutations(seeds, epoch, out, stream=0):
    """Fill out (n_seeds, n_epochs, n), of any integer type, with each seed's orders of the epochs from `epoch` on."""
    orders = out.shape[0] * out.shape[1]
    if orders > 0:
        launch(permutations_kernel, -(-orders // THREADS), THREADS, stream)(seeds, epoch, out)


@kernel
def fill_uniform_kernel(seed, stream_number, limit, out):
    """One thread for each element."""
    i = cuda.grid(1)
    columns = out.shape[1]
    if i < out.shape[0] * columns:
        out[i // columns, i % columns] = limit * (2.0 * uniform(seed, cpu.INIT, stream_number, i)[0] - 1.0)


@kernel
def fill_normal_kernel(seed, stream_number, scale, out):
    """One thread for each element."""
    i = cuda.grid(1)
    columns = out.shape[1]
    if i < out.shape[0] * columns:
        out[i // columns, i % columns] = scale * normal(seed, cpu.INIT, stream_number, i)


def fill_uniform(seed, stream_number, limit, out, stream=0):
    """Fill out (rows, columns) in place with draws uniform in [-limit, limit)."""
    if out.size > 0:
        launch(fill_uniform_kernel, -(-out.size // THREADS), THREADS, stream)(seed, stream_number, float(limit), out)


def fill_normal(seed, stream_number, scale, out, stream=0):
    """Fill out (rows, columns) in place with normal draws of mean 0 and standard deviation `scale`."""
    if out.size > 0:
        launch(fill_normal_kernel, -(-out.size // THREADS), THREADS, stream)(seed, stream_number, float(scale), out)
