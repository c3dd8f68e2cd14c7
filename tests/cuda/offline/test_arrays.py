"""Arrays of other libraries, up to where a GPU is needed: what they export is asked for, and never copied."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from hotloop.kernels.cuda import arrays

CUDA = 2  # DLPack's number of the device


class Exported:
    """An array that says it lies on a GPU, by DLPack."""

    def __init__(self, array):
        self.array, self.streams = array, []

    def __dlpack_device__(self):
        return CUDA, 0

    def __dlpack__(self, *, stream=None, max_version=None):
        self.streams.append(stream)
        capsule, api = self.array.__dlpack__(), ctypes.pythonapi
        api.PyCapsule_GetPointer.restype = ctypes.c_void_p
        api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
        tensor = api.PyCapsule_GetPointer(capsule, b"dltensor")
        ctypes.cast(tensor + 8, ctypes.POINTER(ctypes.c_int32))[0] = CUDA  # behind the pointer to the data
        return capsule


class Interfaced:
    """An array with __cuda_array_interface__."""

    def __init__(self, array):
        self.__cuda_array_interface__ = array.__array_interface__


class View:
    """What numba-cuda would make of a description, which needs a driver."""

    def __init__(self, description, owner=None):
        self.description, self.owner = description, owner
        self.dtype, self.shape = np.dtype(description["typestr"]), description["shape"]
        self.strides = description["strides"]

    def is_c_contiguous(self):
        return self.strides in (None, (self.shape[1] * self.dtype.itemsize, self.dtype.itemsize))


@pytest.fixture(autouse=True)
def no_driver(monkeypatch):
    monkeypatch.setattr(arrays.cuda, "from_cuda_array_interface", View)
    monkeypatch.setattr(arrays.cuda, "as_cuda_array", lambda array: View(array.__cuda_array_interface__, array))


@pytest.mark.parametrize("kind", [Exported, Interfaced])
def test_nothing_is_copied(kind):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = kind(array)
    assert arrays.is_on_device(given) and not arrays.is_on_device(array)
    view = arrays.as_device(given, np.float32, "X")
    assert view.description["data"][0] == array.ctypes.data
    assert tuple(view.shape) == (2, 3) and arrays.dtype_of(given) == np.float32
    assert view.owner is not None  # keeps the memory


@pytest.mark.parametrize("kind", [Exported, Interfaced])
def test_a_copy_must_be_asked_for(kind):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    with pytest.raises(ValueError, match="X is float32 on the device, but must be float64"):
        arrays.as_device(kind(array), np.float64, "X")
    with pytest.raises(ValueError, match="X on the device must be C-contiguous"):
        arrays.as_device(kind(array[:, ::2]), np.float32, "X")


def test_the_producer_of_dlpack_is_told_the_stream():
    given = Exported(np.zeros((1, 1), np.float32))
    arrays.as_device(given, np.float32, "X")
    arrays.as_device(given, np.float32, "X", 1234)
    assert given.streams == [arrays.DEFAULT_STREAM, 1234]


def test_streams():
    with pytest.raises(TypeError, match="stream must be a CUDA stream or its handle, not str"):
        arrays.as_stream("default")
    assert arrays.as_stream(0) == 0


@pytest.mark.parametrize(
    "stream",
    [
        SimpleNamespace(cuda_stream=1234),
        SimpleNamespace(ptr=1234),
        SimpleNamespace(__cuda_stream__=lambda: (0, 1234)),
        1234,
    ],
    ids=["PyTorch", "CuPy", "protocol", "handle"],
)
def test_streams_of_other_libraries(stream, monkeypatch):
    monkeypatch.setattr(arrays.cuda, "external_stream", lambda handle: f"stream {handle}")
    assert arrays.as_stream(stream) == "stream 1234"
