"""Models on disk: every bit comes back, and no file, however damaged or forged, does more than a clear error."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from hotloop import MLP, SGD, Trainer, files

X = np.random.default_rng(1).normal(size=(20, 5))


def trained(**options: object) -> MLP:
    """A small trained model."""
    model = MLP([5, 17, 3], activation="tanh", output="softmax", **{"seed": 3, **options})  # type: ignore[arg-type]
    Trainer(optimizer=SGD(lr=0.1), epochs=2).fit(model, X, np.arange(20) % 3)
    return model


def refuses(path: Path, message: str = "") -> None:
    """Loading raises ValueError that names the argument and the file."""
    with pytest.raises(ValueError, match=rf"path: .*{path.name}.*{message}"):
        MLP.load(path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
def test_round_trip_keeps_every_bit(tmp_path: Path, dtype: str, bias: bool) -> None:
    model = trained(dtype=dtype, bias=bias)
    model.params[0] = -0.0
    model.params[1] = 5e-324 if dtype == "float64" else 1e-45
    model.save(tmp_path / "m.safetensors")
    again = MLP.load(tmp_path / "m.safetensors")
    assert again.params.tobytes() == model.params.tobytes() and again.params.dtype == dtype
    for name in ("sizes", "activations", "output", "bias", "dtype", "init", "seed", "loss", "decision"):
        assert getattr(again, name) == getattr(model, name), name
    assert repr(again) == repr(model)
    assert again.predict(X).tobytes() == model.predict(X).tobytes()
    Trainer(epochs=1).fit(again, X, np.arange(20) % 3)  # and can be trained on
    assert again.params.tobytes() != model.params.tobytes()


@pytest.mark.parametrize(
    ("output", "loss", "y"),
    [
        ("identity", "mse", X[:, 0]),
        ("identity", "hinge", np.sign(X[:, 0])),
        ("identity", "logistic", X[:, 0] > 0),
        ("identity", "poisson", np.arange(20)),
        ("step", "perceptron", X[:, 0] > 0),
    ],
)
def test_what_it_was_trained_for_comes_back(tmp_path: Path, output: str, loss: str, y: np.ndarray) -> None:
    model = MLP([5, 1], output=output)
    Trainer(loss, epochs=1).fit(model, X, y)
    model.save(tmp_path / "m")
    again = MLP.load(str(tmp_path / "m"))
    assert (again.loss, again.decision) == (loss, model.decision)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_an_untrained_model_has_no_loss(tmp_path: Path) -> None:
    MLP([2, 1]).save(tmp_path / "m")
    assert MLP.load(tmp_path / "m").loss is None


def test_the_file_is_plain_safetensors_without_padding(tmp_path: Path) -> None:
    model = trained()
    model.save(tmp_path / "m.safetensors")
    arrays = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert {name: array.shape for name, array in arrays.items()} == {
        "weight.0": (5, 17),
        "weight.1": (17, 3),
        "bias.0": (17,),
        "bias.1": (3,),
    }
    np.testing.assert_array_equal(arrays["weight.1"], model.weights[1])


def test_saving_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("old")
    model = trained()
    model.save(tmp_path / "m")
    assert MLP.load(tmp_path / "m").params.tobytes() == model.params.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    if os.name == "posix":
        mask = os.umask(0o022)
        os.umask(mask)
        assert (tmp_path / "m").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("place", ["safetensors.numpy.save", "os.replace", "os.chmod"])
def test_a_failing_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    old = trained(seed=1)
    old.save(tmp_path / "m")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(place, fail)
    with pytest.raises(OSError, match="disk full"):
        trained(seed=2).save(tmp_path / "m")
    monkeypatch.undo()
    assert MLP.load(tmp_path / "m").params.tobytes() == old.params.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_half_written_file_never_takes_the_place(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "f") as beside:
        beside.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "f").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_no_folder_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"path: folder .*nowhere does not exist"):
        trained().save(tmp_path / "nowhere" / "m")
    with pytest.raises(FileNotFoundError, match=r"path: no file .*nothing"):
        MLP.load(tmp_path / "nothing")


def test_cut_short_at_any_length(tmp_path: Path) -> None:
    model = MLP([2, 2], seed=1)
    model.save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    for length in [*range(0, 16), *range(16, len(content), 7), len(content) - 1]:
        (tmp_path / "m").write_bytes(content[:length])
        refuses(tmp_path / "m")
    (tmp_path / "m").write_bytes(content + b"\0")
    refuses(tmp_path / "m")


def test_any_byte_changed_is_an_error_or_another_whole_model(tmp_path: Path) -> None:
    MLP([2, 2], seed=1).save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 0x15
        (tmp_path / "m").write_bytes(damaged)
        try:
            model = MLP.load(tmp_path / "m")
        except ValueError as error:
            assert "path: " in str(error) and str(tmp_path / "m") in str(error)
        else:
            assert np.isfinite(model.params).all() and model.forward([[1, 2]]).shape == (1, 2)


def forge(path: Path, header: object, arrays: dict[str, np.ndarray] | None = None) -> None:
    """A well-formed safetensors file with any header of Hotloop's in it."""
    text = header if isinstance(header, str) else json.dumps(header)
    path.write_bytes(safetensors.numpy.save(ARRAYS if arrays is None else arrays, metadata={"hotloop": text}))


ARRAYS = {
    "weight.0": np.ones((2, 3), np.float32),
    "bias.0": np.zeros(3, np.float32),
    "weight.1": np.ones((3, 1), np.float32),
    "bias.1": np.zeros(1, np.float32),
}
HEADER: dict[str, object] = {
    "version": 1,
    "sizes": [2, 3, 1],
    "activations": ["relu"],
    "output": "identity",
    "bias": True,
    "init": "auto",
    "dtype": "float32",
    "seed": 0,
    "loss": "mse",
    "decision": "value",
}


def test_the_forged_header_is_right_where_it_is_not_forged(tmp_path: Path) -> None:
    forge(tmp_path / "m", HEADER)
    assert MLP.load(tmp_path / "m").predict([[1, 1]]) == 6


@pytest.mark.parametrize("key", HEADER)
def test_a_missing_entry(tmp_path: Path, key: str) -> None:
    forge(tmp_path / "m", {name: value for name, value in HEADER.items() if name != key})
    refuses(tmp_path / "m", key)


WRONG: list[object] = [None, -1, 2.5, 10**30, "x", [], [[]], {}, {"a": 1}, True, ["x"], [None], [10**30]]


@pytest.mark.parametrize("key", HEADER)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_forged_entry(tmp_path: Path, key: str, value: object) -> None:
    if (key, value) in [("bias", True), ("loss", None), ("version", True)]:  # right, or equal to what is right
        return
    forge(tmp_path / "m", {**HEADER, key: value})
    refuses(tmp_path / "m")


@pytest.mark.parametrize(
    "entries",
    [
        {"sizes": [2, 3]},
        {"sizes": [3, 2, 1]},
        {"sizes": [2.0, 3.0, 1.0]},
        {"sizes": [2**40, 2**40, 1]},
        {"sizes": "231"},
        {"sizes": {"0": 2, "1": 3}},
        {"activations": []},
        {"activations": ["relu", "relu"]},
        {"activations": ["softmax"]},
        {"activations": "relu"},
        {"output": "softmax"},
        {"dtype": "float64"},
        {"dtype": "float16"},
        {"decision": "argmin"},
        {"loss": "perplexity"},
        {"version": 2},
        {"seed": 2**64},
    ],
    ids=repr,
)
def test_entries_that_do_not_fit(tmp_path: Path, entries: dict[str, object]) -> None:
    forge(tmp_path / "m", {**HEADER, **entries})
    refuses(tmp_path / "m")


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "5", "[]", '"text"', "NaN", "\x00", "[" * 100_000, '{"version": ' + "9" * 5000 + "}", '{"a"' * 9],
    ids=lambda text: text[:12],
)
def test_a_header_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    forge(tmp_path / "m", text)
    refuses(tmp_path / "m")


def test_another_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(safetensors.numpy.save(ARRAYS))
    refuses(tmp_path / "m", "no Hotloop header")


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("bias.1"),
        lambda arrays: arrays.update(extra=np.zeros(1, np.float32)),
        lambda arrays: arrays.update({"weight.0": np.ones((3, 2), np.float32)}),
        lambda arrays: arrays.update({"weight.0": np.ones(6, np.float32)}),
        lambda arrays: arrays.update({"weight.0": np.ones((2, 3), np.float64)}),
        lambda arrays: arrays.update({"weight.0": np.ones((2, 3), np.int32)}),
        lambda arrays: arrays.update({"weight.0": np.full((2, 3), np.nan, np.float32)}),
        lambda arrays: arrays.update({"bias.1": np.full(1, np.inf, np.float32)}),
        lambda arrays: arrays.clear(),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    arrays = dict(ARRAYS)
    change(arrays)
    forge(tmp_path / "m", HEADER, arrays)
    refuses(tmp_path / "m")


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "BOOL", "I64", "F16", "NONE"])
def test_arrays_of_kinds_that_numpy_may_not_know(tmp_path: Path, kind: str) -> None:
    size = {"BF16": 2, "F8_E4M3": 1, "BOOL": 1, "I64": 8, "F16": 2, "NONE": 1}[kind]
    head = json.dumps(
        {
            "__metadata__": {"hotloop": json.dumps({**HEADER, "sizes": [1, 1], "activations": []})},
            "weight.0": {"dtype": kind, "shape": [1, 1], "data_offsets": [0, size]},
            "bias.0": {"dtype": kind, "shape": [1], "data_offsets": [size, 2 * size]},
        }
    ).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(head)) + head + bytes(2 * size))
    refuses(tmp_path / "m")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "m").write_bytes(pickle.dumps(Trap()))
    refuses(tmp_path / "m")
    np.save(tmp_path / "n", np.array([Trap()], dtype=object), allow_pickle=True)
    refuses(tmp_path / "n.npy")
    forge(tmp_path / "o", pickle.dumps(Trap(), 0).decode("latin-1"))
    refuses(tmp_path / "o")
    assert not (tmp_path / "sprung").exists()
