"""Call records: what a pipeline passes to a component, with tensors reduced to shape and dtype."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class CallRecord:
    """One call of one method of one component.

    Attributes:
        component: The pipeline's name for it, such as `unet`.
        method: `forward`, `encode`, `decode` or another public method.
        arguments: By parameter name; containers as they were passed, every tensor replaced by a meta
            tensor of its shape and dtype, everything else as it is.
        variant: 1, or more where the pipeline calls the method in ways that need graphs of their own.
        outputs: Shapes of the tensors that were answered.
        reads: Components whose answers are among the arguments as they were.
        state: What the pipeline had changed in the component, see `StateWatch`.
        module: The component as it was at the call, see `copy_of`; None for the one that the pipeline has.
        reads_results: Whether the component's Python reads what it computes from its weights.
        fixed: Tensors among the arguments on whose values the component's Python depends, with these values.
        varied: Names of the vectors among the arguments that hold several values: of steps that are computed together each has
            its own timestep.
    """

    component: str
    method: str
    arguments: dict[str, Any]
    variant: int = 1
    outputs: tuple[tuple[int, ...], ...] = ()
    reads: frozenset[str] = frozenset()
    state: Mapping[str, str] = field(default_factory=dict)
    module: nn.Module | None = field(default=None, repr=False, compare=False)
    fixed: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False, compare=False)
    reads_results: bool = False
    varied: frozenset[str] = frozenset()

    @property
    def leaves(self) -> dict[str, Any]:
        """The arguments' leaves, see `name_leaves`."""
        return name_leaves(self.arguments)

    @property
    def key(self) -> str:
        """`forward`, or `forward_2` for the second variant: the name of the graph within its component."""
        return self.method if self.variant == 1 else f"{self.method}_{self.variant}"

    @property
    def where(self) -> str:
        """`unet.forward`, for messages and for keys."""
        return f"{self.component}.{self.key}"

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors among the arguments that are no fixed ones, by the name that the graph's input will have."""
        return {
            name: leaf
            for name, leaf in name_leaves(self.arguments).items()
            if isinstance(leaf, torch.Tensor) and name not in self.fixed
        }

    def constants(self) -> dict[str, Any]:
        """Numbers, strings and flags among the arguments: baked into the graph."""
        return constants(self.arguments)

    def with_tensors(self, tensors: dict[str, torch.Tensor]) -> CallRecord:
        """The same call with the tensors of these names replaced."""
        return replace(self, arguments=substitute(self.arguments, tensors))


@dataclass(frozen=True)
class LiveCall:
    """One call of one method of one component, while a pipeline makes it.

    Attributes:
        component: The pipeline's name for it.
        method: The method.
        original: The bound method, which the caller meant.
        arguments: By parameter name, see `bind`.
        module: The component itself; None where nobody tells.
        changes: Tells what the pipeline has changed in it, see `StateWatch`.
    """

    component: str
    method: str
    original: Callable[..., Any]
    arguments: dict[str, Any]
    module: nn.Module | None = field(default=None, repr=False)
    changes: Callable[[], Mapping[str, str]] = dict

    @property
    def where(self) -> str:
        """`unet.forward`, without the suffix of a variant."""
        return f"{self.component}.{self.method}"

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """The arguments' leaves, see `name_leaves`."""
        return name_leaves(self.arguments)

    @cached_property
    def state(self) -> Mapping[str, str]:
        """What the pipeline has changed in the component."""
        return self.changes()

    def compute(self) -> Any:
        """What the method itself answers."""
        return self.original(**self.arguments)


def constants(arguments: dict[str, Any]) -> dict[str, Any]:
    """Numbers, strings and flags by name.

    `return_dict` is left out: it changes how the output is packed, not what it is. So are objects such as
    random generators: they are no part of a graph.
    """
    return {
        name: leaf
        for name, leaf in name_leaves(arguments).items()
        if isinstance(leaf, bool | int | float | str) and name != "return_dict"
    }


def describe(value: Any) -> Any:
    """A tensor as a meta tensor of its shape and dtype; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return torch.empty(tuple(value.shape), dtype=value.dtype, device="meta")
    return value


def bind(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by parameter name; those caught by `**kwargs` join under their own names.

    `args` holds no `self`. Methods that take `*args` are not used by diffusion components.
    """
    signature = inspect.signature(function)
    bound = signature.bind(*args, **kwargs).arguments
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            bound.update(bound.pop(parameter.name, {}))
    return dict(bound)


def name_leaves(tree: Any) -> dict[str, Any]:
    """Leaves of nested arguments by name.

    A leaf of a mapping takes its own key where that is unique (`added_cond_kwargs["text_embeds"]` is
    `text_embeds`, which is what every runtime calls it) and the dotted path otherwise; an element of a
    sequence takes its container's name and its index (`hidden_states.0`).
    """
    leaves, _ = pytree.tree_flatten_with_path(tree, is_leaf=lambda value: value is None)
    short = [_short_name(path) for path, _ in leaves]
    uses = Counter(short)
    return {
        name if uses[name] == 1 else ".".join(_key(part) for part in path): leaf
        for name, (path, leaf) in zip(short, leaves, strict=True)
    }


def substitute(tree: Any, values: dict[str, Any]) -> Any:
    """The same structure with the named leaves replaced."""
    _, structure = pytree.tree_flatten(tree, is_leaf=lambda value: value is None)
    return pytree.tree_unflatten(
        [values.get(name, leaf) for name, leaf in name_leaves(tree).items()], structure
    )


def _key(part: Any) -> str:
    """The printable key of one step of a path."""
    return str(getattr(part, "key", getattr(part, "idx", getattr(part, "name", part))))


def _short_name(path: tuple[Any, ...]) -> str:
    """The last named step of a path and the indices after it."""
    keys = [_key(part) for part in path]
    start = max((i for i, key in enumerate(keys) if not key.isdigit()), default=0)
    return ".".join(keys[start:])
