"""The batch-size study: its figures, its files, its command; and that it costs the command line nothing."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hotloop import MLP, SGD, Trainer, bench
from hotloop.data import load

EPOCHS = 12


@pytest.fixture(scope="module")
def courses() -> list[bench.Course]:
    return bench.batch_size_study(EPOCHS, seed=3)


def test_study_trains_every_batch_size(courses: list[bench.Course]) -> None:
    assert [(course.batch_size, course.lr) for course in courses] == list(bench.RATES.items())
    for course in courses:
        assert course.history.stopped == "finished"
        assert course.history.epochs == EPOCHS
        assert course.history["loss"][-1] < course.history["loss"][0]


def test_study_is_what_a_trainer_does(courses: list[bench.Course]) -> None:
    data, course = load("digits"), courses[1]
    model = MLP(bench.SIZES, output="softmax", seed=3)
    trainer = Trainer(optimizer=SGD(course.lr), batch_size=course.batch_size, epochs=EPOCHS, seed=3)
    history = trainer.fit(model, data.X_train, data.y_train, validation_data=(data.X_test, data.y_test))
    assert history["loss"] == course.history["loss"]
    assert history["val_accuracy"] == course.history["val_accuracy"]


def test_more_steps_learn_more_in_an_epoch(courses: list[bench.Course]) -> None:
    losses = [course.history["loss"][-1] for course in courses]
    assert losses == sorted(losses)


def test_seconds_add_up(courses: list[bench.Course]) -> None:
    for course in courses:
        assert course.seconds == sorted(course.seconds)
        assert course.seconds[-1] == pytest.approx(sum(course.history["seconds"]))


def test_reached_is_the_first_such_epoch(courses: list[bench.Course]) -> None:
    course = courses[0]
    accuracy = course.history["val_accuracy"]
    epoch = course.reached(0.9)
    assert epoch is not None
    assert accuracy[epoch - 1] >= 0.9 and all(value < 0.9 for value in accuracy[: epoch - 1])
    assert course.reached(1.01) is None


def test_labels(courses: list[bench.Course]) -> None:
    assert [course.label for course in courses] == ["1 (per sample)", "32", "128", "512", "full (1,438)"]
    assert len(load("digits").X_train) == 1438


def test_csv(courses: list[bench.Course], tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    bench.write_csv(courses, path)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == EPOCHS * len(courses)
    assert {row["batch_size"] for row in rows} == {"1", "32", "128", "512", "full"}
    assert [float(row["loss"]) for row in rows[:EPOCHS]] == courses[0].history["loss"]
    assert [row["epoch"] for row in rows[:2]] == ["1", "2"]
    assert [file.name for file in tmp_path.iterdir()] == ["study.csv"]


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_picture(courses: list[bench.Course], tmp_path: Path, suffix: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"study.{suffix}"
    bench.draw(courses, path)
    assert path.read_bytes().startswith(begins)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_picture_of_an_unknown_kind(courses: list[bench.Course], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"out: a picture cannot be written as \.docx"):
        bench.draw(courses, tmp_path / "study.docx")
    assert list(tmp_path.iterdir()) == []


def test_table(
    courses: list[bench.Course], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    bench.print_study(courses, 0.9)
    text = capsys.readouterr().out
    assert "1 (per sample)" in text and "never" in text
    assert f"{courses[0].history['val_accuracy'][-1]:.4f}" in text


def test_command(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "picture.png"
    result = CliRunner().invoke(bench.app, ["batch-size", "--epochs", "2", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in tmp_path.iterdir()) == ["picture.csv", "picture.png"]


def test_command_complains_before_it_works(tmp_path: Path) -> None:
    result = CliRunner().invoke(bench.app, ["batch-size", "--out", str(tmp_path / "nowhere" / "picture.png")])
    assert result.exit_code == 2
    assert "there is no folder" in " ".join(result.output.split())


def test_import_is_light() -> None:
    heavy = "{'numpy', 'numba', 'matplotlib', 'rich.table'}"
    code = f"import sys, hotloop.bench; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
