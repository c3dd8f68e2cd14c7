"""Predictions from a network's outputs on the GPU, one thread for each row or element."""

from typing import Any

from hotloop.kernels import scalar
from hotloop.kernels.cuda.shim import cuda, kernel, launch, shared

ARGMAX, THRESHOLD, SIGN, EXP = range(4)
CODES = {"argmax": ARGMAX, "threshold": THRESHOLD, "sign": SIGN, "exp": EXP}
THREADS = 64

_exp = shared(scalar.exp)


@kernel
def argmax_kernel(outputs, out):
    """out[r] = the index of the largest output of row r, the first of equals."""
    r = cuda.grid(1)
    if r < outputs.shape[0]:
        best = 0
        for j in range(1, outputs.shape[1]):
            if outputs[r, j] > outputs[r, best]:
                best = j
        out[r] = best


@kernel
def sign_kernel(negative, outputs, out):
    """out[i] = 1 where outputs[i] > 0, else `negative`."""
    i = cuda.grid(1)
    if i < outputs.shape[0]:
        out[i] = 1 if outputs[i] > outputs.dtype.type(0) else negative


@kernel
def exp_kernel(outputs, out):
    """out[i] = exp(outputs[i])."""
    i = cuda.grid(1)
    if i < outputs.shape[0]:
        out[i] = _exp(outputs[i])


def decide(code: int, outputs: Any, out: Any, stream: Any = 0) -> None:
    """out = what the outputs (n, k) decide: ARGMAX (n,), THRESHOLD 0 or 1, SIGN -1 or 1, EXP of each, (n k,)."""
    if code == ARGMAX:
        launch(argmax_kernel, -(-out.shape[0] // THREADS), THREADS, stream)(outputs, out)
        return
    flat, blocks = outputs.reshape(outputs.size), -(-out.shape[0] // THREADS)
    if code == EXP:
        launch(exp_kernel, blocks, THREADS, stream)(flat, out)
    else:
        launch(sign_kernel, blocks, THREADS, stream)(0 if code == THRESHOLD else -1, flat, out)
