"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from hotloop.files import replacing


def test_replacing_puts_the_new_file_in_place(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with replacing(tmp_path / "f") as beside:
        beside.write_text("new")
        assert (tmp_path / "f").read_text() == "old"
    assert (tmp_path / "f").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(OSError, match="disk full"), replacing(tmp_path / "f") as beside:
        beside.write_text("half")
        raise OSError("disk full")
    assert (tmp_path / "f").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
