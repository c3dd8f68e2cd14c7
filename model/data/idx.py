"""Reader of idx files, the format of MNIST: a big-endian header (type, dimensions), then the values, last axis fastest.

Format: http://yann.lecun.com/exdb/mnist/, "The IDX file format"; http://www.fon.hum.uva.nl/praat/manual/IDX_file_format.html.
Files may be damaged or forged, so nothing is allocated because a header says so: sizes are compared first, and a
compressed file is unpacked in small pieces that stop at the size the header gives.
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

UNSIGNED_BYTE = 0x08
MAX_BYTES = 1 << 30  # the largest known file of this family, EMNIST by class, holds 0.64e9
_PIECE = 1 << 20


def read_idx(path: str | Path, ndim: int) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, plain or gzip-compressed (`.gz`).

    ndim: the number of dimensions the file must have (1: labels, 3: images).
    Returns uint8 of the shape the header gives.
    Raises ValueError, naming the file, what came and what was expected, when the file is not such an idx file,
    is shorter or longer than its header says, or cannot be unpacked; FileNotFoundError when there is no such file.
    """
    path = Path(path)
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as unpacked:
                return _parse(unpacked, path, ndim)
        with open(path, "rb") as file:
            return _parse(file, path, ndim)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: the gzip data is damaged or cut short ({error})") from error


def _parse(file: BinaryIO | gzip.GzipFile, path: Path, ndim: int) -> npt.NDArray[np.uint8]:
    shape = _header(file.read(4 + 4 * ndim), path, ndim)
    expected = math.prod(shape)  # Python integers: a forged header cannot overflow
    if expected > MAX_BYTES:
        raise ValueError(f"{path}: the header gives the shape {shape}, {expected} bytes; at most {MAX_BYTES} are read")
    values = bytearray()
    while len(values) <= expected:
        piece = file.read(min(_PIECE, expected + 1 - len(values)))
        if not piece:
            break
        values += piece
    if len(values) != expected:
        came = f"only {len(values)}" if len(values) < expected else "more"
        raise ValueError(f"{path}: the header gives the shape {shape}, {expected} bytes of values, but {came} came")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _header(header: bytes, path: Path, ndim: int) -> tuple[int, ...]:
    magic = bytes([0, 0, UNSIGNED_BYTE, ndim])
    if header[:4] != magic:
        raise ValueError(
            f"{path}: expected an idx file of unsigned bytes with {ndim} dimension{'s' * (ndim > 1)}, "
            f"magic number {magic.hex()}; the file starts with {header[:4].hex() or 'nothing'}"
        )
    if len(header) < 4 + 4 * ndim:
        raise ValueError(f"{path}: the header is cut short: {4 + 4 * ndim} bytes expected, {len(header)} came")
    return tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))
