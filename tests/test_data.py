"""Data sets: the shipped digits, the idx reader with good, damaged and forged files, the loaders and the split."""

import gzip
import hashlib
import os
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotloop import data


def idx(array: np.ndarray, *, magic: bytes | None = None, shape: tuple[int, ...] | None = None) -> bytes:
    """The bytes of an idx file; magic and shape replace the true ones."""
    shape = array.shape if shape is None else shape
    magic = bytes([0, 0, 8, len(shape)]) if magic is None else magic
    return magic + b"".join(n.to_bytes(4, "big") for n in shape) + array.astype(np.uint8).tobytes()


IMAGES = (np.arange(5 * 3 * 2) * 7 % 256).astype(np.uint8).reshape(5, 3, 2)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four small MNIST files, some plain and some compressed, named by HOTLOOP_DATA."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[:2])))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    monkeypatch.setenv("HOTLOOP_DATA", str(tmp_path))
    return folder


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_the_published_ones() -> None:
    X, y = data.load_digits()
    assert X.shape == (1797, 64) and X.dtype == np.float32 and X.flags.c_contiguous
    assert y.shape == (1797,) and y.dtype == np.int64
    assert X.min() == 0.0 and X.max() == 1.0
    raw = (X * 16).astype(np.uint8).tobytes() + y.astype(np.uint8).tobytes()
    assert hashlib.sha256(raw).hexdigest() == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_digits_ship_with_their_attribution() -> None:
    text = Path(data.__file__).with_name("ATTRIBUTION.txt").read_text(encoding="utf-8")
    assert "Alpaydin" in text and "10.24432/C50P49" in text and "CC BY 4.0" in text


def test_load_digits_split_is_always_the_same() -> None:
    first, second = data.load("digits"), data.load("digits")
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.X_train.shape == (1438, 64) and first.X_test.shape == (359, 64)
    assert first.y_test[:10].tolist() == [4, 5, 2, 1, 7, 3, 9, 6, 8, 2]


# --- idx --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_reads_what_was_written(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / ("images.gz" if compressed else "images")
    path.write_bytes(gzip.compress(idx(IMAGES)) if compressed else idx(IMAGES))
    values = data.read_idx(path, ndim=3)
    np.testing.assert_array_equal(values, IMAGES)
    assert values.dtype == np.uint8


def test_idx_reads_files_longer_than_one_piece(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, 2_500_000, dtype=np.uint8)
    (tmp_path / "long.gz").write_bytes(gzip.compress(idx(values), compresslevel=1))
    np.testing.assert_array_equal(data.read_idx(tmp_path / "long.gz", ndim=1), values)


GOOD = idx(IMAGES)
DAMAGED = [
    (b"", "starts with nothing"),
    (GOOD[:2], "starts with 0000"),
    (GOOD[:9], r"16 bytes expected, 9 came"),
    (GOOD[:-1], r"shape \(5, 3, 2\), 30 bytes of values, but only 29 came"),
    (GOOD[:16], "but only 0 came"),
    (GOOD + b"x", "but more came"),
    (idx(IMAGES, magic=b"\0\0\x0d\3"), r"magic number 00000803; the file starts with 00000d03"),
    (idx(LABELS), "starts with 00000801"),
    (b"GIF89a" + GOOD, "starts with 47494638"),
    (idx(IMAGES, shape=(6, 3, 2)), "36 bytes of values, but only 30 came"),
    (idx(IMAGES, shape=(4, 3, 2)), "but more came"),
    (idx(IMAGES, shape=(2**32 - 1,) * 3), f"{(2**32 - 1) ** 3} bytes; at most"),
]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("content", "message"), DAMAGED, ids=range(len(DAMAGED)))
def test_idx_says_what_is_wrong(tmp_path: Path, content: bytes, message: str, compressed: bool) -> None:
    path = tmp_path / ("bad.gz" if compressed else "bad")
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_idx(path, ndim=3)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [3, 15, 40, -4])
def test_idx_damaged_gzip(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "bad.gz"
    path.write_bytes(gzip.compress(GOOD)[:cut])
    with pytest.raises(ValueError, match=r"bad\.gz.*(gzip|starts with|cut short)"):
        data.read_idx(path, ndim=3)


def test_idx_gzip_with_a_wrong_checksum(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(GOOD))
    content[-6] ^= 1
    (tmp_path / "bad.gz").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        data.read_idx(tmp_path / "bad.gz", ndim=3)


def test_idx_plain_file_named_gz(tmp_path: Path) -> None:
    (tmp_path / "plain.gz").write_bytes(GOOD)
    with pytest.raises(ValueError, match=r"plain\.gz: the gzip data is damaged"):
        data.read_idx(tmp_path / "plain.gz", ndim=3)


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_never_allocates_what_a_header_claims(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / ("forged.gz" if compressed else "forged")
    content = idx(IMAGES, shape=(1000, 1000, 1000))  # a gigabyte, just under the limit
    path.write_bytes(gzip.compress(content) if compressed else content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="only 30 came"):
            data.read_idx(path, ndim=3)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_idx_unpacks_no_more_than_the_header_gives(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(idx(LABELS) + bytes(100_000_000), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="but more came"):
            data.read_idx(tmp_path / "bomb.gz", ndim=1)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=64))
def test_idx_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("idx") / "any"
    path.write_bytes(b"\0\0\x08\x01" + content)
    try:
        values = data.read_idx(path, ndim=1)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert content == len(values).to_bytes(4, "big") + values.tobytes()


# --- load_mnist -------------------------------------------------------------------------------------------------------


def test_mnist_from_the_folder_mnist(mnist: Path) -> None:
    X_train, y_train, X_test, y_test = data.load("mnist")
    np.testing.assert_array_equal(X_train, IMAGES.reshape(5, 6).astype(np.float32) / np.float32(255))
    assert X_train.dtype == np.float32 and X_train.flags.c_contiguous
    assert y_train.tolist() == LABELS.tolist() and y_train.dtype == np.int64
    assert X_test.shape == (2, 6) and y_test.tolist() == [3, 1]


def test_mnist_from_the_named_folder_itself(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLOOP_DATA", str(mnist))
    assert data.load_mnist().X_train.shape == (5, 6)


def test_mnist_missing_file(mnist: Path) -> None:
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"HOTLOOP_DATA.*t10k-labels-idx1-ubyte"):
        data.load_mnist()


def test_mnist_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLOOP_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.load_mnist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx(IMAGES[:4]), "4 images, but train-labels-idx1-ubyte.gz has 5 labels"),
        ("train-images-idx3-ubyte", idx(IMAGES[:0]), "expected images"),
        ("train-images-idx3-ubyte", idx(IMAGES, shape=(5, 6, 0))[:16], "expected images"),
        ("train-images-idx3-ubyte", idx(IMAGES.reshape(5, 6, 1)[:, :4]), "4 pixels each and the test images 6"),
        ("t10k-labels-idx1-ubyte", idx(IMAGES[:2]), "starts with 00000803"),
    ],
    ids=["count", "no rows", "no pixels", "sizes", "images for labels"],
)
def test_mnist_files_that_do_not_belong_together(mnist: Path, name: str, content: bytes, message: str) -> None:
    (mnist / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.load_mnist()


@pytest.mark.skipif(not os.environ.get("HOTLOOP_DATA"), reason="the real MNIST is needed: HOTLOOP_DATA is not set")
def test_mnist_is_the_published_one() -> None:
    X_train, y_train, X_test, y_test = data.load_mnist()
    assert X_train.shape == (60_000, 784) and X_test.shape == (10_000, 784)
    assert X_train.min() == 0.0 and X_train.max() == 1.0
    assert np.bincount(y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert y_train[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]


def fake_sklearn(monkeypatch: pytest.MonkeyPatch, fetch_openml: object) -> None:
    monkeypatch.delenv("HOTLOOP_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "sklearn.datasets", types.SimpleNamespace(fetch_openml=fetch_openml))


def test_mnist_from_openml(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, **options: object) -> tuple[np.ndarray, np.ndarray]:
        assert name == "mnist_784" and options["return_X_y"] and not options["as_frame"]
        X = np.zeros((60_002, 4))
        X[-1] = 255.0
        return X, np.array(["7"] * 60_001 + ["9"], dtype=object)

    fake_sklearn(monkeypatch, fetch)
    X_train, y_train, X_test, y_test = data.load_mnist()
    assert X_train.shape == (60_000, 4) and X_train.dtype == np.float32
    assert X_test.tolist() == [[0.0] * 4, [1.0] * 4]
    assert y_test.tolist() == [7, 9] and y_train.dtype == np.int64


def test_mnist_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, **options: object) -> None:
        raise OSError("no route to host")

    fake_sklearn(monkeypatch, fetch)
    with pytest.raises(ConnectionError, match=r"no route to host.*HOTLOOP_DATA"):
        data.load_mnist()


def test_mnist_without_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOTLOOP_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"HOTLOOP_DATA.*hotloop\[sklearn\]"):
        data.load_mnist()


# --- load and split ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [("digts", "did you mean 'digits'"), ("mnits", "did you mean 'mnist'"), ("iris", "one of digits, mnist")],
)
def test_load_unknown_name(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load(name)


@given(
    n=st.integers(2, 60),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**63),
    stratify=st.booleans(),
    classes=st.integers(1, 5),
)
def test_split_is_a_partition(n: int, fraction: float, seed: int, stratify: bool, classes: int) -> None:
    X, y = np.arange(n)[:, None] * [1.0, 10.0], np.arange(n) ** 2 % classes
    n_test = round(n * fraction)
    if not 0 < n_test < n:
        with pytest.raises(ValueError, match="empty"):
            data.split(X, y, fraction, seed, stratify)
        return
    parts = data.split(X, y, fraction, seed, stratify)
    assert len(parts.X_test) == len(parts.y_test) == n_test
    rows = np.concatenate([parts.X_train, parts.X_test])[:, 0].astype(int)
    assert sorted(rows) == list(range(n))
    np.testing.assert_array_equal(y[rows], np.concatenate([parts.y_train, parts.y_test]))
    if stratify:
        share = np.bincount(parts.y_test, minlength=classes) - np.bincount(y, minlength=classes) * n_test / n
        assert np.abs(share).max() < 1.0


def test_split_shuffles_and_depends_on_the_seed_alone() -> None:
    X, y = np.arange(1000.0)[:, None], np.zeros(1000, int)
    a, b, c = (data.split(X, y, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.X_train, b.X_train)
    assert not np.array_equal(a.X_train, c.X_train)
    assert abs(np.corrcoef(a.X_train[:, 0], np.arange(800))[0, 1]) < 0.15
    assert not np.array_equal(np.sort(a.X_test), np.sort(c.X_test))
    assert a.X_test[:5, 0].tolist() == [458, 323, 622, 828, 93]


def test_split_refuses_what_it_cannot_do() -> None:
    X, y = np.zeros((10, 2)), np.zeros(10)
    with pytest.raises(ValueError, match="10 and 9"):
        data.split(X, y[:9])
    with pytest.raises(ValueError, match=r"\(10, 2\)"):
        data.split(X, X, stratify=True)
    for fraction in (0.0, 1.0, -0.1, float("nan"), 0.01):
        with pytest.raises(ValueError, match="empty"):
            data.split(X, y, test_fraction=fraction)
