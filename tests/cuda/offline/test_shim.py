"""The harness itself: what it must find wrong, it finds."""

from types import SimpleNamespace

import numpy as np
import pytest
from machine_code import check, every_gpu, vector32
from numba import cuda, types

from hotloop.kernels import scalar
from hotloop.kernels.cuda import shim

exp = shim.shared(scalar.exp)


@shim.kernel
def sound(x):
    i = cuda.grid(1)
    if i < x.shape[0]:
        x[i] = exp(shim.fma(x[i], shim.cast(0.5, x[i]), x[i]))


@shim.kernel
def doubled(x):
    i = cuda.grid(1)
    if i < x.shape[0]:
        x[i] = x[i] * 0.1


@shim.kernel
def indexed(x, n):
    room = cuda.local.array(64, types.float32)
    for i in range(n):
        room[(i * 7) & 63] = x[i]
    x[0] = room[n & 63]


@every_gpu
def test_a_sound_kernel(capability):
    check(sound, (vector32,), capability, registers=32)


@every_gpu
@pytest.mark.parametrize(("kernel", "arguments"), [(doubled, (vector32,)), (indexed, (vector32, types.int64))])
def test_float64_and_local_memory_are_found(kernel, arguments, capability):
    with pytest.raises(AssertionError):
        check(kernel, arguments, capability, registers=255)


def test_tf32_needs_a_gpu_that_has_it(monkeypatch):
    def present(capability):
        monkeypatch.setattr(shim.cuda, "get_current_device", lambda: SimpleNamespace(compute_capability=capability))

    present((8, 0))
    shim.require_tf32(np.float32)
    present((7, 5))
    with pytest.raises(RuntimeError, match=r"capability 7\.5, and tf32 needs 8\.0 \(Ampere, 2020\) or newer"):
        shim.require_tf32(np.float32)
