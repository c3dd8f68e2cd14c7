"""The memory of a fit: the data as given, at most three times the parameters, and 64 MB, whatever the data is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Fits beside data of 200 MB in a process that has trained before; prints how far each raised the peak, in bytes.
MEASURE = """
import json, resource, sys
import numpy as np
from scipy import sparse
from hotloop import MLP, SGD, Trainer, warmup

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

def rise(sizes, X, y, batch_size=256, loss=None, momentum=0.0, output="identity", epochs=1):
    model = MLP(sizes, output=output, dtype=X.dtype)
    trainer = Trainer(loss, SGD(1e-4, momentum), batch_size=batch_size, epochs=epochs)
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")  # the peak begins anew
    before = status("VmRSS")
    trainer.fit(model, X, y)
    return {"rise": status("VmHWM") - before, "params": model.params.nbytes}

warmup()
found, n = {}, 1_000_000
X = np.ones((n, 50), np.float32)
labels = np.zeros(n, np.int64)
for batch_size in (1, 256, 4096):
    found[f"dense, batch {batch_size}"] = rise([50, 3], X, labels, batch_size, output="softmax")
X[:, 5:] = 0
found["listed"] = rise([50, 3], X, labels, output="softmax")
wide = np.zeros((n // 10, 400), np.float32)
wide[:, ::8] = 1
found["listed once"] = rise([400, 3], wide, labels[: n // 10], 1, output="softmax", epochs=3)
del wide
entries = sparse.csr_array(X)
assert entries.indices.dtype == np.int32
del X
found["compressed"] = rise([50, 3], entries, labels, 256, output="softmax")
del entries
few, many = np.ones((n // 4, 4), np.float32), np.ones((n // 4, 200), np.float32)
for loss in ("mse", "mae", "hinge", "logistic"):
    found[f"many targets, {loss}"] = rise([4, 200], few, many, 4096, loss)
del few, many
rows = np.ones((64, 1000), np.float32)
found["many parameters"] = rise([1000, 12_000, 10], rows, np.zeros(64, int), 32, output="softmax")
large = np.lib.format.open_memmap(sys.argv[1], "w+", np.float32, (4_000_000, 50))
large[::997] = 1
del large
large = np.load(sys.argv[1], mmap_mode="r")
limit = status("VmData") + 64_000_000 + 3 * 4 * 200
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # a tenth of what a copy takes
Trainer(batch_size=256, epochs=1, threads=2).fit(MLP([50, 3], output="softmax"), large, np.zeros(4_000_000, np.int8))
print(json.dumps(found))
"""
NAMES = [
    *(f"dense, batch {batch_size}" for batch_size in (1, 256, 4096)),
    "listed",
    "listed once",
    "compressed",
    *(f"many targets, {loss}" for loss in ("mse", "mae", "hinge", "logistic")),
    "many parameters",
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each fit took. The last, of a memory map, had no room for a copy: without an error it needed none."""
    pytest.importorskip("scipy")
    file = tmp_path_factory.mktemp("large") / "X.npy"
    done = subprocess.run([sys.executable, "-c", MEASURE, str(file)], capture_output=True, text=True, timeout=400)
    Path(file).unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_takes_three_times_the_parameters_and_64_megabytes(measured: dict[str, Any], name: str) -> None:
    assert set(measured) == set(NAMES)
    took = measured[name]
    assert took["rise"] <= 3 * took["params"] + 64e6
