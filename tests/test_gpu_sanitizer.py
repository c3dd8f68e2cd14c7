"""On a real GPU: NVIDIA's compute-sanitizer has nothing to object to.

python -m pytest -m gpu tests/test_gpu_sanitizer.py
compute-sanitizer --tool racecheck python tests/test_gpu_sanitizer.py     # one tool, and all that it says
"""

import shutil
import subprocess
import sys
from typing import Any

import gpu
import numpy as np
import pytest

from hotloop import MLP, SGD, Adam, Trainer
from hotloop.kernels import activations, losses
from hotloop.layout import make_plan

TOOLS = {
    "memcheck": "reads and writes beyond an array, or misaligned",
    "racecheck": "shared memory used by two threads with no barrier between",
    "synccheck": "barriers that some threads do not come to",
}
SINGLE: list[tuple[list[int], int, Any, dict[str, Any]]] = [
    ([70, 33, 10], 32, SGD(lr=0.05), {}),  # one block
    ([70, 33, 10], 1, SGD(lr=0.05), {"dropout": [0.1, 0.2]}),
    ([70, 128, 10], 65, SGD(lr=0.05), {}),  # a grid, the first layer by tiles
    ([70, 128, 10], 130, Adam(lr=0.01), {"clip_norm": 0.5, "max_norm": 1.0, "input_noise": 0.1}),
]
TOGETHER: list[tuple[int, dict[str, float]]] = [
    (2, {}),
    (32, {"dropout": 0.2, "l2": 1e-3, "clip_norm": 0.5, "max_norm": 1.0}),
]


def _unusable() -> str:
    missing = "" if shutil.which("compute-sanitizer") else "needs compute-sanitizer, of the CUDA toolkit, on the PATH"
    return gpu.unusable() or missing


def work(n: int = 130) -> None:
    """A few steps of everything: one block and a grid, few rows and many, predictions, and many models at once."""
    from hotloop.kernels.cuda import train_models
    from hotloop.kernels.cuda.shim import cuda

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, 70)).astype(np.float32), rng.integers(0, 10, n).astype(np.int32)
    for sizes, batch, optimizer, options in SINGLE:
        model = MLP(sizes, output="softmax", seed=1)
        trainer = Trainer(optimizer=optimizer, batch_size=batch, epochs=1, device="cuda", progress=False, **options)
        trainer.fit(model, X, y)
        model.predict(cuda.to_device(X))
    plans = [
        make_plan([70, 10], [activations.IDENTITY], True, 1)[0],
        make_plan([70, 19, 10], [activations.RELU, activations.IDENTITY], True, 1)[0],
    ]
    params = np.concatenate([MLP(sizes, seed=1).params for sizes in ([70, 10], [70, 19, 10])])
    for batch, regular in TOGETHER:
        options = {"loss": losses.CROSS_ENTROPY_CLASS, "lr": 0.05, "epochs": 1, "batch_size": batch, **regular}
        train_models(plans, params, X, y, **options).losses.copy_to_host()


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_to_object_to(tool: str) -> None:
    if reason := _unusable():
        pytest.skip(reason)
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1", "--report-api-errors", "no"]
    done = subprocess.run([*command, sys.executable, __file__], capture_output=True, text=True)
    assert done.returncode == 0, f"{TOOLS[tool]}\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    work()
