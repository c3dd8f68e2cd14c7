"""What this machine offers: processor, vector width, threads, GPU. Looking never fails and loads no driver by force."""

import importlib.util
import os
import platform
import subprocess
import sys
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path

# The features of LLVM's list that decide how fast the kernels are; other names would only be noise.
_SIMD = ("sse2", "sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "neon", "sve", "sve2")
_CGROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def describe() -> dict[str, str]:
    """Describe this machine as the kernels see it, one line of text for each subject, for people to read."""
    from hotloop.kernels import jit, simd

    return {
        "hotloop": version("hotloop"),
        "numba": version("numba"),
        "numpy": version("numpy"),
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {platform.system()})",
        "processor": processor(),
        "simd": " ".join(simd_features()) or "none known",
        "vector width": f"{vector_bits()} bits, {vector_bits() // 32} float32",
        "tile": f"{simd.TILE_ROWS} rows x {simd.TILE_VECTORS * simd.LANES} columns",
        "threads": f"{available_threads()} available",
        "cache": str(jit.CACHE_FOLDER),
        "gpu": gpu(),
    }


def processor() -> str:
    """Name the processor as its maker does, with LLVM's name for its kind."""
    import llvmlite.binding

    return f"{_maker_name()} ({platform.machine()}, {llvmlite.binding.get_host_cpu_name()})"


def _maker_name() -> str:
    try:
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or "unknown processor"


def simd_features() -> list[str]:
    """List the vector extensions the kernels are compiled for."""
    from numba.core import config

    if config.CPU_FEATURES is not None:  # NUMBA_CPU_FEATURES: "+avx2,-avx512f"
        on = {name[1:] for name in config.CPU_FEATURES.split(",") if name.startswith("+")}
    else:
        import llvmlite.binding

        on = {name for name, has in llvmlite.binding.get_host_cpu_features().items() if has}
    return [name for name in _SIMD if name in on]


def vector_bits() -> int:
    """Width of one vector register the kernels use, in bits."""
    features = simd_features()
    if "avx512f" in features:
        return 512
    return 256 if "avx" in features else 128


def has_fma() -> bool:
    """Whether the kernels are compiled for a processor with fused multiply-add; every 64-bit ARM has it."""
    return platform.machine().lower() in ("aarch64", "arm64") or "fma" in simd_features()


@cache
def warn_without_fma() -> None:
    """Say, once in a process, that kernels are slow where every fused multiply-add is a call into the C library."""
    if not has_fma():
        warnings.warn(
            "this processor has no fused multiply-add (FMA), or NUMBA_CPU_FEATURES leaves it out: training works, but "
            "about 15 times slower, and its last bits may differ from those of other processors.",
            RuntimeWarning,
            stacklevel=3,
        )


def available_threads() -> int:
    """Count the processors this process may run on: its affinity and, on Linux, the limits of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_kept_quotas()]))


@cache
def _kept_quotas() -> list[int]:
    """The quotas as they were when first asked for: the files take 50 us to read, a prediction for one row 20."""
    return _cgroup_quotas()


def _cgroup_quotas() -> list[int]:
    """Whole processors, rounded up, that the control groups (version 2) around this process may use."""
    quotas = []
    try:
        group = _MEMBERSHIP.read_text(encoding="utf-8").partition("0::")[2].strip().strip("/")
    except OSError:
        return []
    for folder in (_CGROUPS / group, *(_CGROUPS / group).parents):
        try:
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        except (OSError, ValueError):
            continue
        if quota.isdigit() and int(quota) > 0:  # "max": no limit
            quotas.append(-(-int(quota) // int(period)))
    return quotas


def gpu() -> str:
    """Say whether a CUDA GPU can be used, and why not otherwise."""
    if importlib.util.find_spec("numba_cuda") is None:
        return 'no: numba-cuda is not installed (pip install "hotloop[cuda]")'
    try:
        from hotloop.kernels.cuda import shim

        shim.require_device()
        name = shim.cuda.get_current_device().name
    except Exception as error:  # whatever a driver may do, this is only a description
        return f"no: {' '.join(str(error).split())}"
    return f"{name.decode() if isinstance(name, bytes) else name} (used where device is cuda)"
