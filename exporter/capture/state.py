"""What a component's own Python decides besides its weights: the classes of its parts, their flags and their processors.

Pipelines change it while they run: perturbed attention puts other processors in for the length of a call. Two calls belong
to one graph only if the component was in the same state. Only what changed since the pipeline was opened is told, so that
another version of a library, whose parts have other attributes, changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["StateWatch", "describe_state", "first_difference"]

GONE: Final = "(none)"
"""Stands for an attribute that a component has no longer."""

# A module's hooks run with it, so they count although they are private; its other private attributes are caches.
_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks")
_REGISTRY: Final = "_diffusers_hook"
_NEVER: Final = frozenset({"training", "gradient_checkpointing"})
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
        for name, value in vars(part).items():
            text = _attribute(name, value, known)
            if text is not None:
                found[f"{path}.{name}" if path else name] = text
    return found


def first_difference(
    one: Mapping[str, str], other: Mapping[str, str]
) -> tuple[str, str | None, str | None]:
    """The first name, in order, at which two states differ, and both texts; None where a state does not change it."""
    key = next(key for key in sorted({*one, *other}) if one.get(key) != other.get(key))
    return key, one.get(key), other.get(key)


def _attribute(name: str, value: Any, known: dict[int, str | None]) -> str | None:
    """An attribute's text; None for one that is no part of the state."""
    if name in _HOOKS:
        return _names(value.values()) if value else None
    if name == _REGISTRY:
        return _names(getattr(value, "hooks", {}).values()) or None
    if name.startswith("_") or name in _NEVER or hasattr(value, "behind"):
        return None
    if isinstance(value, bool | int | float | str) or value is None:
        return repr(value)
    if id(value) not in known:
        known[id(value)] = _text(value, 0)
    return known[id(value)]


def _text(value: Any, depth: int) -> str | None:
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | enum.Enum):
        return repr(value)
    if isinstance(value, torch.Tensor | nn.Module) or depth > _DEPTH_LIMIT:
        return None
    if isinstance(value, list | tuple | set | frozenset | Mapping):
        return _container(value, depth)
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


def _names(functions: Iterable[Any]) -> str:
    return ", ".join(getattr(one, "__qualname__", type(one).__qualname__) for one in functions)
