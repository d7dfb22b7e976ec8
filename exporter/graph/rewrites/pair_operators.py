"""What operators on complex numbers are on pairs of reals: one rule for each name of an operator.

A rule is given the arguments of a node with a `Pair` in the place of each complex tensor, and answers a pair, or a node
where the result is real.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch.fx import Node

from qdx.exporter.graph.analysis.flow import words
from qdx.exporter.graph.rewrites.pairs import REAL_DTYPES, Calls, Number, Pair, mapped

__all__ = ["RULES"]

aten = torch.ops.aten

Rule = Callable[..., Any]


def _both(calls: Calls, *args: Any, **kwargs: Any) -> Any:
    """An operator that moves, adds or averages: on each part for itself."""
    op = calls.node.target
    pairs = mapped(lambda v: calls.lifted(v) if _is_float(v) else v, (args, kwargs))
    if not calls.is_complex and op is not operator.getitem:
        pairs = (args, kwargs)  # a real tensor that takes the shape of a complex one
    real, imaginary = (mapped(_part(name), pairs) for name in ("real", "imaginary"))
    found = calls(op, *real[0], **real[1])
    if not calls.is_complex:
        return found
    return Pair(found, calls(op, *imaginary[0], **imaginary[1]))


def _part(name: str) -> Callable[[Any], Any]:
    def part(value: Any) -> Any:
        if isinstance(value, Pair):
            return getattr(value, name)
        return REAL_DTYPES.get(value, value) if isinstance(value, torch.dtype) else value

    return part


def _is_float(value: Any) -> bool:
    found = value.meta.get("val") if isinstance(value, Node) else None
    return isinstance(found, torch.Tensor) and found.is_floating_point()


def _parts(value: Any) -> tuple[Any, Any]:
    """Real and imaginary part of a pair, a real node or a number; None for an imaginary part of zero."""
    if isinstance(value, Pair):
        return value.real, value.imaginary
    if isinstance(value, complex):
        return value.real, value.imag or None
    return value, None


def _mul(calls: Calls, one: Any, other: Any) -> Pair:
    return _bilinear(calls, lambda a, b: _scaled(calls, a, b), one, other)


def _scaled(calls: Calls, a: Any, b: Any) -> Node:
    """A product, of which one side may be a number."""
    return calls(aten.mul.Tensor, *((a, b) if isinstance(a, Node) else (b, a)))


def _bilinear(calls: Calls, product: Callable[[Any, Any], Node], one: Any, other: Any) -> Pair:
    (a, b), (c, d) = _parts(one), _parts(other)
    if b is None and d is None:
        return calls.lifted(product(a, c))
    if d is None:
        return Pair(product(a, c), product(b, c))
    if b is None:
        return Pair(product(a, c), product(a, d))
    real = calls(aten.sub.Tensor, product(a, c), product(b, d))
    return Pair(real, calls(aten.add.Tensor, product(a, d), product(b, c)))


def _product(calls: Calls, *args: Any) -> Pair:
    """An operator that is linear in each of its first two tensors."""
    one, other, *rest = args
    op = calls.node.target
    return _bilinear(calls, lambda a, b: calls(op, a, b, *rest), one, other)


def _einsum(calls: Calls, equation: str, tensors: list[Any], **kwargs: Any) -> Pair:
    if len(tensors) == 1:
        real, imaginary = _parts(tensors[0])
        return Pair(*(calls(aten.einsum.default, equation, [x]) for x in (real, imaginary)))
    if len(tensors) != 2 or any(value is not None for value in kwargs.values()):
        raise NotImplementedError
    return _bilinear(
        calls, lambda a, b: calls(aten.einsum.default, equation, [a, b]), tensors[0], tensors[1]
    )


def _linear(calls: Calls, x: Any, weight: Any, bias: Any = None) -> Pair:
    found = _bilinear(calls, lambda a, b: calls(aten.linear.default, a, b), x, weight)
    return found if bias is None else _add(calls, found, bias)


def _squares(calls: Calls, pair: Pair) -> Node:
    """The square of the magnitude."""
    squares = (calls(aten.mul.Tensor, one, one) for one in (pair.real, pair.imaginary))
    return calls(aten.add.Tensor, *squares)


def _div(calls: Calls, above: Any, below: Any, *, rounding_mode: str | None = None) -> Pair:
    if rounding_mode is not None:
        raise NotImplementedError
    if not isinstance(below, Pair):
        if isinstance(below, complex):
            return _mul(calls, above, 1 / below)
        return Pair(*(calls(aten.div.Tensor, x, below) for x in (above.real, above.imaginary)))
    found = _mul(calls, above, _conj(calls, below))
    square = _squares(calls, below)
    return Pair(*(calls(aten.div.Tensor, x, square) for x in (found.real, found.imaginary)))


def _reciprocal(calls: Calls, x: Pair) -> Pair:
    return _div(calls, 1.0, x)


def _add(calls: Calls, one: Any, other: Any, *, alpha: Number = 1) -> Pair:
    return _sum(calls, aten.add.Tensor, one, other, alpha)


def _sub(calls: Calls, one: Any, other: Any, *, alpha: Number = 1) -> Pair:
    return _sum(calls, aten.sub.Tensor, one, other, alpha)


def _rsub(calls: Calls, one: Any, other: Any, alpha: Number = 1) -> Pair:
    taken = _negated(calls, one if alpha == 1 else _mul(calls, one, alpha))
    return _sum(calls, aten.add.Tensor, taken, other, 1)


def _sum(calls: Calls, op: Any, one: Any, other: Any, alpha: Number) -> Pair:
    if alpha != 1:
        other = _mul(calls, other, alpha) if isinstance(other, Pair | Node) else other * alpha
    if not isinstance(one, Pair | Node):
        one = _filled(calls, one)
    if isinstance(other, Pair | Node):
        left, right = calls.lifted(one), calls.lifted(other)
        return Pair(calls(op, left.real, right.real), calls(op, left.imaginary, right.imaginary))
    left, (real, imaginary) = calls.lifted(one), _parts(other)
    second = left.imaginary if imaginary is None else calls(op, left.imaginary, imaginary)
    return Pair(calls(op, left.real, real), second)


def _filled(calls: Calls, number: Number) -> Pair:
    """A number as a pair of tensors without dimensions."""
    dtype = calls.dtype
    return Pair(
        *(
            calls(aten.scalar_tensor.default, part or 0.0, dtype=dtype)
            for part in _parts(complex(number))
        )
    )


def _negated(calls: Calls, x: Pair) -> Pair:
    return Pair(*(calls(aten.neg.default, part) for part in (x.real, x.imaginary)))


def _conj(calls: Calls, x: Any) -> Any:
    return Pair(x.real, calls(aten.neg.default, x.imaginary)) if isinstance(x, Pair) else x


def _same(calls: Calls, x: Any) -> Any:  # noqa: ARG001  # as every rule
    return x


def _polar(calls: Calls, magnitude: Node, angle: Node) -> Pair:
    return Pair(
        calls(aten.mul.Tensor, magnitude, calls(aten.cos.default, angle)),
        calls(aten.mul.Tensor, magnitude, calls(aten.sin.default, angle)),
    )


def _complex(calls: Calls, real: Node, imaginary: Node) -> Pair:
    same = real.meta["val"].shape == imaginary.meta["val"].shape
    if same:
        return Pair(real, imaginary)
    return Pair(
        calls(aten.add.Tensor, real, calls(aten.zeros_like.default, imaginary)),
        calls(aten.add.Tensor, imaginary, calls(aten.zeros_like.default, real)),
    )


def _view_as_complex(calls: Calls, x: Node) -> Pair:
    return Pair(*(calls(aten.select.int, x, -1, part) for part in (0, 1)))


def _view_as_real(calls: Calls, x: Pair) -> Node:
    return calls(aten.stack.default, [x.real, x.imaginary], -1)


def _view(calls: Calls, x: Any, *args: Any) -> Any:
    """A view in another shape, or of the same bytes as another type."""
    if args and isinstance(args[0], torch.dtype):
        wanted = args[0]
        if isinstance(x, Pair) and wanted == x.real.meta["val"].dtype:
            return calls(aten.flatten.using_ints, _view_as_real(calls, x), -2, -1)
        if isinstance(x, Node) and REAL_DTYPES.get(wanted) == x.meta["val"].dtype:
            return Pair(*(calls(aten.slice.Tensor, x, -1, part, None, 2) for part in (0, 1)))
        raise NotImplementedError
    return _both(calls, x, *args)


def _real(calls: Calls, x: Any) -> Any:  # noqa: ARG001  # as every rule
    return x.real if isinstance(x, Pair) else x


def _imag(calls: Calls, x: Pair) -> Node:  # noqa: ARG001  # as every rule
    return x.imaginary


def _abs(calls: Calls, x: Pair) -> Node:
    return calls(aten.sqrt.default, _squares(calls, x))


def _angle(calls: Calls, x: Pair) -> Node:
    return calls(aten.atan2.default, x.imaginary, x.real)


def _exp(calls: Calls, x: Pair) -> Pair:
    return _polar(calls, calls(aten.exp.default, x.real), x.imaginary)


def _log(calls: Calls, x: Pair) -> Pair:
    return Pair(calls(aten.log.default, _abs(calls, x)), _angle(calls, x))


def _sqrt(calls: Calls, x: Pair) -> Pair:
    half = calls(aten.mul.Tensor, _angle(calls, x), 0.5)
    return _polar(calls, calls(aten.sqrt.default, _abs(calls, x)), half)


def _square(calls: Calls, x: Pair) -> Pair:
    return _mul(calls, x, x)


_MOST_FACTORS: Final = 8


def _pow(calls: Calls, x: Any, exponent: Any) -> Pair:
    if not isinstance(x, Pair) or isinstance(exponent, Pair | Node | complex):
        raise NotImplementedError
    if exponent == int(exponent) and 1 <= exponent <= _MOST_FACTORS:
        found = x
        for _ in range(int(exponent) - 1):
            found = _mul(calls, found, x)
        return found
    magnitude = calls(aten.pow.Tensor_Scalar, _abs(calls, x), exponent)
    return _polar(calls, magnitude, calls(aten.mul.Tensor, _angle(calls, x), exponent))


def _sgn(calls: Calls, x: Pair) -> Pair:
    length = _abs(calls, x)
    nothing = calls(aten.eq.Scalar, length, 0)
    safe = calls(aten.add.Tensor, length, calls(aten.to.dtype, nothing, length.meta["val"].dtype))
    return Pair(*(calls(aten.div.Tensor, part, safe) for part in (x.real, x.imaginary)))


def _where(calls: Calls, condition: Node, one: Any, other: Any) -> Pair:
    left, right = (
        calls.lifted(x if isinstance(x, Pair | Node) else _filled(calls, x)) for x in (one, other)
    )
    return Pair(
        calls(aten.where.self, condition, left.real, right.real),
        calls(aten.where.self, condition, left.imaginary, right.imaginary),
    )


def _masked_fill(calls: Calls, x: Any, mask: Node, value: Any) -> Pair:
    return _where(calls, mask, value, x)


def _to(calls: Calls, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Another type, or another device, which a graph does not have."""
    del args, kwargs
    dtype = calls.dtype
    if not isinstance(x, Pair):
        x = calls.lifted(_typed(calls, x, dtype))
    if not calls.is_complex:
        return _typed(calls, x.real, dtype)
    return Pair(_typed(calls, x.real, dtype), _typed(calls, x.imaginary, dtype))


def _typed(calls: Calls, x: Node, dtype: torch.dtype | None) -> Node:
    return x if x.meta["val"].dtype == dtype else calls(aten.to.dtype, x, dtype)


def _made(calls: Calls, *args: Any, **kwargs: Any) -> Any:
    """A tensor filled with one number, by its shape or like another tensor."""
    op = calls.node.target
    given, options = mapped(_part("real"), (args, kwargs))
    options = {key: value for key, value in options.items() if key != "requires_grad"}
    options["dtype"] = calls.dtype
    numbers = [_parts(one) for one in given]
    found = calls(op, *(real for real, _ in numbers), **options)
    if not calls.is_complex:
        return found
    if not any(isinstance(one, complex) and one.imag for one in given):
        return Pair(found, calls(aten.zeros_like.default, found))
    second = (one.imag if isinstance(one, complex) else one for one in given)
    return Pair(found, calls(op, *second, **options))


def _equal(calls: Calls, one: Any, other: Any) -> Node:
    return calls(aten.logical_and.default, *_compared(calls, aten.eq.Tensor, one, other))


def _unequal(calls: Calls, one: Any, other: Any) -> Node:
    return calls(aten.logical_or.default, *_compared(calls, aten.ne.Tensor, one, other))


def _compared(calls: Calls, op: Any, one: Any, other: Any) -> tuple[Node, Node]:
    left, right = (
        calls.lifted(x if isinstance(x, Pair | Node) else _filled(calls, x)) for x in (one, other)
    )
    return calls(op, left.real, right.real), calls(op, left.imaginary, right.imaginary)


def _either(calls: Calls, x: Pair) -> Node:
    """Whether one part is so."""
    op = calls.node.target
    return calls(aten.logical_or.default, calls(op, x.real), calls(op, x.imaginary))


def _neither(calls: Calls, x: Pair) -> Node:
    """Whether both parts are so."""
    op = calls.node.target
    return calls(aten.logical_and.default, calls(op, x.real), calls(op, x.imaginary))


def _shape(calls: Calls, x: Any, *args: Any) -> Any:
    """A number about the shape."""
    return calls(calls.node.target, _part("real")(x), *args)


def _pad(calls: Calls, x: Pair, size: Any, *rest: Any, **kwargs: Any) -> Pair:
    given = (*rest, *kwargs.values())
    number = next((one for one in given if isinstance(one, int | float | complex)), 0)
    if number:
        raise NotImplementedError
    return _both(calls, x, size, *rest, **kwargs)  # type: ignore[no-any-return]


def _pad_sequence(
    calls: Calls,
    sequences: list[Any],
    batch_first: bool = False,  # noqa: FBT001, FBT002  # ATen's signature
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Pair:
    """Tensors of different lengths, each filled up to the longest."""
    lengths = [_part("real")(one).meta["val"].shape[0] for one in sequences]
    if padding_value or any(type(length) is not int for length in lengths):
        raise NotImplementedError
    filled: tuple[list[Node], list[Node]] = ([], [])
    for sequence, length in zip(map(calls.lifted, sequences), lengths, strict=True):
        missing = max(lengths) - length
        sides = [0, missing] if padding_side == "right" else [missing, 0]
        others = [0, 0] * (sequence.real.meta["val"].dim() - 1)
        for parts, part in zip(filled, (sequence.real, sequence.imaginary), strict=True):
            padded = (
                calls(aten.constant_pad_nd.default, part, [*others, *sides]) if missing else part
            )
            parts.append(padded)
    return Pair(*(calls(aten.stack.default, parts, 0 if batch_first else 1) for parts in filled))


_EACH: Final = words(
    "alias broadcast_to cat chunk clone column_stack concat concatenate contiguous copy cumsum detach detach_ diagonal "
    "diff dropout expand expand_as flatten flip getitem gather hstack index index_add index_copy index_put index_select "
    "lift_fresh lift_fresh_copy mean movedim moveaxis mT narrow neg negative numpy_T permute pixel_shuffle "
    "pixel_unshuffle ravel repeat repeat_interleave reshape reshape_as roll rot90 scatter select select_copy "
    "select_scatter slice slice_scatter split split_with_sizes squeeze squeeze_copy stack sum swapaxes swapdims t take "
    "tensor_split tile transpose tril triu unbind unflatten unfold unsqueeze unsafe_chunk unsafe_split vstack view_as "
    "_reshape_alias _unsafe_view"
)
"""What moves numbers without looking at them, or adds them up."""
_MADE: Final = words(
    "empty empty_like full full_like new_empty new_full new_ones new_zeros ones ones_like scalar_tensor zeros zeros_like"
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        **dict.fromkeys(_EACH, _both),
        **dict.fromkeys(_MADE, _made),
        **dict.fromkeys(words("mul multiply"), _mul),
        **dict.fromkeys(words("bmm dot ger inner kron matmul mm mv outer tensordot"), _product),
        **dict.fromkeys(words("div divide true_divide"), _div),
        **dict.fromkeys(words("sub subtract"), _sub),
        **dict.fromkeys(words("_conj _conj_physical conj conj_physical"), _conj),
        **dict.fromkeys(words("resolve_conj resolve_neg"), _same),
        **dict.fromkeys(words("_to_copy to type_as"), _to),
        **dict.fromkeys(words("constant_pad_nd pad"), _pad),
        **dict.fromkeys(words("isnan isinf"), _either),
        **dict.fromkeys(words("sym_numel sym_size"), _shape),
        "abs": _abs,
        "add": _add,
        "angle": _angle,
        "complex": _complex,
        "einsum": _einsum,
        "eq": _equal,
        "exp": _exp,
        "imag": _imag,
        "isfinite": _neither,
        "linear": _linear,
        "log": _log,
        "masked_fill": _masked_fill,
        "ne": _unequal,
        "pad_sequence": _pad_sequence,
        "polar": _polar,
        "pow": _pow,
        "real": _real,
        "reciprocal": _reciprocal,
        "rsub": _rsub,
        "sgn": _sgn,
        "sqrt": _sqrt,
        "square": _square,
        "view": _view,
        "view_as_complex": _view_as_complex,
        "view_as_real": _view_as_real,
        "where": _where,
    }
)
"""By the name of the operator, whatever its overload."""
