"""The names under which libraries have stored a parameter or buffer over time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from torch import nn

__all__ = ["renamed_by_transformers", "stored_names"]

# diffusers' attention before 0.15.
_RENAMED_ATTENTION: Final = (
    ("to_q", "query"),
    ("to_k", "key"),
    ("to_v", "value"),
    ("to_out.0", "proj_attn"),
)


def stored_names(module: nn.Module, name: str) -> Iterator[str]:
    """The names under which libraries have stored this parameter over time, most likely first."""
    yield name
    prefix = getattr(
        module, "base_model_prefix", ""
    )  # transformers: the model inside a model with a head
    if prefix:
        yield f"{prefix}.{name}"
        yield name.removeprefix(f"{prefix}.")
    yield f"text_model.{name}"  # CLIP text encoders saved before transformers 5
    for new, old in _RENAMED_ATTENTION:
        if f".{new}." in name:
            yield name.replace(f".{new}.", f".{old}.")


def renamed_by_transformers(module: nn.Module, stored: Iterable[str]) -> dict[str, list[str]]:
    """Stored names by today's name, for transformers models whose parameters were renamed over time."""
    if not type(module).__module__.startswith("transformers."):
        return {}
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [t for t in get_model_conversion_mapping(module) if isinstance(t, WeightRenaming)]
    if not renamings:
        return {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    prefix = getattr(module, "base_model_prefix", None)
    found: dict[str, list[str]] = {}
    for name in stored:
        today, _ = rename_source_key(name, renamings, [], prefix, parameters)
        found.setdefault(today, []).append(name)
    return found
