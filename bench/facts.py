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
    """The commit measured, "-dirty" if the tree differs from it in more than earlier results."""
    try:
        changed = _git("status", "--porcelain", "--", ":/", ":(exclude,top)bench/results", ":(exclude,top)README.md")
        return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*words: str) -> str:
    folder = Path(__file__).parent
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
