"""Where device="cuda" cannot work, it says why and what to do, before anything is changed."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from hotloop import MLP, Trainer

FIT = (
    "import numpy as np\n"
    "from hotloop import MLP, Trainer\n"
    "Trainer(device='cuda', epochs=1).fit(MLP([2, 2], output='softmax'), np.eye(2), np.arange(2))"
)


def test_without_the_package():
    script = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'numba_cuda' else find(name, *rest)\n" + FIT
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ImportError: device: 'cuda' cannot be used here: hotloop.kernels.cuda needs the package" in result.stderr
    assert "pip install 'hotloop[cuda]'" in result.stderr


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install numba-cuda[cu13]")
def test_without_a_gpu():
    from hotloop.kernels.cuda.shim import cuda

    if cuda.is_available():
        pytest.skip("this machine has a GPU")
    model = MLP([2, 2], output="softmax", seed=1)
    before = model.params.copy()
    with pytest.raises(
        RuntimeError, match=r"device: 'cuda' cannot be used here: no GPU can be used .* driver installed"
    ):
        Trainer(device="cuda", epochs=1).fit(model, np.eye(2), np.arange(2))
    assert np.array_equal(model.params, before)


def test_an_unknown_device():
    with pytest.raises(ValueError, match="device: got 'gpu'"):
        Trainer(device="gpu")


def test_tf32_is_a_gpus():
    with pytest.raises(ValueError, match="tf32: got True with device='cpu', but only a GPU has tensor cores"):
        Trainer(tf32=True)
    with pytest.raises(TypeError, match="tf32: got 1 of type int, expected True or False"):
        Trainer(device="cuda", tf32=1)


class There:
    """An array that says it lies on a GPU."""

    def __init__(self, array: np.ndarray) -> None:
        self.__cuda_array_interface__ = array.__array_interface__


def test_an_array_on_a_gpu_is_not_brought_to_the_processor_unasked():
    X, y, model = np.eye(2, dtype=np.float32), np.arange(2), MLP([2, 2], output="softmax")
    for name, given in (("X", (There(X), y)), ("y", (X, There(y)))):
        with pytest.raises(ValueError, match=f"{name}: got an array on a GPU with device='cpu'; use device='cuda'"):
            Trainer().fit(model, *given)
    with pytest.raises(ValueError, match="sample_weight: got an array on a GPU"):
        Trainer().fit(model, X, y, sample_weight=There(y))
