"""Arrays and streams of other libraries, as the kernels take them: what lives on the device is never copied."""

from math import isfinite
from typing import Any

import numpy as np

from hotloop.kernels.cuda.shim import SIMULATOR, cuda, kernel, launch

CUDA_DEVICES = (2, 3, 13)  # DLPack's device types: CUDA, pinned and managed memory
DEFAULT_STREAM = 1  # DLPack's number of it
THREADS = 64
MOST_BLOCKS = 1024  # of a pass over a large array


def _view(array: Any, stream: Any = 0) -> Any:
    """A view of an array on the device, by __cuda_array_interface__ or DLPack, to be read on this stream."""
    if SIMULATOR:
        return array
    if hasattr(array, "__cuda_array_interface__"):
        return cuda.as_cuda_array(array)
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_dlpack(array, stream_ptr=int(stream) or DEFAULT_STREAM)
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
    view = _view(array, stream)
    if view.dtype != np.dtype(dtype):
        raise ValueError(f"{name} is {view.dtype} on the device, but must be {np.dtype(dtype)}")
    if not view.is_c_contiguous():
        raise ValueError(f"{name} on the device must be C-contiguous (its strides are {view.strides})")
    return view


def as_stream(stream: Any) -> Any:
    """numba-cuda's stream for one of its own, 0 (the default), a handle, or a stream of another library.

    Of PyTorch, of CuPy, or with the protocol of cuda-python: __cuda_stream__() gives a version and the handle.
    """
    if SIMULATOR or isinstance(stream, cuda.cudadrv.driver.Stream):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        handle = stream.__cuda_stream__()[1]
    else:
        handle = getattr(stream, "cuda_stream", getattr(stream, "ptr", stream))
    if not isinstance(handle, int):
        raise TypeError(f"stream must be a CUDA stream or its handle, not {type(stream).__name__}")
    return cuda.external_stream(handle) if handle else 0


@kernel
def first_unsound_kernel(values, first):
    """first[0] = the smallest i of a NaN or an infinity in values, or what it was."""
    for i in range(cuda.grid(1), values.shape[0], cuda.gridsize(1)):
        if not isfinite(values[i]):
            cuda.atomic.min(first, 0, i)


def first_unsound(array: Any, stream: Any = 0) -> int:
    """Where in a C-contiguous array on the device, counted flat, the first NaN or infinity is; its size: nowhere."""
    size = int(array.size)
    first = cuda.to_device(np.array([size]), stream)
    if size > 0:
        blocks = min(MOST_BLOCKS, -(-size // THREADS))
        launch(first_unsound_kernel, blocks, THREADS, stream)(array.reshape(size), first)
    return int(to_host(first, stream)[0])


@kernel
def take_kernel(rows, chosen, out):
    """out[r] = rows[chosen[r]]."""
    columns = out.shape[1]
    for i in range(cuda.grid(1), out.shape[0] * columns, cuda.gridsize(1)):
        out[i // columns, i % columns] = rows[chosen[i // columns], i % columns]


def take(rows: Any, chosen: Any, stream: Any = 0) -> Any:
    """A copy, on the device, of these rows (m,) of an array (n, columns) on the device, there for any stream."""
    out = cuda.device_array((len(chosen), rows.shape[1]), rows.dtype, stream=stream)
    blocks = min(MOST_BLOCKS, -(-out.size // THREADS))
    launch(take_kernel, blocks, THREADS, stream)(rows, cuda.to_device(np.asarray(chosen, np.int64), stream), out)
    cuda.synchronize()
    return out


def to_host(array: Any, stream: Any = 0) -> np.ndarray[Any, Any]:
    """A NumPy copy of an array on the device, of any library; waits for the stream."""
    copied = _view(array, stream).copy_to_host(stream=stream)
    if stream:
        stream.synchronize()
    return copied
