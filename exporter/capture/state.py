"""What a component's own Python decides besides its weights: the classes of its parts, their flags and their processors.

Pipelines change it while they run: perturbed attention puts other processors in for the length of a call. Two calls belong
to one graph only if the component was in the same state. Only what changed since the pipeline was opened is told, so that
another version of a library, whose parts have other attributes, changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

__all__ = ["PLAIN_ATTENTION", "StateWatch", "describe_state", "first_difference"]

GONE: Final = "(none)"
"""Stands for an attribute that a component has no longer."""

# A module's hooks run with it, so they count although they are private; its other private attributes are caches.
_REGISTRY: Final = "_diffusers_hook"
_HOOKS: Final = frozenset({"_forward_hooks", "_forward_pre_hooks", _REGISTRY})
_PLAIN: Final = frozenset({bool, int, float, str})
# What changes how a module computes and not what: memory traded for time in training, a batch in slices.
_NEVER: Final = frozenset({"training", "gradient_checkpointing", "use_slicing"})
PLAIN_ATTENTION: Final = {
    **dict.fromkeys(
        ("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor"),
        "attention as it is defined",
    ),
    **dict.fromkeys(
        ("AttnAddedKVProcessor", "AttnAddedKVProcessor2_0", "SlicedAttnAddedKVProcessor", "XFormersAttnAddedKVProcessor"),
        "attention with added keys, as it is defined",
    ),
}  # fmt: skip
"""What a processor computes that differs from others in memory or kernel alone; diffusers' switches exchange these."""
_DEPTH_LIMIT: Final = 4
_ITEMS_LIMIT: Final = 64


class StateWatch:
    """Tells what has changed of components since it was made.

    Args:
        modules: Components by name.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)
        self._first = {name: describe_state(module) for name, module in modules.items()}

    def changes(self, name: str) -> dict[str, str]:
        """What is otherwise in a component than at first, by `path.attribute`; empty where nothing is."""
        first, now = self._first[name], describe_state(self._modules[name])
        if first == now:
            return {}
        return {
            key: now.get(key, GONE)
            for key in sorted({*first, *now})
            if first.get(key) != now.get(key)
        }


def describe_state(module: nn.Module) -> dict[str, str]:
    """The classes of a module's parts, and their plain attributes, by `path.attribute`.

    Parameters, buffers and tensors are no part of it, and neither are private attributes but hooks.
    """
    found: dict[str, str] = {}
    known: dict[int, str | None] = {}
    for path, part in module.named_modules():
        found[path] = type(part).__qualname__
        prefix = f"{path}." if path else ""
        for name, value in vars(part).items():
            if name[0] == "_":
                text = _hooks(name, value) if name in _HOOKS else None
            elif value is None or type(value) in _PLAIN:
                text = None if name in _NEVER else repr(value)
            else:
                text = _object(value, known)
            if text is not None:
                found[prefix + name] = text
    return found


def first_difference(
    one: Mapping[str, str], other: Mapping[str, str]
) -> tuple[str, str | None, str | None]:
    """The first name, in order, at which two states differ, and both texts; None where a state does not change it."""
    key = next(key for key in sorted({*one, *other}) if one.get(key) != other.get(key))
    return key, one.get(key), other.get(key)


def _hooks(name: str, value: Any) -> str | None:
    """The functions that run with a module; None where there are none."""
    hooks = getattr(value, "hooks", {}) if name == _REGISTRY else value
    return ", ".join(map(_name, hooks.values())) or None


def _object(value: Any, known: dict[int, str | None]) -> str | None:
    """What a processor, a function or a container is; None for tensors, and for methods that are routed."""
    if id(value) not in known:
        known[id(value)] = None if hasattr(value, "behind") else _text(value, 0)
    return known[id(value)]


def _text(value: Any, depth: int) -> str | None:
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | enum.Enum):
        return repr(value)
    if isinstance(value, torch.Tensor | nn.Module) or depth > _DEPTH_LIMIT:
        return None
    if isinstance(value, list | tuple | set | frozenset | Mapping):
        return _container(value, depth)
    if type(value).__qualname__ in PLAIN_ATTENTION:
        return PLAIN_ATTENTION[type(value).__qualname__]
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    own = vars(value) if hasattr(value, "__dict__") else {}
    plain = {key: _text(one, depth + 1) for key, one in own.items() if not key.startswith("_")}
    told = ", ".join(f"{key}={text}" for key, text in sorted(plain.items()) if text is not None)
    return f"{type(value).__qualname__}({told})" if told else type(value).__qualname__


def _container(value: Any, depth: int) -> str | None:
    if len(value) > _ITEMS_LIMIT:
        return None
    if isinstance(value, Mapping):
        items = {str(key): _text(one, depth + 1) for key, one in value.items()}
        return str({key: text for key, text in sorted(items.items()) if text is not None})
    texts = [text for one in value if (text := _text(one, depth + 1)) is not None]
    return str(sorted(texts) if isinstance(value, set | frozenset) else texts)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
