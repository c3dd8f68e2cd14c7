"""Compiles a kernel to a GPU's machine code without a GPU, and reads registers, memory and instructions from it."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from cuda.core import Linker, LinkerOptions, ObjectCode
from cuda.pathfinder import find_nvidia_binary_utility, find_static_lib
from numba import types
from numba.cuda import compile as compile_kernel
from numba.cuda import dispatcher

CAPABILITIES = [(7, 5), (8, 6), (9, 0), (12, 0)]  # Turing, Ampere, Hopper, Blackwell
every_gpu = pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda pair: f"sm_{pair[0]}{pair[1]}")

vector32, vector64 = types.Array(types.float32, 1, "C"), types.Array(types.float64, 1, "C")
matrix32, matrix64 = types.Array(types.float32, 2, "C"), types.Array(types.float64, 2, "C")

INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
DOUBLE = re.compile(r"^(D(ADD|MUL|FMA|SETP|MNMX|MMA)|MUFU\.\w*64|[FI]2F\.F?64|[FI]2F\.\w*\.F64|F2I\w*\.F64|I2F\.F64)")


class MachineCode(NamedTuple):
    """What became of a kernel."""

    registers: int  # of a thread
    local: int  # bytes of local memory of a thread: its stack, and what was spilled
    spilled: int  # bytes written to local memory for want of registers
    shared: int  # bytes of shared memory of a block, without what is asked for at the launch
    blocks: list[list[str]]  # the instructions of each basic block

    @property
    def instructions(self) -> list[str]:
        return [name for block in self.blocks for name in block]

    def main_loop(self, name: str = "FFMA") -> list[str]:
        """The basic block with the most instructions of this name."""
        return max(self.blocks, key=lambda block: Counter(block)[name])


@contextmanager
def _no_gpu_needed(capability: tuple[int, int]) -> Iterator[None]:
    """numba-cuda asks the present GPU for its capability when a kernel calls a device function."""
    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


@cache
def machine_code(kernel: Any, arguments: tuple[Any, ...], capability: tuple[int, int]) -> MachineCode:
    """Compile a kernel for these argument types and this compute capability."""
    signature, arch = types.void(*arguments), f"sm_{capability[0]}{capability[1]}"
    bounds = kernel.targetoptions.get("launch_bounds")
    with _no_gpu_needed(capability):
        code, _ = compile_kernel(
            kernel.py_func,
            signature,
            cc=capability,
            output="ltoir",
            device=False,
            abi="numba",
            launch_bounds=bounds,
        )
    options = LinkerOptions(arch=arch, link_time_optimization=True, ptxas_options=["-v"])
    runtime = ObjectCode.from_library(find_static_lib("cudadevrt"))  # a grid's barrier is in it
    linker = Linker(ObjectCode.from_ltoir(code), runtime, options=options)
    binary, log = bytes(linker.link("cubin").code), linker.get_info_log()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(binary)
        command = [str(find_nvidia_binary_utility("nvdisasm")), "-c", str(file)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    parts = re.split(r"^\s*\.section\s+\.text\.", text, flags=re.MULTILINE)
    own = "".join(part for part in parts if part.startswith("_ZN"))  # Numba's, not those of the linked runtime
    blocks = [INSTRUCTION.findall(block) for block in re.split(r"^\.L_x_\d+:", own, flags=re.MULTILINE)]

    (about,) = (part for part in log.split("Compiling entry function ")[1:] if part.startswith("'_ZN"))

    def used(pattern: str) -> int:
        found = re.search(pattern, about)
        return int(found.group(1)) if found else 0

    registers = used(r"Used (\d+) registers")
    assert registers > 0 and any(blocks), log
    return MachineCode(
        registers,
        used(r"(\d+) bytes stack frame"),
        used(r"(\d+) bytes spill stores"),
        used(r"(\d+) bytes smem"),
        blocks,
    )


def check(
    kernel: Any,
    arguments: tuple[Any, ...],
    capability: tuple[int, int],
    registers: int,
    shared: int = 0,
    doubles: bool = False,
) -> MachineCode:
    """Assert that a kernel uses no local memory, no float64 unless it is given some, and keeps to its budgets.

    doubles: float64 is meant.
    """
    code = machine_code(kernel, arguments, capability)
    assert code.spilled == 0 and code.local == 0
    assert not [name for name in code.instructions if name.startswith(("LDL", "STL"))]
    if not doubles and not any(_is_double(argument) for argument in arguments):
        assert not [name for name in code.instructions if DOUBLE.match(name)]
    assert code.registers <= registers
    assert code.shared <= shared
    return code


def _is_double(argument: Any) -> bool:
    return getattr(argument, "dtype", argument) == types.float64
