"""Machine code of the GPU's kernels, kept in the folder of the processor's: a large kernel compiles for many seconds.

numba-cuda's own cache watches the file of the kernel alone, and knows a closure by a pickle of what it holds, which
differs in every process. Here the folder is named by a hash of all sources (see `hotloop.kernels.jit`), and a closure
is known by the names of the functions and the numbers in it. Kernels with functions of the user's own are not kept.
"""

import hashlib
from types import FunctionType
from typing import Any

import numba_cuda
from numba.cuda.dispatcher import CUDACache, CUDACacheImpl

from hotloop.kernels import jit


class _Impl(CUDACacheImpl):
    _locator_classes = (jit.Locator,)


class _Cache(CUDACache):
    """The cache of one of the GPU's kernels, never a reason to fail."""

    _impl_class = _Impl

    def __init__(self, function: FunctionType, identity: str) -> None:
        super().__init__(function)
        self._identity = hashlib.sha256(identity.encode()).hexdigest()

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return sig, codegen.magic_tuple(), numba_cuda.__version__, self._identity

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # truncated or foreign file: compile again, and overwrite it
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        jit.save_if_possible(self, super().save_overload, sig, data)


def _identity(held: Any) -> str | None:
    """What a kernel, or something in its closure, is: the same text in every process; None for functions of others."""
    function = getattr(held, "py_func", getattr(held, "_defn", held))  # of a dispatcher, of an intrinsic
    if isinstance(function, FunctionType):
        if not function.__module__.startswith("hotloop.kernels."):
            return None
        inner = _identity(tuple(cell.cell_contents for cell in function.__closure__ or ()))
        place = f"{function.__module__}.{function.__qualname__}:{function.__code__.co_firstlineno}"
        return None if inner is None else place + inner
    if isinstance(held, tuple):
        parts = [_identity(part) for part in held]
        return None if None in parts else f"({','.join(map(str, parts))})"
    return repr(held) if isinstance(held, bool | int | float | str | None) else None


def keep(kernel: Any) -> Any:
    """The same kernel, whose machine code is kept between processes if it is all the library's own."""
    identity = _identity(kernel)
    if identity is not None:
        kernel._cache = _Cache(kernel.py_func, identity)
    return kernel
