"""The CUDA kernels without a GPU, in processes of their own: run by Python, and compiled to machine code."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

needs_numba_cuda = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install numba-cuda[cu13]"
)


@needs_numba_cuda
@pytest.mark.slow
def test_suite(finished: tuple[str, bool, str], capsys: pytest.CaptureFixture[str]) -> None:
    suite, passed, output = finished
    with capsys.disabled():
        print(f" [{suite}: {output.splitlines()[-1] if output else 'no output'}] ")
    assert passed, output


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


@needs_numba_cuda
def test_the_package_on_a_bare_path_has_a_remedy() -> None:
    script = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'numba_cuda' not in type(f).__module__]\n"
        "import hotloop.kernels.cuda.shim"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "`numba.cuda` is not numba-cuda's: Python has not read its .pth file" in result.stderr


def test_the_missing_package_has_a_remedy() -> None:
    script = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'numba_cuda' else find(name, *rest)\n"
        "import hotloop.kernels.cuda.shim"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ImportError: hotloop.kernels.cuda needs the package numba-cuda. Install it with: pip" in result.stderr
