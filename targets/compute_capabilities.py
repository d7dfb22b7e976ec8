"""Compute capabilities that TensorRT-RTX compiles engines for, and which of them one engine may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

__all__ = ["CLASSES", "lacks_float32_products", "least_of", "list_faults"]

CLASSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "7.5": "Turing",
        "8.0": "Ampere",
        "8.6": "Ampere",
        "8.9": "Ada",
        "12.0": "Blackwell",
        "12.1": "Blackwell",
    }
)
"""Generation by compute capability; those of one generation share their kernels."""


def lacks_float32_products(capabilities: Sequence[str]) -> bool:
    """Whether the builder compiles no matrix product in float32 for some of the devices, as for Turing."""
    return any(CLASSES.get(one) == "Turing" for one in capabilities)


def least_of(capabilities: Sequence[str]) -> tuple[int, int] | None:
    """The least of some compute capabilities; None where there are none."""
    numbers = [tuple(map(int, one.split("."))) for one in capabilities]
    return min(((major, minor) for major, minor in numbers), default=None)


def list_faults(capabilities: Sequence[str]) -> str:
    """What is wrong with a list of compute capabilities for one engine; nothing where it is right.

    An engine holds one program, which all of them run. A list of several generations therefore loses what the oldest
    lacks, without a word of the builder: with 7.5 among others no INT8 convolution is left, with 8.6 beside 8.9 no
    8-bit float.
    """
    unknown = [one for one in capabilities if one not in CLASSES]
    if unknown:
        return f"{unknown[0]!r} is not one that engines are compiled for, expected {', '.join(CLASSES)}"
    if len(set(capabilities)) < len(capabilities):
        return "names one twice"
    classes = dict.fromkeys(CLASSES[one] for one in capabilities)
    if len(classes) > 1:
        loss = "INT8 convolutions" if "Turing" in classes else "types of the newer ones"
        return (
            f"are of {' and '.join(classes)}: one engine has one program, which would go without the {loss}; build an "
            "engine for each, or leave the list empty for the least that holds the model's types and all after it"
        )
    return ""
