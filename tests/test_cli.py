"""The command line as a user meets it: what it prints, what it writes, and its exit codes 0, 1, 2 and 130."""

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import hotloop
from hotloop.cli import app
from hotloop.data import load

FAST = ["--epochs", "3", "--hidden", "16"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="hotloop")


def accuracy(output: str) -> float:
    found = re.search(r"^test accuracy +(\S+)", output, re.MULTILINE)
    assert found, output
    return float(found[1])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.safetensors"
    result = run("train", "digits", *FAST, "--quiet", "--out", path)
    assert result.exit_code == 0, result.output
    return path


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_and_version() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in ("train", "evaluate", "predict", "info"))
    assert run("--version").stdout == f"hotloop {hotloop.__version__}\n"
    assert all(run(command, "--help").exit_code == 0 for command in ("train", "evaluate", "predict", "info"))


def test_info() -> None:
    result = run("info")
    assert result.exit_code == 0
    for name in ("hotloop", "numba", "processor", "simd", "vector width", "tile", "threads", "cache", "gpu"):
        assert re.search(rf"^{name} +\S", result.stdout, re.MULTILINE), name


# --- train ------------------------------------------------------------------------------------------------------------


def test_the_first_command_of_a_newcomer(folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "hotloop.cli", "train", "digits"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stderr
    assert accuracy(result.stdout) >= 0.96
    assert "\x1b" not in result.stdout
    assert re.search(r"[\d,]+ samples a second$", result.stdout, re.MULTILINE)
    assert result.stdout.rstrip().endswith("digits.safetensors")
    assert [path.name for path in folder.iterdir()] == ["digits.safetensors"]


def test_confusion_matrix_counts_every_test_row(folder: Path) -> None:
    result = run("train", "digits", *FAST)
    rows = re.findall(r"^ *(\d) +((?:(?:\d+|\.) *){10})$", result.stdout, re.MULTILINE)
    counts = np.array([[int(cell.replace(".", "0")) for cell in cells.split()] for _, cells in rows])
    assert counts.sum(axis=1).tolist() == np.bincount(load("digits").y_test).tolist()
    assert f"({np.trace(counts)} of 359)" in result.stdout


def test_quiet_prints_the_accuracy_and_the_file(folder: Path) -> None:
    result = run("train", "digits", *FAST, "--quiet")
    assert result.stderr == ""
    assert re.fullmatch(r"test accuracy .*\nsaved +digits\.safetensors\n", result.stdout)


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install numba-cuda[cu13]")
def test_training_on_a_gpu_that_is_not_there_is_told_in_one_line(folder: Path) -> None:
    from hotloop.kernels.cuda.shim import cuda

    if cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = run("train", "digits", "--device", "cuda")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: device: 'cuda' cannot be used here: no GPU can be used")
    assert not list(folder.iterdir())


def test_the_same_seed_gives_the_same_model_with_any_number_of_threads(folder: Path) -> None:
    options = ["--batch-size", "32", "--lr", "0.1", "--quiet"]
    for name, more in (("a", []), ("b", ["--threads", "2"]), ("c", ["--seed", "1"])):
        assert run("train", "digits", *FAST, *options, *more, "--out", f"{name}.safetensors").exit_code == 0
    a, b, c = (hotloop.MLP.load(f"{name}.safetensors").params for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    "options",
    [
        ["--schedule", "step"],
        ["--schedule", "exponential"],
        ["--schedule", "cosine", "--dtype", "float64"],
        ["--hidden", ""],
        ["--hidden", "32, 16", "--activation", "tanh"],
        ["--validation-split", "0.2", "--early-stopping", "1", "--epochs", "50"],
    ],
    ids=" ".join,
)
def test_options_of_train(folder: Path, options: list[str]) -> None:
    result = run("train", "digits", *FAST, "--quiet", *options)
    assert result.exit_code == 0, result.output
    assert accuracy(result.stdout) > 0.5
    model = hotloop.MLP.load("digits.safetensors")
    if "--hidden" in options:
        assert list(model.sizes) == ([64, 10] if options[1] == "" else [64, 32, 16, 10])
    assert model.dtype == ("float64" if "float64" in options else "float32")


def test_train_mnist_from_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def idx(array: np.ndarray) -> bytes:
        head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        return head + array.astype(np.uint8).tobytes()

    X_train, y_train, X_test, y_test = load("digits")
    for part, X, y in (("train", X_train, y_train), ("t10k", X_test, y_test)):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx((X * 255).reshape(-1, 8, 8)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(y))
    monkeypatch.setenv("HOTLOOP_DATA", str(folder))
    result = run("train", "mnist", "--quiet")
    assert result.exit_code == 0, result.output
    assert accuracy(result.stdout) > 0.8
    assert list(hotloop.MLP.load("mnist.safetensors").sizes) == [64, 128, 10]


# --- evaluate and predict ---------------------------------------------------------------------------------------------


def test_evaluate_says_what_train_said(folder: Path) -> None:
    trained = run("train", "digits", *FAST)
    evaluated = run("evaluate", "digits.safetensors", "digits")
    assert evaluated.exit_code == 0
    assert accuracy(evaluated.stdout) == accuracy(trained.stdout)
    assert evaluated.stdout in trained.stdout


def test_predict_a_data_set(model: Path) -> None:
    result = run("predict", model, "digits")
    lines = result.stdout.split()
    assert lines[0] == "prediction" and len(lines) == 360
    assert run("evaluate", model, "digits").stdout.count(
        f"({(load('digits').y_test == np.array(lines[1:], int)).sum()} of"
    )


def test_predict_probabilities(model: Path) -> None:
    lines = run("predict", model, "digits", "--proba").stdout.split()
    assert lines[0] == ",".join(f"p{j}" for j in range(10))
    probabilities = np.array([line.split(",") for line in lines[1:]], float)
    assert probabilities.shape == (359, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    classes = run("predict", model, "digits").stdout.split()[1:]
    assert probabilities.argmax(axis=1).tolist() == [int(label) for label in classes]


@pytest.mark.parametrize("name", ["rows.npy", "rows.csv"])
def test_predict_a_file_into_a_file(model: Path, folder: Path, name: str) -> None:
    X = load("digits").X_test
    if name.endswith("npy"):
        np.save(name, X.astype(np.float64))
    else:
        np.savetxt(name, X, delimiter=",", header=",".join(f"pixel{j}" for j in range(64)), comments="")
    result = run("predict", model, name, "--out", "predictions.csv")
    assert result.exit_code == 0 and result.stdout == "" and "359 rows" in result.stderr
    assert Path("predictions.csv").read_text() == run("predict", model, "digits").stdout
    assert sorted(path.name for path in folder.iterdir()) == ["predictions.csv", name]


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "Missing argument"),
        (["trian", "digits"], "No such command"),
        (["train", "digits", "--hidden", "64,x"], "--hidden takes numbers of units"),
        (["train", "digits", "--hidden", "0"], "--hidden takes numbers of units"),
        (["train", "digits", "--activation", "rleu"], "did you mean 'relu'"),
        (["train", "digits", "--activation", "softmax"], "--activation"),
        (["train", "digits", "--schedule", "linear"], "--schedule"),
        (["train", "digits", "--dtype", "float16"], "--dtype"),
        (["train", "digits", "--epochs", "0"], "--epochs"),
        (["train", "digits", "--epochs", "many"], "--epochs"),
        (["train", "digits", "--early-stopping", "3"], "needs --validation-split"),
        (["train", "digits", "--out", "no/such/folder/m.safetensors"], "there is no folder"),
        (["train", "digits", "--out", "."], "is a folder"),
        (["predict", "m.safetensors", "digits", "--out", "no/such/p.csv"], "there is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_exits_2(folder: Path, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digts"], "did you mean 'digits'"),
        (["train", "digits", "--lr", "-1"], "lr: got -1"),
        (["evaluate", "none.safetensors", "digits"], "none.safetensors"),
        (["evaluate", "bad.safetensors", "digits"], "bad.safetensors"),
        (["evaluate", "MODEL", "iris"], "iris"),
        (["predict", "MODEL", "none.csv"], "none.csv"),
        (["predict", "MODEL", "digts"], "did you mean 'digits'"),
        (["predict", "MODEL", "rows.parquet"], "rows.parquet"),
        (["predict", "MODEL", "narrow.csv"], "the model takes rows of 64 numbers; narrow.csv has 2"),
        (["predict", "MODEL", "words.csv"], "words.csv cannot be read"),
        (["predict", "MODEL", "nan.npy"], "nan"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_failures_exit_1_with_one_line(model: Path, arguments: list[str], message: str) -> None:
    Path("bad.safetensors").write_bytes(b"not a model")
    Path("narrow.csv").write_text("1,2\n")
    Path("words.csv").write_text("a,b\nc,d\n")
    np.save("nan.npy", np.full((1, 64), np.nan))
    before = sorted(Path().iterdir())
    result = run(*(model if argument == "MODEL" else argument for argument in arguments))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == "" and sorted(Path().iterdir()) == before


def test_a_diverging_training_saves_nothing(folder: Path) -> None:
    result = run("train", "digits", *FAST, "--quiet", "--lr", "1e30", "--activation", "identity")
    assert result.exit_code == 1 and "diverged" in result.stderr
    assert list(folder.iterdir()) == []


def test_missing_mnist_names_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLOOP_DATA", str(folder / "nowhere"))
    result = run("train", "mnist")
    assert result.exit_code == 1 and "HOTLOOP_DATA" in result.stderr


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_interrupted_before_there_is_a_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hotloop.Trainer, "fit", fit)
    result = run("train", "digits")
    assert result.exit_code == 130 and "nothing was written" in result.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C cannot be sent to one process on Windows")
def test_interrupted_training_is_kept(folder: Path) -> None:
    script = """
import sys, hotloop.cli, hotloop.progress
def update(self, epoch, sample):
    if epoch > 0:
        print("training", file=sys.stderr, flush=True)
hotloop.progress.Progress.update = update
hotloop.cli.main()
"""
    command = [sys.executable, "-c", script, "train", "digits", "--epochs", "1000000"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "training\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "interrupted: digits.safetensors holds the model" in stderr
    assert accuracy(stdout) > 0.05
    assert list(hotloop.MLP.load(folder / "digits.safetensors").sizes) == [64, 64, 10]
