"""Scalar operations that numba lacks: fused multiply-add and 16-bit floats, as LLVM instructions.

Half-precision numbers travel as integers of 16 bits: uint16 is bfloat16, int16 is float16.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

# Typed as unknown: the first parameter is numba's, callers leave it out.
instruction: Any = intrinsic

HALF_INFINITY = 0x7F80  # exponent of bfloat16, all ones


@instruction
def fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c with one rounding; all three float32, or all float64."""
    if not (isinstance(a, types.Float) and a == b == c):
        raise TypeError(f"fma of {a}, {b}, {c}; allowed: three floats of one width")
    return a(a, b, c), lambda _, builder, __, arguments: builder.fma(*arguments)


@instruction
def widen(_context: Any, number: Any) -> Any:
    """Turn a bfloat16 or float16 into float32; wider numbers stay as they are."""

    def build(_: Any, builder: ir.IRBuilder, __: Any, arguments: Any) -> Any:
        if number == types.uint16:
            high = builder.shl(builder.zext(arguments[0], ir.IntType(32)), _word(16))
            return builder.bitcast(high, ir.FloatType())
        if number == types.int16:
            return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())
        return arguments[0]

    return (types.float32 if number.bitwidth == 16 else number)(number), build


@instruction
def narrow(_context: Any, number: Any, like: Any) -> Any:
    """Round a float to the type of ``like``, to the nearest, ties to even."""

    def build(_: Any, builder: ir.IRBuilder, __: Any, arguments: Any) -> Any:
        value = arguments[0]
        if number == types.float64 and like != types.float64:
            value = builder.fptrunc(value, ir.FloatType())
        if like == types.uint16:
            return _to_bfloat16(builder, value)
        if like == types.int16:
            return builder.bitcast(builder.fptrunc(value, ir.HalfType()), ir.IntType(16))
        if number == types.float32 and like == types.float64:
            return builder.fpext(value, ir.DoubleType())
        return value

    return like(number, like), build


def _to_bfloat16(builder: ir.IRBuilder, value: Any) -> Any:
    bits = builder.bitcast(value, ir.IntType(32))
    lowest_kept = builder.and_(builder.lshr(bits, _word(16)), _word(1))
    rounded = builder.lshr(builder.add(bits, builder.add(lowest_kept, _word(0x7FFF))), _word(16))
    is_nan = builder.fcmp_unordered("uno", value, value)
    quiet_nan = _word(HALF_INFINITY | 0x40)
    return builder.trunc(builder.select(is_nan, quiet_nan, rounded), ir.IntType(16))


def _word(number: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), number)
