"""Prompts of twice as many tokens, as embeddings come that are not a text encoder's own: weighted and long prompts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.exporter.capture.media import call_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["longer_prompts", "takes_longer_prompts"]

_ENCODE: Final = "encode_prompt"
_SEQUENCE_RANK: Final = 3


def takes_longer_prompts(pipeline: Any) -> bool:
    """Whether embeddings of other lengths than a tokenizer's can come in; where a length is an argument, it moves anyway."""
    names = call_parameters(pipeline).keys()
    return (
        "prompt_embeds" in names
        and "max_sequence_length" not in names
        and hasattr(pipeline, _ENCODE)
    )


@contextmanager
def longer_prompts(pipeline: Any) -> Iterator[None]:
    """While active, encoding a prompt answers with every sequence of embeddings, and its mask, twice over."""
    encode = getattr(pipeline, _ENCODE)

    def twice(*args: Any, **kwargs: Any) -> Any:
        found = encode(*args, **kwargs)
        if not isinstance(found, tuple):
            return _twice(found, frozenset())
        lengths = frozenset(one.shape[1] for one in found if _is_sequence(one))
        return tuple(_twice(one, lengths) for one in found)

    setattr(pipeline, _ENCODE, twice)
    try:
        yield
    finally:
        delattr(pipeline, _ENCODE)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == _SEQUENCE_RANK


def _twice(value: Any, lengths: frozenset[int]) -> Any:
    is_mask = (
        isinstance(value, torch.Tensor)
        and value.dim() == _SEQUENCE_RANK - 1
        and not value.is_floating_point()
        and value.shape[1] in lengths
    )
    return torch.cat([value, value], dim=1) if _is_sequence(value) or is_mask else value
