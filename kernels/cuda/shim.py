"""The only file that knows which compiler turns Python into GPU code, and what its decorators are told.

Options and why:
  no fastmath      it flushes subnormals, approximates divisions and assumes away NaN: the formulas would part from the
                   CPU's. What they share: the order of every sum, and fused multiply-adds where the formula says so.
  no signature     with one, numba-cuda compiles on import, which needs a driver.
  forceinline      a device function that stays a call passes its results through local memory.
  no cache=True    numba-cuda's watches only the file of the kernel: see `cache` for what keeps its machine code.

With NUMBA_ENABLE_CUDASIM=1 Python runs the kernels, thread by thread, without a GPU: slow, for tests.
"""

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np

if find_spec("numba_cuda") is None:
    raise ImportError("hotloop.kernels.cuda needs the package numba-cuda. Install it with: pip install 'hotloop[cuda]'")

from numba import cuda as cuda  # numba-cuda's, which takes this name over
from numba.core import config

from hotloop.kernels import simd
from hotloop.kernels.jit import jit

if "numba_cuda" not in str(cuda.__file__):
    raise ImportError(
        "numba-cuda is installed, but `numba.cuda` is not numba-cuda's: Python has not read its .pth file (it reads "
        "none in a PYTHONPATH or a pip --target). Install it into the environment: pip install 'hotloop[cuda]'"
    )

SIMULATOR = bool(config.ENABLE_CUDASIM)
MOST_INT = 2**63 - 1
OLDEST = (7, 5)  # compute capability; CUDA 13 compiles for nothing older
OLDEST_TF32 = (8, 0)

if not SIMULATOR:
    from hotloop.kernels.cuda.cache import keep

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> Any:
    """Compile a function that is launched: kernel[blocks, threads, stream, shared_bytes](...), better by `launch`."""
    return cuda.jit(function) if SIMULATOR else keep(cuda.jit(function))


def device(function: F) -> Any:
    """Compile a function that kernels call, into them."""
    return cuda.jit(device=True)(function) if SIMULATOR else cuda.jit(device=True, forceinline=True)(function)


def _plain(value: Any) -> Any:
    """The NumPy array behind a simulated one."""
    while not isinstance(value, np.ndarray) and hasattr(value, "__dict__"):
        value = value.__dict__.get("_item", value.__dict__.get("_ary", value))
    return value


def _run_on_the_cpu(function: Any) -> Callable[..., Any]:
    """The simulator runs a shared formula as its code for the CPU, which gives float32 and uint64 back as Python's.

    Every integer comes to it as an int64: each combination of other types would be compiled anew.
    """
    callable_already = not getattr(function, "targetoptions", {"no_cpython_wrapper": True}).get("no_cpython_wrapper")
    compiled: Any = function if callable_already else jit(getattr(function, "py_func", function))

    def call(*args: Any) -> Any:
        args = tuple(int(arg) if isinstance(arg, np.integer) and arg <= MOST_INT else _plain(arg) for arg in args)
        kinds = [arg.dtype.type for arg in args if isinstance(arg, np.ndarray | np.generic) and arg.dtype.kind == "f"]

        def typed(value: Any) -> Any:
            if isinstance(value, float):
                return kinds[0](value) if kinds else value
            return np.uint64(value) if isinstance(value, int) and value > MOST_INT else value

        result = compiled(*args)
        return tuple(typed(value) for value in result) if isinstance(result, tuple) else typed(result)

    return call


def shared(function: F) -> Any:
    """A function of the CPU's kernels that says the same on the GPU: a formula, or a loop over one row."""
    return _run_on_the_cpu(function) if SIMULATOR else device(getattr(function, "py_func", function))


if SIMULATOR:

    def cast(value, like):
        """`value` in the type of `like`."""
        return type(like)(value)

    @jit
    def _fma(a, b, c):
        return simd.fma(a, b, c)

    def fma(a, b, c):
        """As `shared` would make it, a third of the time: nine of ten calls of the CPU's code are for it."""
        return type(a)(_fma(a, b, c))
else:
    cast, fma = simd.cast, simd.fma


def launch(kernel: Any, blocks: Any, threads: Any, stream: Any = 0, shared_bytes: int = 0) -> Callable[..., None]:
    """The kernel for this grid, to be called with its arguments. Few blocks are meant, and not warned of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grid size .* low occupancy")
        configured = kernel[blocks, threads, stream, shared_bytes]

    def start(*args: Any) -> None:
        if shared_bytes > DEFAULT_SHARED and not SIMULATOR:
            _allow_shared(kernel, args, shared_bytes)
        configured(*args)

    return start


DEFAULT_SHARED = 48 * 1024  # bytes of shared memory that a block may use without having asked


def _allow_shared(kernel: Any, args: tuple[Any, ...], size: int) -> None:
    """Ask for more than 48 KB of shared memory, which numba-cuda does not do by itself."""
    from cuda.bindings import driver

    compiled = kernel.compile(tuple(kernel.typeof_pyval(arg) for arg in args))
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    handle = compiled._codelibrary.get_cufunc().handle
    (error,) = driver.cuFuncSetAttribute(driver.CUfunction(int(handle)), attribute, size)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"a block of this GPU cannot have {size} bytes of shared memory ({error})")


_first_process: int | None = None


def require_device() -> None:
    """Raise a RuntimeError with a remedy where nothing can be launched: no driver, too old a GPU, a forked process."""
    global _first_process
    if SIMULATOR:
        return
    if _first_process not in (None, os.getpid()):
        raise RuntimeError(
            "CUDA was used before this process was forked, and a fork cannot use it again. Start processes with "
            "multiprocessing.get_context('spawn'), or use CUDA in the children only."
        )
    if not cuda.is_available():
        reason = " ".join((cuda.cuda_error() or "none was found").split()).rstrip(".")
        raise RuntimeError(f"no GPU can be used ({reason}). Is there an NVIDIA GPU, and is its driver installed?")
    capability = cuda.get_current_device().compute_capability
    if tuple(capability) < OLDEST:
        have, need = (".".join(map(str, pair)) for pair in (capability, OLDEST))
        raise RuntimeError(f"this GPU has compute capability {have}, and hotloop needs {need} (Turing, 2018) or newer")
    _first_process = os.getpid()


def require_tf32(dtype: Any) -> None:
    """Raise a ValueError for arrays of another dtype than float32, a RuntimeError where the GPU has no TF32."""
    if np.dtype(dtype) != np.float32:
        raise ValueError(f"tf32 is for float32, not {np.dtype(dtype)}")
    if SIMULATOR:
        return
    capability = tuple(cuda.get_current_device().compute_capability)
    if capability < OLDEST_TF32:
        have, need = (".".join(map(str, pair)) for pair in (capability, OLDEST_TF32))
        raise RuntimeError(f"this GPU has compute capability {have}, and tf32 needs {need} (Ampere, 2020) or newer")
