"""Vectors of 16 as LLVM IR, for float32, float64 and every vector width: what the micro-kernels are made of.

Every vector has LANES = 16 elements; LLVM splits it into the registers of the machine (one AVX-512, two AVX, four NEON
for float32). 16 is a constant of the algorithm: it fixes the order of every sum along the lanes, so results have the
same bits on every machine. Only the shapes of tiles depend on the machine, and they change no bit:
an output element is one ascending chain of fused multiply-adds wherever its tile begins or ends.

Micro-kernels: `tiles` of dense products, `entries` for rows with zeros, `lines` for rows of 16. Below come first what
their code is written with, then what kernels use beside them.
Pointers are `CPointer(float32 | float64)`; strides and offsets count elements. `pointer[i]` works like `array[i]`.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, register_model

LANES = 16
CACHE_LINE = 64  # bytes

I64 = ir.IntType(64)
I32 = ir.IntType(32)


def has(feature: str) -> bool:
    """Whether Numba compiles for a processor with this feature."""
    if config.CPU_FEATURES is not None:
        return f"+{feature}" in config.CPU_FEATURES
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))


# Registers of the sums of a tile: the rest hold what they are made of.
REGISTER_BYTES = 64 if has("avx512f") else 32 if has("avx") else 16
TILE_REGISTERS, DOT_REGISTERS = (16, 32) if has("avx512f") else (24, 16) if has("neon") else (12, 8)

# Tile shapes by the registers of the host. AVX-512 (and NEON, counted in float32) has 32 registers, AVX 16: the sums,
# one row of weights and one factor must fit, or LLVM spills inside the loop.
if has("avx512f"):
    TILE_ROWS, TILE_VECTORS, DOT_ROWS, DOT_UNITS, SPARSE_VECTORS = 8, 2, 4, 4, 8
else:
    TILE_ROWS, TILE_VECTORS, DOT_ROWS, DOT_UNITS, SPARSE_VECTORS = 6, 1, 2, 2, 4

COMPRESS = has("avx512f") and has("avx512vl")


def vector_type(element: ir.Type, lanes: int = LANES) -> ir.VectorType:
    """The type of a vector."""
    return ir.VectorType(element, lanes)


def load(builder: Any, pointer: Any, offset: int, lanes: int = LANES) -> Any:
    """The vector at an offset from a pointer."""
    element = pointer.type.pointee
    at = builder.bitcast(builder.gep(pointer, [I64(offset)]), vector_type(element, lanes).as_pointer())
    return builder.load(at, align=4 if isinstance(element, ir.FloatType) else 8)


def store(builder: Any, value: Any, pointer: Any, offset: int) -> None:
    """Write a vector at an offset from a pointer."""
    element = pointer.type.pointee
    at = builder.bitcast(builder.gep(pointer, [I64(offset)]), value.type.as_pointer())
    builder.store(value, at, align=4 if isinstance(element, ir.FloatType) else 8)


def broadcast(builder: Any, scalar: Any, lanes: int = LANES) -> Any:
    """A vector that has this scalar in every lane."""
    undefined = ir.Constant(vector_type(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def build_fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding, of vectors or scalars."""
    kind = a.type
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    width = "f32" if isinstance(element, ir.FloatType) else "f64"
    name = f"llvm.fma.v{kind.count}{width}" if isinstance(kind, ir.VectorType) else f"llvm.fma.{width}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])


class Loop:
    """`for index in range(0, stop, step)` around values carried in registers; the body may run zero times."""

    def __init__(self, builder: Any, stop: Any, step: int, carried: list[Any]) -> None:
        self.builder, self.step, self.stop, self.initial = builder, step, stop, carried
        self.before = builder.block
        self.body = builder.append_basic_block("loop")
        self.after = builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", stop, I64(0)), self.body, self.after)
        builder.position_at_end(self.body)
        self.index = builder.phi(I64)
        self.index.add_incoming(I64(0), self.before)
        self.carried = []
        for value in carried:
            phi = builder.phi(value.type)
            phi.add_incoming(value, self.before)
            self.carried.append(phi)

    def close(self, updated: list[Any]) -> list[Any]:
        """End the body; return the carried values as they stand after the loop."""
        builder = self.builder
        following = builder.add(self.index, I64(self.step))
        self.index.add_incoming(following, self.body)
        for phi, value in zip(self.carried, updated, strict=True):
            phi.add_incoming(value, self.body)
        builder.cbranch(builder.icmp_signed("<", following, self.stop), self.body, self.after)
        builder.position_at_end(self.after)
        results = []
        for initial, value in zip(self.initial, updated, strict=True):
            phi = builder.phi(value.type)
            phi.add_incoming(initial, self.before)
            phi.add_incoming(value, self.body)
            results.append(phi)
        return results


def loops_of(element: Any, vectors: int, most: int) -> int:
    """Into how many loops a tile of so many vectors is divided, for each to keep at most `most` registers.

    float64 vectors take twice the registers of float32 ones, and LLVM spilled them inside the loop. AVX2, 32 rows of
    784-128: forward 190 us, two loops 127; weight gradient 256, 150; input gradient 310, 220. AVX-512: 137, 115 and
    158, 130, but the input gradient of 128 rows of 512-512 1,420, 1,840.
    """
    size = LANES * (4 if isinstance(element, ir.FloatType) else 8)
    loops = 1
    while vectors * size > loops * most * REGISTER_BYTES:
        loops *= 2
    return loops


@intrinsic
def pointer(typing, array, offset):
    """Pointer to element `offset` of a C-contiguous array, counted over all its dimensions."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic
def at_address(typing, address, like):
    """The address as a pointer to elements of the type of `like`."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), codegen


@intrinsic
def advance(typing, base, offset):
    """Pointer `offset` elements further."""
    return base(base, types.intp), lambda context, builder, signature, args: builder.gep(args[0], [args[1]])


def make_buffer(size: int) -> Callable[..., Any]:
    """A function that gives room for `size` elements of a number's type, or a pointer's, on the caller's stack."""

    @intrinsic
    def buffer(typing, like):
        kind = like if isinstance(like, types.CPointer) else types.CPointer(like)

        def codegen(context, builder, signature, args):
            room = cgutils.alloca_once(builder, context.get_value_type(kind.dtype), size=ir.Constant(I64, size))
            room.align = 64  # a vector that crosses a cache line costs two loads
            return room

        return kind(like), codegen

    return buffer


def build_prefetch(builder: Any, pointer: Any, level: int = 1) -> None:
    """Ask for the cache line that a pointer points into, into the caches from this level on."""
    at = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [at.type, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [at, I32(0), I32(4 - level), I32(1)])  # read, keep, data


def _make_prefetch(level: int) -> Callable[..., None]:
    """Ask for the cache line that a pointer points into, into the caches from this level on; harmless anywhere."""

    @intrinsic
    def prefetch(typing, base):
        def codegen(context, builder, signature, args):
            build_prefetch(builder, args[0], level)
            return context.get_dummy_value()

        return types.void(base), codegen

    return prefetch


prefetch, prefetch_second = _make_prefetch(1), _make_prefetch(2)


class Vector(types.Type):
    """LANES numbers, or truth values, as one value of a kernel: see `vectors`."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        element = ir.IntType(1) if kind.dtype == types.boolean else manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, vector_type(element))


def number_of(kind: Any) -> Any:
    """The type of a number, or of those of a vector."""
    return kind.dtype if isinstance(kind, Vector) else kind


def like_of(number: types.Type, kind: types.Type) -> Any:
    """This type of number, or vectors of it where `kind` is of vectors."""
    return Vector(number) if isinstance(kind, Vector) else number


def build_cast(context: Any, builder: Any, value: Any, given: types.Type, kind: types.Type) -> Any:
    """A number in the type of `kind`, in every lane if that is of vectors."""
    if given == kind:
        return value
    number = context.cast(builder, value, given, number_of(kind))
    return broadcast(builder, number) if isinstance(kind, Vector) else number


@intrinsic
def cast(typing, value, like):
    """`value` in the type of `like`: 0.5 beside a float32 would otherwise make the whole formula float64."""
    return like(value, like), lambda context, builder, signature, args: build_cast(
        context, builder, args[0], signature.args[0], signature.return_type
    )


@intrinsic
def fma(typing, a, b, c):
    """a * b + c with one rounding."""
    return a(a, a, a), lambda context, builder, signature, args: build_fma(builder, *args)


@intrinsic
def float_to_bits(typing, value):
    """The bits of a float32 as int32, of a float64 as int64."""
    integer = types.int32 if number_of(value) == types.float32 else types.int64
    return like_of(integer, value)(value), lambda context, builder, signature, args: builder.bitcast(
        args[0], context.get_value_type(signature.return_type)
    )


@intrinsic
def bits_to_float(typing, bits):
    """The float32 with the bits of an int32, the float64 with those of an int64."""
    real = types.float32 if number_of(bits) == types.int32 else types.float64
    return like_of(real, bits)(bits), lambda context, builder, signature, args: builder.bitcast(
        args[0], context.get_value_type(signature.return_type)
    )
