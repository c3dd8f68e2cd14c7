"""The CUDA kernels without a GPU, in two processes of their own: run by Python, and compiled to machine code."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SUITES = {"simulator": {"NUMBA_ENABLE_CUDASIM": "1"}, "offline": {}}

needs_numba_cuda = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install numba-cuda[cu13]"
)


@needs_numba_cuda
@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_suite(suite: str, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")} | SUITES[suite]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "cuda" / suite)]
    result = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)
    with capsys.disabled():
        print(f" [{suite}: {result.stdout.strip().splitlines()[-1]}] " if result.stdout.strip() else result.stderr)
    assert result.returncode == 0, result.stdout + result.stderr


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
