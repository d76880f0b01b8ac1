"""Operators of torch that models use and ONNX does not have, written in those that it has."""

from __future__ import annotations

from typing import Any

from onnxscript import opset20 as op

FLOAT64, INT32 = 11, 6  # as ONNX numbers its types


def exponent(seconds: Any) -> tuple[Any, Any]:
    """`torch.frexp` of numbers from 0 up: (mantissa, exponent), x = m * 2^e with m from 0.5 to below 1; 0 is 0 * 2^0."""
    number = op.Cast(seconds, to=FLOAT64)
    zero, one, two = (op.Cast(op.Constant(value_float=value), to=FLOAT64) for value in (0.0, 1.0, 2.0))
    positive = op.Where(op.Greater(number, zero), number, one)
    power = op.Add(op.Floor(op.Div(op.Log(positive), op.Log(two))), one)
    # A logarithm is rounded: next to a power of two it may fall on the other side.
    power = op.Where(op.GreaterOrEqual(positive, op.Pow(two, power)), op.Add(power, one), power)
    power = op.Where(op.Less(positive, op.Pow(two, op.Sub(power, one))), op.Sub(power, one), power)
    power = op.Where(op.Greater(number, zero), power, zero)
    return op.CastLike(op.Div(number, op.Pow(two, power)), seconds), op.Cast(power, to=INT32)
