"""The description of the machine, on machines that are pretended to be others."""

import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hotloop import MLP, Trainer, machine


def test_describe_has_a_line_for_every_subject() -> None:
    facts = machine.describe()
    assert list(facts)[:4] == ["hotloop", "numba", "numpy", "python"]
    assert all(value and "\n" not in value for value in facts.values())
    assert facts["threads"].split()[0] == str(machine.available_threads())


def test_available_threads_is_what_the_process_may_use() -> None:
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert 1 <= machine.available_threads() <= most


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"": "max 100000"}, []),
        ({"": "150000 100000"}, [2]),
        ({"": "max 100000", "a/b": "50000 100000"}, [1]),
        ({}, []),
    ],
)
def test_control_group_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, str], expected: list[int]
) -> None:
    for folder, text in limits.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "cpu.max").write_text(text + "\n", encoding="ascii")
    (tmp_path / "membership").write_text("1:cpu:/old\n0::/a/b\n", encoding="ascii")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")
    assert machine._cgroup_quotas() == expected


def test_no_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "absent")
    assert machine._cgroup_quotas() == []


@pytest.mark.parametrize(
    ("features", "bits"), [("+sse2", 128), ("+avx,+avx2,-avx512f", 256), ("+avx,+avx512f", 512), ("+neon", 128)]
)
def test_vector_width_follows_the_features(monkeypatch: pytest.MonkeyPatch, features: str, bits: int) -> None:
    monkeypatch.setattr("numba.core.config.CPU_FEATURES", features)
    assert machine.vector_bits() == bits


@pytest.mark.parametrize(
    ("architecture", "features", "has"),
    [
        ("x86_64", "+avx2,+fma", True),
        ("x86_64", "+avx2,-fma,+fma4", False),
        ("AMD64", "", False),
        ("aarch64", "", True),
        ("arm64", "+neon", True),
    ],
)
def test_fused_multiply_add(monkeypatch: pytest.MonkeyPatch, architecture: str, features: str, has: bool) -> None:
    monkeypatch.setattr("numba.core.config.CPU_FEATURES", features)
    monkeypatch.setattr(machine.platform, "machine", lambda: architecture)
    assert machine.has_fma() == has


@pytest.fixture
def untold() -> Iterator[None]:
    """As in a new process, and afterwards too."""
    machine.warn_without_fma.cache_clear()
    yield
    machine.warn_without_fma.cache_clear()


def test_a_processor_without_fma_is_told_so_once_at_the_first_fit(
    monkeypatch: pytest.MonkeyPatch, untold: None
) -> None:
    monkeypatch.setattr("numba.core.config.CPU_FEATURES", "+avx2")
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    X, y = np.eye(4), np.arange(4.0)
    with pytest.warns(RuntimeWarning, match="no fused multiply-add") as told:
        MLP([4, 1]).predict(X)  # silent
        for _ in range(3):
            Trainer(epochs=1).fit(MLP([4, 1]), X, y)
    assert len(told) == 1 and told[0].filename == __file__


def test_a_processor_with_fma_is_told_nothing(monkeypatch: pytest.MonkeyPatch, untold: None) -> None:
    monkeypatch.setattr("numba.core.config.CPU_FEATURES", "+avx2,+fma")
    Trainer(epochs=1).fit(MLP([4, 1]), np.eye(4), np.arange(4.0))


def test_gpu_without_numba_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    assert machine.gpu().startswith("no: numba-cuda is not installed")


def fake_shim(monkeypatch: pytest.MonkeyPatch, require_device: Callable[[], None]) -> None:
    device = types.SimpleNamespace(name=b"NVIDIA Test")
    cuda = types.SimpleNamespace(get_current_device=lambda: device)
    package = types.SimpleNamespace(shim=types.SimpleNamespace(require_device=require_device, cuda=cuda))
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "hotloop.kernels.cuda", package)


def test_gpu_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_shim(monkeypatch, lambda: None)
    assert machine.gpu() == "NVIDIA Test (used where device is cuda)"


def test_gpu_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("no GPU can be used (driver mismatch).\n  Is there an NVIDIA GPU?")

    fake_shim(monkeypatch, refuse)
    assert machine.gpu() == "no: no GPU can be used (driver mismatch). Is there an NVIDIA GPU?"
