"""The assembly of the micro-kernels on three kinds of processor: their loops keep everything in registers.

LLVM compiles for processors other than this one, so what cannot be run here is at least looked at.
"""

import re
from types import SimpleNamespace
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba import types
from numba.core import cgutils

from hotloop.kernels import entries, simd, tiles

_SIZE, _INDEX = types.intp, types.CPointer(types.int32)
_LLVM = {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.int32: ir.IntType(32)}
# Triple and processor; then what kernels/simd.py chooses there: bytes of a register, registers of a tile's and of
# dots' sums; the tiles of each maker.
PROCESSORS: dict[str, tuple[str, str]] = {
    "AVX2": ("x86_64-unknown-linux-gnu", "haswell"),
    "AVX-512": ("x86_64-unknown-linux-gnu", "skylake-avx512"),
    "NEON": ("aarch64-unknown-linux-gnu", "cortex-a76"),
}
REGISTERS = {"AVX2": (32, 12, 8), "AVX-512": (64, 16, 32), "NEON": (16, 24, 16)}
SHAPES: dict[bool, dict[str, list[tuple[int, ...]]]] = {  # by whether there is AVX-512
    True: {"tile": [(8, 2), (8, 1), (1, 8), (1, 2), (1, 1)], "dots": [(4, 4), (1, 16), (1, 1)], "gather": [(8,), (2,)]},
    False: {"tile": [(6, 1), (1, 4), (1, 2), (1, 1)], "dots": [(2, 2), (1, 4), (1, 1)], "gather": [(4,), (2,)]},
}
MAKERS: dict[str, Any] = {
    "tile": tiles._make_tile,
    "dots": tiles._make_dots,
    "gather": entries._make_gather,
    "gather_row": entries._make_gather_row,
    "scatter": entries._make_scatter,
    "tile_bits": entries._make_tile_bits,
}
# Loops that do touch the stack, with so many instructions at most, and are left so: with AVX2 and AVX-512 they were
# faster than two loops of half the width (gather and scatter by 15 %, dots by 25 % where the weights outgrow the
# cache); with NEON they just fill its 32 registers. The four sums of gather_row hold one vector each, and no less.
SPILLS = {
    ("AVX2", "gather", (4,), "float64"): 4,
    ("AVX2", "scatter", (4,), "float64"): 2,
    ("AVX2", "tile_bits", (2,), "float64"): 1,
    ("AVX-512", "dots", (4, 4), "float64"): 14,
    ("AVX-512", "dots", (1, 16), "float64"): 27,
    ("NEON", "tile", (1, 4), "float32"): 2,
    ("NEON", "tile", (1, 4), "float64"): 2,
    ("NEON", "tile", (1, 2), "float64"): 2,
    ("NEON", "gather", (4,), "float64"): 6,
    ("AVX2", "gather_row", (2,), "float64"): 4,
    ("AVX2", "gather_row", (1,), "float64"): 4,
    ("NEON", "gather_row", (2,), "float64"): 8,
    ("NEON", "gather_row", (1,), "float64"): 8,
    ("NEON", "scatter", (4,), "float64"): 5,
}
_MULTIPLY_ADD = re.compile(r"\s(vfn?madd\w+|fmla|fmadd)\s")
_JUMP = re.compile(r"\s(?:j\w+|b|b\.\w+|cbn?z|tbn?z)\s+(?:\w+, )*(\.?\w+)$")
_STACK = re.compile(r"\(%rsp\)|\[sp\b")


def assembly(intrinsic: Any, arguments: list[Any], processor: str) -> list[str]:
    """The assembly of one micro-kernel, as a function of its own; arguments are Numba types."""
    triple, cpu = PROCESSORS[processor]
    signature, codegen = intrinsic._defn(None, *arguments)
    kinds = [
        _LLVM[kind.dtype].as_pointer() if isinstance(kind, types.CPointer) else ir.IntType(64) for kind in arguments
    ]
    module = ir.Module("micro")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "micro")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    codegen(SimpleNamespace(get_dummy_value=lambda: None), builder, signature, function.args)
    builder.ret_void()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    module.triple, module.data_layout = triple, str(machine.target_data)
    parsed = llvm.parse_assembly(cgutils.normalize_ir_text(str(module)))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return [line for line in machine.emit_assembly(parsed).splitlines() if line.strip()]


def loops(lines: list[str]) -> list[list[str]]:
    """The instructions of every innermost loop that multiplies: from a label to the jump back to it."""
    places = {line.split(":")[0]: i for i, line in enumerate(lines) if re.match(r"\.?\w+:", line)}
    spans = []
    for i, line in enumerate(lines):
        found = _JUMP.search(line.split("#")[0].split("//")[0].rstrip())
        if found and places.get(found[1], i) < i:
            spans.append((places[found[1]], i + 1))
    inner = [a for a in spans if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    bodies = [[line for line in lines[a:b] if not re.match(r"\.?\w+:|\s*\.", line)] for a, b in inner]
    return [body for body in bodies if any(map(_MULTIPLY_ADD.search, body))]


def arguments(maker: str, real: Any) -> list[Any]:
    """The Numba types that the kernels of one maker take."""
    at = types.CPointer(real)
    return {
        "tile": [at, _SIZE, _SIZE, at, _SIZE, at, _SIZE, at, _SIZE, _SIZE],
        "dots": [at, _SIZE, at, _SIZE, at, _SIZE, _SIZE],
        "gather": [_INDEX, at, _SIZE, at, _SIZE, at, at],
        "gather_row": [_INDEX, at, _SIZE, at, _SIZE, at, at],
        "scatter": [_INDEX, at, _SIZE, at, _SIZE, at],
        "tile_bits": [types.int64, types.int64, at, _SIZE, _SIZE, at, _SIZE, at, _SIZE],
    }[maker]


@pytest.fixture(scope="module", autouse=True)
def targets() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@pytest.mark.parametrize("real", [types.float32, types.float64], ids=str)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_loops_are_multiply_adds_without_spills(monkeypatch: pytest.MonkeyPatch, processor: str, real: Any) -> None:
    try:
        llvm.Target.from_triple(PROCESSORS[processor][0])
    except RuntimeError as error:
        pytest.skip(f"this LLVM does not compile for {processor}: {error}")
    register, tile, dot = REGISTERS[processor]
    monkeypatch.setattr(simd, "REGISTER_BYTES", register)
    for module in (tiles, entries):
        monkeypatch.setattr(module, "TILE_REGISTERS", tile)
    monkeypatch.setattr(tiles, "DOT_REGISTERS", dot)
    shapes = SHAPES[processor == "AVX-512"]
    shapes = {**shapes, "scatter": shapes["gather"], "tile_bits": shapes["gather"], "gather_row": [(2,), (1,)]}
    for maker, shape in [(maker, shape) for maker, some in shapes.items() for shape in some]:
        kernel = MAKERS[maker](*shape)
        found = loops(assembly(kernel, arguments(maker, real), processor))
        several = {"tile": np.prod(shape), "dots": np.prod(shape), "tile_bits": 2 * shape[0]}
        several["gather_row"] = entries.CHAINS * shape[0]
        vectors = several.get(maker, shape[0])
        needed = vectors * simd.LANES * real.bitwidth // 8 // register
        steps = sum(len(list(filter(_MULTIPLY_ADD.search, loop))) for loop in found)
        where = f"{maker} {shape} {real} on {processor}"
        assert steps >= needed, f"{where}: {steps} multiply-adds in the loops, expected {needed}"
        calls = [line for loop in found for line in loop if re.search(r"\s(call\w*|bl)\s", line)]
        assert not calls, f"{where}: {calls}"
        stack = max(len(list(filter(_STACK.search, loop))) for loop in found)
        assert stack <= SPILLS.get((processor, maker, shape, str(real)), 0), f"{where}: {stack} spills"


def test_this_machines_shapes_are_among_those_looked_at() -> None:
    large = simd.TILE_VECTORS == 2
    assert (simd.TILE_ROWS, simd.TILE_VECTORS) in SHAPES[large]["tile"]
    assert (1, simd.SPARSE_VECTORS) in SHAPES[large]["tile"]
    assert (simd.DOT_ROWS, simd.DOT_UNITS) in SHAPES[large]["dots"]
    assert (1, simd.DOT_ROWS * simd.DOT_UNITS) in SHAPES[large]["dots"]
