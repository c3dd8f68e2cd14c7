"""What the tests on a real GPU share."""

from importlib.util import find_spec


def unusable() -> str:
    """Why no GPU can be used here; empty if one can."""
    if find_spec("numba_cuda") is None:
        return "needs numba-cuda and an NVIDIA GPU"
    from hotloop.kernels.cuda import shim

    try:
        shim.require_device()
    except RuntimeError as error:
        return str(error)
    return ""
