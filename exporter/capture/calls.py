"""Call records: what a pipeline passes to a component, with tensors reduced to shape and dtype."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils import _pytree as pytree

from qdx.exporter.graph.ir.graph import without_variant


@dataclass(frozen=True)
class CallRecord:
    """One call of one method of one component.

    Attributes:
        component: The pipeline's name for it, such as `unet`.
        method: `forward`, `encode`, `decode` or another public method.
        arguments: By parameter name; containers as they were passed, every tensor replaced by a meta
            tensor of its shape and dtype, everything else as it is.
        variant: 1, or more where the pipeline calls the method with different sets of tensors: each
            set is a graph of its own.
        outputs: Shapes of the tensors that were answered.
        reads: Components whose answers are among the arguments as they were.
    """

    component: str
    method: str
    arguments: dict[str, Any]
    variant: int = 1
    outputs: tuple[tuple[int, ...], ...] = ()
    reads: frozenset[str] = frozenset()

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
        """The tensors among the arguments, by the name that the graph's input will have."""
        return {
            name: leaf
            for name, leaf in name_leaves(self.arguments).items()
            if isinstance(leaf, torch.Tensor)
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
    """

    component: str
    method: str
    original: Callable[..., Any]
    arguments: dict[str, Any]

    @property
    def where(self) -> str:
        """`unet.forward`, without the suffix of a variant."""
        return f"{self.component}.{self.method}"

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """The arguments' leaves, see `name_leaves`."""
        return name_leaves(self.arguments)

    def variant(self, inputs: Mapping[str, AbstractSet[str]]) -> str | None:
        """The graph that the call belongs to, see `choose_variant`."""
        return choose_variant(inputs, self.where, self.leaves)

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


def one_call_each(records: list[CallRecord]) -> dict[str, CallRecord]:
    """One representative record per component, method and set of tensors, in order of first use.

    A number that differs between calls (a timestep passed as a float) must not be baked into the graph:
    it becomes a scalar tensor.
    """
    groups: dict[tuple[str, str, frozenset[str]], list[CallRecord]] = {}
    for record in records:
        groups.setdefault(
            (record.component, record.method, frozenset(record.tensors())), []
        ).append(record)
    variants: Counter[tuple[str, str]] = Counter()
    chosen: dict[str, CallRecord] = {}
    for (component, method, _), group in groups.items():
        variants[component, method] += 1
        record = replace(_representative(group), variant=variants[component, method])
        chosen[record.where] = record
    return chosen


def choose_variant(
    inputs: Mapping[str, AbstractSet[str]], where: str, leaves: Mapping[str, Any]
) -> str | None:
    """The graph that a call belongs to.

    Args:
        inputs: Names of every graph's inputs, by `component.method`, with the suffix of a variant.
        where: The method called, without one.
        leaves: The call's arguments, see `name_leaves`.

    Returns:
        The variant that takes just the tensors of this call, and of its numbers as few as may be; the
        first variant where none does, and None where there is none.
    """
    variants = [key for key in inputs if where in (key, without_variant(key))]
    tensors = {name for name, leaf in leaves.items() if isinstance(leaf, torch.Tensor)}
    numbers = {name for name, leaf in leaves.items() if isinstance(leaf, int | float)}
    fitting = [key for key in variants if tensors <= inputs[key] <= tensors | numbers]
    return min(fitting, key=lambda key: len(inputs[key]), default=next(iter(variants), None))


def _representative(group: list[CallRecord]) -> CallRecord:
    """The first record, with the numbers that move between records as scalar tensors."""
    first = group[0]
    leaves = [name_leaves(record.arguments) for record in group]
    moving: dict[str, Any] = {}
    for name, leaf in leaves[0].items():
        others = [other.get(name) for other in leaves[1:]]
        if (
            isinstance(leaf, bool)
            or not isinstance(leaf, int | float)
            or all(o == leaf for o in others)
        ):
            continue
        dtype = torch.int64 if all(isinstance(o, int) for o in (leaf, *others)) else torch.float32
        moving[name] = torch.empty((), dtype=dtype, device="meta")
    return replace(first, arguments=substitute(first.arguments, moving))
