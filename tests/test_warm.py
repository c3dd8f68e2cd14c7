"""Compiling ahead: what it says, and that nothing is left to compile after it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hotloop import warmup
from hotloop.kernels import jit
from hotloop.warm import Warmup

# Everything a user does with a model, after a warm-up; prints what compiling that still took.
EVERYTHING = """
import itertools, sys
import numpy as np
from hotloop import MLP, SGD, EarlyStopping, PassiveAggressive, Trainer, warmup
from hotloop.kernels import jit

print(warmup())
known, compiled = [len(kernel.signatures) for kernel in jit._KERNELS], jit.compiled_and_loaded()
try:
    from scipy import sparse
except ImportError:
    sparse = None
rng = np.random.default_rng(0)
X = rng.normal(size=(90, 33)) * (rng.random((90, 33)) < 0.3)
forms = [X, np.float32(X), np.asfortranarray(X), np.float32(X)[:, ::1][::2].repeat(2, axis=0), X > 0]
forms[1].flags.writeable = False
np.save(sys.argv[1] + "/X.npy", np.float32(X))
forms += [np.load(sys.argv[1] + "/X.npy", mmap_mode=mode) for mode in ("r", "r+", "c")]
if sparse is not None:
    forms += [sparse.csr_matrix(X), sparse.coo_array(np.float32(X)), sparse.csr_array(np.float32(X))]
for dtype, rows in itertools.product(("float32", "float64"), forms):
    for batch_size, momentum, nesterov in ((1, 0.0, False), (1, 0.5, False), (7, 0.0, False), (None, 0.5, True)):
        for output, y in (("softmax", np.arange(90) % 3), ("identity", X[:, :3]), ("sigmoid", X[:, :3] > 0)):
            model = MLP([33, 17, 3], "tanh", output, dtype=dtype, init="he_normal")
            trainer = Trainer(
                optimizer=SGD(0.01, momentum, nesterov), batch_size=batch_size, epochs=2, validation_split=0.2,
                early_stopping=EarlyStopping(2)
            )
            trainer.fit(model, rows, y)
            trainer.learn_one(model, X[0], y[0])
            trainer.evaluate(model, rows, y)
            trainer.gradients(model, rows, y)
            model.predict(rows), model.predict_one(X[0]), model.predict_one(np.float32(X[0]))
perceptron = MLP([33, 1], output="step", bias=False)
Trainer(batch_size=1).fit(perceptron, X, np.arange(90) % 2)
for dtype in ("float32", "float64"):
    line = MLP([33, 1], dtype=dtype)
    Trainer(batch_size=1, optimizer=PassiveAggressive(), loss="hinge").fit(line, X, np.arange(90) % 2 * 2.0 - 1.0)
assert [len(kernel.signatures) for kernel in jit._KERNELS] == known
assert jit.compiled_and_loaded() == compiled
"""


def test_after_it_nothing_is_compiled(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", EVERYTHING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    again = subprocess.run(
        [sys.executable, "-W", "error", "-m", "hotloop.cli", "warmup"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    lines = again.stdout.splitlines()
    assert str(jit.CACHE_FOLDER) in lines[0]
    assert re.fullmatch(rf"loaded \d+ kernels from {jit.CACHE_FOLDER} in .* s; nothing had to be compiled", lines[-1])
    assert sum(bool(re.fullmatch(r"float(32|64): .* \d+\.\d\d s", line)) for line in lines) == len(lines) - 2


def test_a_step_is_reported_when_it_is_done() -> None:
    lines: list[str] = []
    done = warmup(lines.append)
    assert str(jit.CACHE_FOLDER) in lines[0] and done.folder == jit.CACHE_FOLDER and done.seconds > 0
    assert [line.partition(":")[0] for line in lines[1:]].count("float32") == (len(lines) - 1) / 2
    assert warmup().compiled == 0 and "all kernels were in use already" in str(warmup())


@pytest.mark.parametrize(
    ("compiled", "loaded", "kept", "text"),
    [
        (3, 1, True, "compiled 3 kernels, loaded 1, in 2.5 s; kept in "),
        (3, 0, False, "compiled 3 kernels, loaded 0, in 2.5 s; lost with this process: /x cannot be written"),
        (0, 4, True, "loaded 4 kernels from /x in 2.5 s; nothing had to be compiled"),
    ],
)
def test_what_it_says(compiled: int, loaded: int, kept: bool, text: str) -> None:
    assert str(Warmup(compiled, loaded, 2.5, Path("/x"), kept)).startswith(text)
