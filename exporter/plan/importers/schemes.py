"""Number formats of other tools as schemes of our rules, or the reason why there is none."""

from __future__ import annotations

from typing import Any, Final, get_args

from qdx.exporter.plan.schema.scheme import Block

__all__ = ["NoScheme", "by_block", "by_channel", "by_tensor", "integers", "scheme_words"]

Scheme = dict[str, Any]

_BLOCKS: Final[tuple[int, ...]] = get_args(Block)
_SIGNED: Final = (2, 3, 4, 5, 6, 8)


class NoScheme(ValueError):  # noqa: N818 - a value with a reason, as the house calls it
    """A format that our rules do not have; the text says why."""


def integers(bits: int, *, symmetric: bool) -> Scheme:
    """Whole numbers of so many bits.

    Raises:
        NoScheme: There are none of that width.
    """
    if bits not in _SIGNED:
        raise NoScheme(f"there are no integers of {bits} bits; there are those of {_SIGNED}")
    return {"dtype": f"int{bits}", "symmetric": symmetric}


def by_tensor(scheme: Scheme) -> Scheme:
    """A scheme with one scale."""
    return {**scheme, "granularity": "tensor"}


def by_channel(scheme: Scheme) -> Scheme:
    """A scheme with a scale for each output channel."""
    return {**scheme, "granularity": "channel"}


def by_block(scheme: Scheme, size: int) -> Scheme:
    """A scheme with a scale for each block along the dimension that is reduced.

    Raises:
        NoScheme: There are no blocks of that size.
    """
    if size not in _BLOCKS:
        raise NoScheme(f"there are no blocks of {size}; there are those of {_BLOCKS}")
    return {**scheme, "granularity": "block", "block": size}


def scheme_words(scheme: Scheme) -> str:
    """A scheme in a few words."""
    shared = {"tensor": "a scale of the tensor", "channel": "a scale for each channel"}
    parts = [str(scheme["dtype"])]
    granularity = scheme.get("granularity")
    if granularity == "block" and "block" in scheme:
        parts.append(f"blocks of {scheme['block']}")
    elif granularity == "token":
        parts.append("a scale for each token, at run time")
    elif granularity in shared:
        parts.append(shared[granularity])
    if scheme.get("symmetric") is False:
        parts.append("zero points")
    return ", ".join(parts)
