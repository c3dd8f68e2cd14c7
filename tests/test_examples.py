"""Every example runs as a user runs it, and says what it promises."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples"
PROMISES = {
    "cuda_own_kernel": "lr 1.0000: loss 0.",
    "digits": "test accuracy 0.9",
    "learning_curve": "validation loss",
    "linear_regression": "the largest that would not is about 0.022",
    "mnist": "skipped: set HOTLOOP_DATA",
    "own_njit_training_loop": "test accuracy 0.9",
    "perceptron_gates": "XOR  not learned",
    "own_activation_and_loss": "90% of the targets lie below",
    "table_with_text": "a red one: ripe, a small yellow one: not yet",
    "xor_mlp": "0 xor 1 = 1   P(1) = 0.9",
}
ENVIRONMENT = {"cuda_own_kernel": {"NUMBA_ENABLE_CUDASIM": "1"}}
PACKAGES = {"cuda_own_kernel": "numba_cuda", "learning_curve": "matplotlib"}


def run(name: str, folder: Path, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "HOTLOOP_DATA"}
    command = [sys.executable, "-W", "error", str(FOLDER / f"{name}.py")]
    done = subprocess.run(
        command, cwd=folder, env=kept | environment, capture_output=True, text=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_example_is_tested() -> None:
    assert sorted(PROMISES) == sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", PROMISES)
def test_example(name: str, tmp_path: Path) -> None:
    if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed")
    assert PROMISES[name] in run(name, tmp_path, **ENVIRONMENT.get(name, {}))


def test_gates() -> None:
    lines = dict(line.split(None, 1) for line in run("perceptron_gates", FOLDER).splitlines())
    assert {gate: text.startswith("learned") for gate, text in lines.items()} == {
        "AND": True,
        "OR": True,
        "NOT": True,
        "XOR": False,
    }


def test_linear_regression() -> None:
    output = run("linear_regression", FOLDER)
    assert "gradient at w = 0: [ -66.  -87. -108.]" in output
    assert "lr=0.1: diverged" in output
    assert "w = [1. 1. 1.], predictions [ 6. 15.]" in output


def test_learning_curve_writes_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("learning_curve", tmp_path)
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif("HOTLOOP_DATA" not in os.environ, reason="needs MNIST: HOTLOOP_DATA is not set")
def test_mnist(tmp_path: Path) -> None:
    output = run("mnist", tmp_path, HOTLOOP_DATA=os.environ["HOTLOOP_DATA"])
    assert float(output.split()[-1]) > 0.97


def test_examples_are_short() -> None:
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 50, path.name
