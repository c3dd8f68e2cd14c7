"""The CUDA kernels without a GPU, in processes of their own: run by Python, and compiled to machine code."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SIMULATOR, OFFLINE, EPOCHS = TESTS / "cuda" / "simulator", TESTS / "cuda" / "offline", "test_epochs.py"
SUITES: dict[str, list[str]] = {
    "simulator": [str(SIMULATOR)],
    "offline, epochs": [str(OFFLINE / EPOCHS)],
    "offline, the rest": [str(OFFLINE), f"--ignore={OFFLINE / EPOCHS}"],
}

needs_numba_cuda = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install numba-cuda[cu13]"
)


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All suites, started at once: each keeps one core busy for minutes."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    processes = {
        suite: subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
            cwd=TESTS.parent, env=kept | ({"NUMBA_ENABLE_CUDASIM": "1"} if suite == "simulator" else {}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for suite, chosen in SUITES.items()
    }  # fmt: skip
    yield processes
    for process in processes.values():
        process.kill()


@needs_numba_cuda
@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_suite(suite: str, running: dict[str, subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]) -> None:
    process = running[suite]
    output, _ = process.communicate()
    with capsys.disabled():
        print(f" [{suite}: {output.strip().splitlines()[-1] if output.strip() else 'no output'}] ")
    assert process.returncode == 0, output


@needs_numba_cuda
def test_import_touches_no_driver() -> None:
    script = (
        "import importlib, pkgutil\n"
        "from numba.cuda.cudadrv.driver import Driver\n"
        "def touched(*args): raise AssertionError('the driver was touched')\n"
        "Driver.ensure_initialized = Driver.__getattr__ = touched\n"
        "import hotloop.kernels.cuda as package\n"
        "for module in pkgutil.iter_modules(package.__path__):\n"
        "    importlib.import_module(package.__name__ + '.' + module.name)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_missing_package_has_a_remedy() -> None:
    script = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'numba_cuda' else find(name, *rest)\n"
        "import hotloop.kernels.cuda.shim"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ImportError: hotloop.kernels.cuda needs the package numba-cuda. Install it with: pip" in result.stderr
