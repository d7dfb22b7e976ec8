"""Options as the command line has them: ways to store weights and to read inputs, which plans can ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from qdx.analyze.analysis import Option
from qdx.exporter.dtypes import INPUT_DTYPES, number_type
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.formats.registry import format_of, quantized_dtypes
from qdx.exporter.formats.rounding import NEAREST
from qdx.exporter.model_faults import choices
from qdx.exporter.plan.schema.scheme import AskedInputs, AskedWeights

__all__ = ["candidates", "parse_option"]

_FEW_BITS: Final = 8
"""Below so many, the range of least error is finer than the one that holds every value."""
_CANDIDATES: Final = (
    "int8",
    "int4",
    "int4:block32",
    "int4:block128",
    "palette8",
    "palette6",
    "palette4",
    "palette3",
    "palette2",
    "palette1",
    "nvfp4",
    "mxfp8",
    "int8/int8",
    "int8/int8:token",
    "int4/int8",
    "float8_e4m3fn/float8_e4m3fn",
    "nvfp4/nvfp4",
    "mxfp8/mxfp8",
    "/int8",
    "/float8_e4m3fn",
)
"""What is asked of every operation; a target takes what it has kernels for."""
_PART: Final = re.compile(r"([a-z0-9_]+)(?::([a-z]+)([0-9]{0,9}))?", re.ASCII)
_RANK: Final = re.compile(r"rank([0-9]{1,4})", re.ASCII)
_GPTQ: Final = "gptq"
_FACTOR: Final = re.compile(r"([^*]*)\*([0-9]{1,2}(?:\.[0-9]{1,4})?)", re.ASCII)
_WRITTEN: Final = "WEIGHTS[:SHARED][*FACTOR][/INPUTS[:SHARED]][~rankN][~gptq], such as int4:block32, int3*1.2, int8/int8:token or int4~rank16~gptq"


def parse_option(text: str, *, simulated: bool = True) -> Option:
    """Reads an option as the command line has it.

    >>> parse_option("int4:block32").label
    'int4 block 32'

    Args:
        text: Types of weights and of inputs, and what shares a scale or a table: `int3`, `int4:block32`, `palette4:group16`,
            `int8/int8:token`; `/int8` for operations without weights. `int3*1.2` has the range that int3 chooses for each
            channel, times 1.2. `int4~gptq` has weights that are rounded by `gptq`, `int4/int8~rank16` those that are left
            beside a float branch of rank 16.
        simulated: See `Option`.

    Raises:
        UsageError: It is none.
    """
    types, *methods = text.split("~")
    weights_text, _, inputs_text = types.partition("/")
    weights = _weights(text, weights_text, _methods(text, methods)) if weights_text else None
    inputs = _inputs(text, inputs_text) if inputs_text else None
    if weights is None and inputs is None:
        raise _unreadable(text, "names no type")
    if weights is None and methods:
        raise _unreadable(text, f"{quoted(methods[0])} is a method for weights, and it has none")
    parts = [] if weights is None else [_weights_label(weights)]
    parts += [] if inputs is None else [_inputs_label(inputs)]
    label = " / ".join(parts) if weights is not None else f"inputs {parts[0]}"
    label = " + ".join([label, *_method_labels(weights)])
    return Option(id=0, label=label, weights=weights, inputs=inputs, simulated=simulated)


def candidates(asked: Sequence[str] | None) -> tuple[Option, ...]:
    """The options that are tried, without float: those asked for, or all that some target may offer.

    Raises:
        UsageError: One is not readable, or comes twice.
    """
    if asked is None:
        return tuple(parse_option(text, simulated=False) for text in _CANDIDATES)
    found: dict[str, Option] = {}
    for text in asked:
        option = parse_option(text.strip())
        if option.label in found:
            raise UsageError(f"--options: {quoted(text)} comes twice")
        found[option.label] = option
    return tuple(found.values())


def _methods(text: str, methods: Sequence[str]) -> dict[str, object]:
    """What methods ask of weights, by key of the plan; each comes once, in any order."""
    found: dict[str, object] = {}
    for method in methods:
        rank = _RANK.fullmatch(method)
        if method == _GPTQ:
            own: dict[str, object] = {"rounding": method}
        elif rank is not None:
            own = {"low_rank": {"rank": int(rank[1])}}
        elif method == "adaround":
            why = (
                "learns the weights of a block together, and options are chosen for each by itself"
            )
            raise _unreadable(text, f"{quoted(method)} {why}")
        else:
            raise _unreadable(text, f"{quoted(method)} is not a method", (_GPTQ, "rankN"))
        if own.keys() & found.keys():
            raise _unreadable(text, f"{quoted(method)} comes after another of its kind")
        found |= own
    return found


def _weights(text: str, part: str, methods: Mapping[str, object]) -> AskedWeights:
    factor = _FACTOR.fullmatch(part)
    dtype, shared, number = _read(text, part if factor is None else factor[1])
    if dtype not in quantized_dtypes():
        raise _unreadable(text, f"{quoted(dtype)} is not a type of weights", quantized_dtypes())
    found: dict[str, object] = {"dtype": dtype}
    fixed = bool(number_type(dtype).block)
    is_table = dtype.startswith("palette")
    match shared, bool(number):
        case "", False:
            if not fixed:
                found["granularity"] = "tensor" if is_table else "channel"
        case (("tensor" | "channel"), False):
            found["granularity"] = shared
        case "block", True:
            found |= {"granularity": "block", "block": int(number)}
        case "group", True:
            found |= {"granularity": "grouped_channel", "group": int(number)}
        case _:
            raise _unreadable(text, f"{quoted(part)} says nothing that shares a scale")
    if not fixed and not is_table and not number_type(dtype).is_float:
        few = number_type(dtype).bits < _FEW_BITS
        found |= {"symmetric": True, "observer": "mse" if few else "minmax"}
    if dtype == "nvfp4":
        found["observer"] = "mse"
    if factor is not None:
        found["range_factor"] = float(factor[2])
    found |= methods
    try:
        asked = AskedWeights.model_validate(found)
    except ValidationError as bad:
        raise _unreadable(text, bad.errors()[0]["msg"]) from None
    fault = next(format_of(dtype).faults(asked, set(found) - {"dtype"}), None)
    if fault is not None:
        raise _unreadable(text, fault.words)
    return asked


def _inputs(text: str, part: str) -> AskedInputs:
    dtype, shared, number = _read(text, part)
    known = tuple(one for one in INPUT_DTYPES if one != "float32")
    if dtype not in known:
        raise _unreadable(text, f"{quoted(dtype)} is not a type of inputs", known)
    found: dict[str, object] = {"dtype": dtype}
    in_blocks = bool(number_type(dtype).block)
    match shared, bool(number):
        case "", False if in_blocks:
            found |= {"granularity": "block", "mode": "dynamic"}
        case (("" | "tensor"), False) if not in_blocks:
            found |= {"observer": "minmax" if "float" in dtype else "mse"}
        case "token", False if not in_blocks:
            found |= {"granularity": "token", "mode": "dynamic"}
        case "groups", True if not in_blocks:
            found |= {"observer": "mse", "timestep_groups": int(number)}
        case _:
            raise _unreadable(text, f"{quoted(part)} says nothing that shares a scale")
    try:
        return AskedInputs.model_validate(found)
    except ValidationError as bad:
        raise _unreadable(text, bad.errors()[0]["msg"]) from None


def _read(text: str, part: str) -> tuple[str, str, str]:
    match = _PART.fullmatch(part)
    if match is None:
        raise _unreadable(text, f"{quoted(part)} cannot be read")
    return match[1], match[2] or "", match[3] or ""


def _unreadable(text: str, why: str, known: Sequence[str] = ()) -> UsageError:
    hint = f"there are {choices(known)}" if known else f"write {_WRITTEN}"
    return UsageError(f"--options: {quoted(text)}: {why}", hint=hint)


def _inputs_label(asked: AskedInputs) -> str:
    groups = asked.timestep_groups
    return f"{asked.dtype} {asked.granularity}{f' in {groups} groups' if groups > 1 else ''}"


def _weights_label(asked: AskedWeights) -> str:
    return " ".join(_label_parts(asked))


def _label_parts(asked: AskedWeights) -> Iterator[str]:
    yield asked.dtype
    if asked.group is not None:
        yield f"group {asked.group}"
    elif asked.granularity is not None:
        yield asked.granularity
    if asked.block is not None:
        yield str(asked.block)
    if asked.range_factor != 1:
        yield f"x{asked.range_factor:g}"


def _method_labels(asked: AskedWeights | None) -> Iterator[str]:
    if asked is not None and asked.low_rank is not None:
        yield f"rank {asked.low_rank.rank}"
    if asked is not None and asked.rounding != NEAREST:
        yield asked.rounding
