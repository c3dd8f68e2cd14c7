"""Two or four neighbouring elements in one load or store, for arrays whose rows begin on 16 bytes.

The address is array + index + offset. The index is 32 bits, as cheap as a GPU's integers get; the offset is 64 bits:
the base of a large array, or a constant, which becomes part of the instruction (78 % of the tiled product's main loop
are multiply-adds with constants added to the index, 86 % with constants as offsets).
"""

from typing import Any

from hotloop.kernels.cuda.shim import SIMULATOR

if SIMULATOR:

    def load2(array, index, offset):
        """array[index + offset] and the element behind it."""
        at = int(index) + int(offset)
        return array[at], array[at + 1]

    def load4(array, index, offset):
        """array[index + offset] and the three elements behind it."""
        at = int(index) + int(offset)
        return array[at], array[at + 1], array[at + 2], array[at + 3]

    def store4(array, index, offset, values):
        """array[index + offset] and the three elements behind it = values."""
        at = int(index) + int(offset)
        for i in range(4):
            array[at + i] = values[i]

else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    _I32, _I64 = ir.IntType(32), ir.IntType(64)

    def _pointer(context: Any, builder: Any, signature: Any, args: Any, count: int) -> tuple[Any, int]:
        """Pointer to `count` elements at array + index + offset, and its alignment: at most 16 bytes."""
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        at = builder.gep(builder.gep(data, [builder.zext(args[1], _I64)]), [args[2]])
        size = 4 if isinstance(at.type.pointee, ir.FloatType) else 8
        return builder.bitcast(at, ir.VectorType(at.type.pointee, count).as_pointer()), min(16, count * size)

    def _make_load(count: int) -> Any:
        @intrinsic
        def load(typing, array, index, offset):
            def codegen(context, builder, signature, args):
                at, alignment = _pointer(context, builder, signature, args, count)
                vector = builder.load(at, align=alignment)
                values = [builder.extract_element(vector, _I32(i)) for i in range(count)]
                return context.make_tuple(builder, signature.return_type, values)

            return types.UniTuple(array.dtype, count)(array, types.uint32, types.int64), codegen

        return load

    load2, load4 = _make_load(2), _make_load(4)

    @intrinsic
    def store4(typing, array, index, offset, values):
        def codegen(context, builder, signature, args):
            at, alignment = _pointer(context, builder, signature, args, 4)
            vector = ir.Constant(at.type.pointee, ir.Undefined)
            for i in range(4):
                vector = builder.insert_element(vector, builder.extract_value(args[3], i), _I32(i))
            builder.store(vector, at, align=alignment)
            return context.get_dummy_value()

        return types.void(array, types.uint32, types.int64, types.UniTuple(array.dtype, 4)), codegen
