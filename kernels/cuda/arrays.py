"""Arrays and streams of other libraries, as the kernels take them: what lives on the device is never copied."""

from typing import Any

import numpy as np

from hotloop.kernels.cuda.shim import SIMULATOR, cuda

CUDA_DEVICES = (2, 3, 13)  # DLPack's device types: CUDA, pinned and managed memory


def _view(array: Any) -> Any:
    """A view of an array on the device, by __cuda_array_interface__ or DLPack."""
    if SIMULATOR:
        return array
    if hasattr(array, "__cuda_array_interface__"):
        return cuda.as_cuda_array(array)
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_dlpack(array, stream_ptr=-1)
    strides = None if view.strides is None else tuple(s * view.dtype.itemsize for s in view.strides)
    interface = {"shape": view.shape, "typestr": view.dtype.str, "data": (view.ptr, view.readonly), "version": 3}
    return cuda.from_cuda_array_interface({**interface, "strides": strides}, owner=view)


def is_on_device(array: Any) -> bool:
    """Whether an array lives on the device."""
    if SIMULATOR:
        return hasattr(array, "copy_to_host")
    device = getattr(array, "__dlpack_device__", lambda: (0, 0))
    return hasattr(array, "__cuda_array_interface__") or device()[0] in CUDA_DEVICES


def dtype_of(array: Any) -> np.dtype[Any]:
    """The dtype of an array on the host or on the device."""
    return np.dtype((_view(array) if is_on_device(array) else array).dtype)


def as_device(array: Any, dtype: Any, name: str, stream: Any = 0) -> Any:
    """The array on the device, C-contiguous and of this dtype: as it is if it lives there, else copied to it.

    Raises ValueError where an array on the device has another dtype or layout: a copy must be asked for, not made.
    """
    if not is_on_device(array):
        return cuda.to_device(np.ascontiguousarray(array, dtype), stream)
    view = _view(array)
    if view.dtype != np.dtype(dtype):
        raise ValueError(f"{name} is {view.dtype} on the device, but must be {np.dtype(dtype)}")
    if not view.is_c_contiguous():
        raise ValueError(f"{name} on the device must be C-contiguous (its strides are {view.strides})")
    return view


def as_stream(stream: Any) -> Any:
    """numba-cuda's stream for one of its own, 0 (the default), a handle, or a stream of PyTorch or CuPy."""
    if SIMULATOR or isinstance(stream, cuda.cudadrv.driver.Stream):
        return stream
    handle = getattr(stream, "cuda_stream", getattr(stream, "ptr", stream))
    if not isinstance(handle, int):
        raise TypeError(f"stream must be a CUDA stream or its handle, not {type(stream).__name__}")
    return cuda.external_stream(handle) if handle else 0
