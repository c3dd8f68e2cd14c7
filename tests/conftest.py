"""The CUDA suites, which take processes of their own, run beside all other tests and are waited for last."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
SIMULATOR, OFFLINE = TESTS / "cuda" / "simulator", TESTS / "cuda" / "offline"
PIECES, MODELS = [f"{OFFLINE}/test_epochs.py", f"{OFFLINE}/test_tensor.py"], [f"{OFFLINE}/test_train.py"]
# Niceness, what pytest is told. What one process takes longest for is nicest to have done when the other tests are.
SUITES: dict[str, tuple[int, list[str]]] = {
    "simulator": (5, [str(SIMULATOR)]),
    "offline, pieces": (10, PIECES),
    "offline, many models": (15, MODELS),
    "offline, the rest": (15, [str(OFFLINE), *(f"--ignore={path}" for path in PIECES + MODELS)]),
}


class Suite(NamedTuple):
    """A running pytest, and where it prints."""

    process: subprocess.Popen[bytes]
    output: Path


def _of_suite(item: pytest.Item) -> bool:
    return "suites" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_of_suite)


@pytest.fixture(scope="session", autouse=True)
def _start_suites(request: pytest.FixtureRequest) -> None:
    if find_spec("numba_cuda") and any(map(_of_suite, request.session.items)):
        request.getfixturevalue("suites")


@pytest.fixture(scope="session")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Suite]]:
    """All suites, started at once: each keeps one core busy for minutes, as far as the other tests leave it idle."""
    folder = tmp_path_factory.mktemp("suites")
    running = {name: _start(name, folder / name) for name in SUITES}
    yield running
    for suite in running.values():
        suite.process.kill()
        suite.process.wait()


def _start(name: str, output: Path) -> Suite:
    niceness, chosen = SUITES[name]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    if name == "simulator":
        environment["NUMBA_ENABLE_CUDASIM"] = "1"
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=TESTS.parent, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
    return Suite(process, output)


@pytest.fixture(params=SUITES)
def finished(request: pytest.FixtureRequest, suites: dict[str, Suite]) -> tuple[str, bool, str]:
    """Name of a suite, whether it passed, and what it printed."""
    process, output = suites[request.param]
    passed = process.wait() == 0
    return request.param, passed, output.read_text(encoding="utf-8", errors="replace").strip()
