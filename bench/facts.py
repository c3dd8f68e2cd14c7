"""What a measurement must say about where it was made: machine, versions, commit, date."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hotloop import machine

LIBRARIES = ("hotloop", "numba", "numpy", "torch", "jax", "scikit-learn")


def facts() -> dict[str, str | int]:
    """Processor, cores, versions of the installed libraries, commit and date, by name."""
    found: dict[str, str | int] = {
        "processor": machine.processor(),
        "simd": " ".join(machine.simd_features()),
        "threads": machine.available_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    found["commit"] = _commit()
    found["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
    return found


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
