"""Activations on the GPU: the formulas of `hotloop.kernels.activations`, for kernels to call, and kernels over arrays.

`relu(z)`, `tanh(z)`, ... give (f(z), f'(z)) for one z, `activate(code, z)` by a code; `softmax(z, n, a)` is one
thread's work on one row. `apply` and `value_and_slope` launch over arrays on the device, on a stream.
"""

from hotloop.kernels import activations as cpu
from hotloop.kernels.cuda.shim import cuda, device, kernel, launch, shared

THREADS = 64  # of a block; the simulator's limit, and enough for a GPU to have 32 of them on a processor

identity, step, relu, leaky_relu = shared(cpu.identity), shared(cpu.step), shared(cpu.relu), shared(cpu.leaky_relu)
sigmoid, tanh, elu, gelu = shared(cpu.sigmoid), shared(cpu.tanh), shared(cpu.elu), shared(cpu.gelu)
silu, softplus, softmax = shared(cpu.silu), shared(cpu.softplus), shared(cpu.softmax)


@device
def activate(code, z):
    """f(z) and f'(z) by the code of the activation; SOFTMAX counts as the identity."""
    if code == cpu.RELU:
        return relu(z)
    if code == cpu.SIGMOID:
        return sigmoid(z)
    if code == cpu.TANH:
        return tanh(z)
    if code == cpu.STEP:
        return step(z)
    if code == cpu.LEAKY_RELU:
        return leaky_relu(z)
    if code == cpu.ELU:
        return elu(z)
    if code == cpu.GELU:
        return gelu(z)
    if code == cpu.SILU:
        return silu(z)
    if code == cpu.SOFTPLUS:
        return softplus(z)
    return identity(z)


@kernel
def apply_kernel(code, z, n, a):
    """a[i] = f(z[i]), one thread for each i."""
    i = cuda.grid(1)
    if i < n:
        a[i] = activate(code, z[i])[0]


@kernel
def value_and_slope_kernel(code, z, n, a, slope):
    """a[i] = f(z[i]), slope[i] = f'(z[i]), one thread for each i."""
    i = cuda.grid(1)
    if i < n:
        a[i], slope[i] = activate(code, z[i])


@kernel
def softmax_kernel(z, a):
    """a = softmax of each row of z (rows, n), one thread for each row."""
    r = cuda.grid(1)
    if r < z.shape[0]:
        softmax(z[r], z.shape[1], a[r])


def apply(code, z, n, a, stream=0):
    """a[i] = f(z[i]) for i < n; z, a: vectors on the device, a may be z. SOFTMAX is left to `softmax_rows`: a = z."""
    if n > 0:
        launch(apply_kernel, -(-n // THREADS), THREADS, stream)(code, z, n, a)


def value_and_slope(code, z, n, a, slope, stream=0):
    """a[i] = f(z[i]), slope[i] = f'(z[i]) for i < n; vectors on the device, a may be z. SOFTMAX counts as identity."""
    if n > 0:
        launch(value_and_slope_kernel, -(-n // THREADS), THREADS, stream)(code, z, n, a, slope)


def softmax_rows(z, a, stream=0):
    """a[r, j] = exp(z[r, j]) / sum_i exp(z[r, i]); z, a (rows, n) on the device, a may be z."""
    if z.shape[0] > 0:
        launch(softmax_kernel, -(-z.shape[0] // THREADS), THREADS, stream)(z, a)
