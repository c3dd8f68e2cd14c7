"""Models on disk: safetensors (arrays and text, nothing that runs), with a JSON header of Hotloop's own."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hotloop.custom import Activation
    from hotloop.mlp import MLP

VERSION = 1
CUSTOM = "custom "  # begins the name of an activation that is not the library's own


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write to; it takes the place of `path` when the block ends without an error."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: folder {path.parent} does not exist.")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save(model: "MLP", path: Path) -> None:
    """Write a model; see MLP.save."""
    from safetensors.numpy import save as encode

    from hotloop import prepare

    prepared, extra = prepare.pack(model.prepare)
    header = {
        "version": VERSION,
        "sizes": model.sizes,
        "activations": [_name(activation) for activation in model.activations],
        "output": _name(model.output),
        "bias": model.bias,
        "init": model.init,
        "dtype": str(model.dtype),
        "seed": model.seed,
        "loss": model.loss,
        "decision": model.decision,
        "classes": None if model.classes is None else model.classes.tolist(),
        **prepared,
    }
    arrays = {f"weight.{i}": np.ascontiguousarray(w) for i, w in enumerate(model.weights)}
    arrays |= {f"bias.{i}": np.ascontiguousarray(b) for i, b in enumerate(model.biases)} | extra
    with replacing(path) as beside:
        beside.write_bytes(encode(arrays, metadata={"hotloop": json.dumps(header)}))


def _name(activation: "str | Activation") -> str:
    """How an activation stands in a file; those of the user's own begin with a word that no other does."""
    return activation if isinstance(activation, str) else CUSTOM + activation.name


def _named(name: Any, custom: "Sequence[Activation]") -> Any:
    """The activation of a name in a file."""
    if not isinstance(name, str) or not name.startswith(CUSTOM):
        return name
    for activation in custom:
        if activation.name == name.removeprefix(CUSTOM):
            return activation
    raise ValueError(f"it needs the activation {name.removeprefix(CUSTOM)!r}: pass it to load as custom=[...]")


def load(path: Path, custom: "Sequence[Activation]" = ()) -> "MLP":
    """Read a model; see MLP.load."""
    from hotloop import check, initial, prepare
    from hotloop.mlp import DECISIONS, MLP
    from hotloop.objectives import CUSTOM as LOSS_OF_OWN
    from hotloop.objectives import OUTPUTS

    if not path.is_file():
        raise FileNotFoundError(f"path: no file {path}.")
    header, arrays = _read(path)
    try:
        if header["version"] != VERSION:
            raise ValueError(f"version {header['version']!r}, expected {VERSION}")
        preparation = prepare.unpack(header, arrays)
        _fits(header, arrays)
        model = MLP(
            header["sizes"],
            [_named(name, custom) for name in header["activations"]],
            _named(header["output"], custom),
            header["bias"],
            init="zeros",
            dtype=header["dtype"],
            seed=header["seed"],
        )
        model.init = check.choice("init", header["init"], initial.NAMES)
        if header["decision"] not in DECISIONS or header["loss"] not in (None, LOSS_OF_OWN, *OUTPUTS):
            raise ValueError(f"loss {header['loss']!r} with decision {header['decision']!r}")
        model.prepare, model.classes = preparation, header.get("classes")  # files from before have neither
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: {path} is no Hotloop model: {error}") from None
    model.loss, model.decision = header["loss"], header["decision"]
    for i, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
        weight[:] = arrays[f"weight.{i}"]
        bias[:] = arrays[f"bias.{i}"]
    return model


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and arrays of a safetensors file, which checks its own lengths."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, TypeError, AttributeError) as error:  # the last two: a dtype unknown to NumPy
        raise ValueError(f"path: {path} cannot be read as a safetensors file, it may be cut short: {error}") from None
    try:
        header = json.loads(metadata["hotloop"])
    except (KeyError, ValueError, RecursionError):
        raise ValueError(f"path: {path} has no Hotloop header; expected a file written by MLP.save.") from None
    if not isinstance(header, dict):
        raise ValueError(f"path: {path} has a Hotloop header that is no JSON object.")
    return header, arrays


def _fits(header: dict[str, Any], arrays: dict[str, Any]) -> None:
    """The arrays must be those the header speaks of, before a model of that size is made."""
    sizes = header["sizes"]
    expected: dict[str, tuple[int, ...]] = {f"weight.{i}": (a, b) for i, (a, b) in enumerate(pairwise(sizes))}
    expected |= {f"bias.{i}": (b,) for i, b in enumerate(sizes[1:])}
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        raise ValueError(f"its arrays {found} do not fit its sizes {sizes}")
    for name, array in arrays.items():
        if str(array.dtype) != header["dtype"]:
            raise ValueError(f"{name} is {array.dtype}, the header says {header['dtype']}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity")
