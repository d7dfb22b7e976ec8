"""Kernels of a target in words: what runs in low precision, how, and why the rest does not."""

from __future__ import annotations

import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qdx.targets.kernels import Kernel

__all__ = ["kernels_words"]

_FORMS: Final = {
    "native": "native: the target's own low-precision kernel",
    "decomposed": "decomposed: low precision, from several of its operations",
    "simulated": "simulated: the values of the low precision, computed in a wider type",
    "stored": "stored: weights are stored in low precision and computed as floats",
    "refused": "refused: what the target cannot do",
}
_HEAD: Final = """\
what runs in low precision: the first row that fits an operation decides, by its number, and
where none fits the plan is refused"""
_COLUMNS: Final = (("row", 3), ("operations", 14), ("weights", 24), ("inputs", 18), ("why", 33))
"""Names and widths; with two spaces between them, 100 characters."""


def kernels_words(kernels: Sequence[Kernel]) -> str:
    """Returns the kernels that decide something as a table for each form, in lines of at most 100 characters."""
    from qdx.targets.kernels import reached

    found = reached(kernels)
    if not found:
        return "kernels  none: nothing runs in low precision"
    parts = [_HEAD]
    for form, title in _FORMS.items():
        rows = [(n, kernel) for n, kernel in found.items() if kernel.form == form]
        if rows:
            lines = [_line([name for name, _ in _COLUMNS])]
            lines += [line for n, kernel in rows for line in _lines(n, kernel)]
            parts.append("\n".join([title, *lines]))
    return "\n\n".join(parts)


def _lines(number: int, kernel: Kernel) -> Iterator[str]:
    cells = [
        str(number).rjust(_COLUMNS[0][1]),
        _operations(kernel),
        _weights(kernel),
        _inputs(kernel),
        "; ".join(_reasons(kernel)),
    ]
    wrapped = [
        textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
        if column
        else [cell]
        for column, (cell, (_, width)) in enumerate(zip(cells, _COLUMNS, strict=True))
    ]
    yield from map(_line, zip_longest(*wrapped, fillvalue=""))


def _line(cells: Sequence[str]) -> str:
    widths = [width for _, width in _COLUMNS]
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _operations(kernel: Kernel) -> str:
    return "; ".join([", ".join(kernel.op), *_conditions(kernel)])


def _conditions(kernel: Kernel) -> Iterator[str]:
    if kernel.head_multiple > 1:
        yield f"heads of a multiple of {kernel.head_multiple} channels"
    if kernel.head_limit is not None:
        yield f"heads of at most {kernel.head_limit} channels"
    if kernel.heads is not None:
        yield f"heads of {', '.join(map(str, kernel.heads))} channels"
    if kernel.keys_least:
        yield f"at least {kernel.keys_least} keys"
    if kernel.keys_limit is not None:
        yield f"at most {kernel.keys_limit} keys"
    if kernel.kernel_limit is not None and any(op.startswith("conv") for op in kernel.op):
        yield f"kernels of at most {kernel.kernel_limit} numbers"
    if kernel.storage is not None:
        yield f"in a component of {' or '.join(kernel.storage)}"


def _weights(kernel: Kernel) -> str:
    if kernel.weights == ("none",):
        return "-"
    scaled = [
        " or ".join(kernel.weight_granularity or ()),
        _symmetry(kernel.weight_symmetric),
        f"values in {' or '.join(kernel.weight_tables)}" if kernel.weight_tables else "",
        "blocks that divide the inputs" if kernel.whole_blocks else "",
        "blocks as long as a channel" if kernel.whole_channels else "",
    ]
    return "; ".join([_types(kernel.weights), *filter(None, scaled)])


def _inputs(kernel: Kernel) -> str:
    scaled = [" or ".join(kernel.input_granularity or ()), _symmetry(kernel.input_symmetric)]
    return "; ".join([_types(kernel.inputs), *filter(None, scaled)])


def _types(dtypes: Sequence[str] | None) -> str:
    if dtypes is None:
        return "any"
    return ", ".join("-" if dtype == "none" else dtype for dtype in dtypes)


def _symmetry(symmetric: bool | None) -> str:
    if symmetric is None:
        return ""
    return "symmetric" if symmetric else "with a zero point"


def _reasons(kernel: Kernel) -> Iterator[str]:
    yield kernel.why
    if kernel.stored is not None:
        yield f"stored as {kernel.stored}"
    if kernel.slower is not None:
        limit = kernel.slower_below_macs
        where = "" if limit is None else f" below {limit:,} multiply-accumulates"
        yield f"no faster than floats{where}: {kernel.slower}"
