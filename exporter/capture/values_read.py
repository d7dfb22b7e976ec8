"""Values that a pipeline's own Python reads beside the methods of its components: code books, embeddings, a last norm.

A graph holds none of them: the pipeline computes with them itself. They are found while it runs on components without
values, get those that are stored, and travel in the bundle. What a run of a component leaves behind, such as attention
maps that a processor keeps, is in no artifact: a pipeline that reads it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from qdx.exporter.capture.calls import LiveCall
from qdx.exporter.capture.materialize import fill_named, replace_parameters
from qdx.exporter.capture.watched_mode import Operation, mark_origin, origin_of
from qdx.exporter.errors import Refusal, TargetRefusal, quoted
from qdx.exporter.limits import VALUES_READ_LIMIT_BYTES

if TYPE_CHECKING:
    from torch import nn

    from qdx.exporter.capture.skeleton import Skeleton

__all__ = ["ValuesRead", "asked_gradient", "check_no_gradient", "parameter_names"]

_DERIVED: Final = "?"
"""The origin of what the pipeline computed of parameters: read already."""
_LEFT_OUT: Final = (
    "leave the component out of the export with --components: it then runs in PyTorch"
)
_Result = TypeVar("_Result")


class ValuesRead:
    """Runs a pipeline without values, and gives it those that it reads itself.

    Args:
        skeleton: The pipeline; parameters that it reads are replaced by the stored ones until `restore`.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._found: dict[str, dict[str, None]] = {}
        self._fakes: dict[str, dict[str, nn.Parameter]] = {}

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the parameters that were read, by component."""
        return {component: tuple(names) for component, names in self._found.items()}

    def run(self, run: Callable[[], _Result]) -> _Result:
        """Runs the pipeline as often as it takes until it reads nothing that has no values.

        Args:
            run: One run from its beginning.

        Returns:
            What the last run returned.

        Raises:
            TargetRefusal: The pipeline reads what no artifact holds, or more than a bundle keeps beside its artifacts.
            InvalidModel: A stored value is missing or damaged.
        """
        while True:
            new: dict[str, dict[str, None]] = {}
            try:
                with self._skeleton.mode.watched(_watch(self._skeleton, new)):
                    result = run()
            except TargetRefusal:
                raise
            except Exception:
                if not new:
                    raise
                # Numbers without values fail in Python's own arithmetic; the next run has their values.
            else:
                if not new:
                    return result
            self._give(new)

    def restore(self) -> None:
        """Takes the values away again: graphs are traced without."""
        for component, fakes in self._fakes.items():
            replace_parameters(self._skeleton.modules[component], fakes)
        self._fakes.clear()

    def _give(self, new: Mapping[str, Mapping[str, None]]) -> None:
        for component, names in new.items():
            module = self._skeleton.modules[component]
            self._found.setdefault(component, {}).update(names)
            parameters = dict(module.named_parameters(remove_duplicate=False))
            kept = self._fakes.setdefault(component, {})
            for name in names:
                for other, parameter in parameters.items():
                    if parameter is parameters[name]:
                        kept.setdefault(other, parameter)
        self._check_size()
        for component, names in new.items():
            fill_named(self._skeleton.modules[component], self._skeleton, component, tuple(names))

    def _check_size(self) -> None:
        sizes = {
            f"{component}.{name}": parameter.numel() * parameter.element_size()
            for component, names in self._found.items()
            for name, parameter in self._skeleton.modules[component].named_parameters(
                remove_duplicate=False
            )
            if name in names
        }
        total = sum(sizes.values())
        if total <= VALUES_READ_LIMIT_BYTES:
            return
        largest = max(sizes, key=lambda name: sizes[name])
        raise TargetRefusal(
            f"{quoted(largest)}: the pipeline's own Python reads the values of this and of {len(sizes) - 1} other "
            f"parameters beside the components' methods, {total} bytes, and a bundle keeps at most "
            f"{VALUES_READ_LIMIT_BYTES} for it",
            refusals=(Refusal(largest, "its values are read outside the artifacts"),),
            hint=_LEFT_OUT,
        )


def asked_gradient(call: LiveCall) -> str:
    """The first argument with respect to which a gradient is recorded; empty where none is."""
    if not torch.is_grad_enabled():
        return ""
    leaves = call.leaves.items()
    return next(
        (n for n, leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad), ""
    )


def check_no_gradient(call: LiveCall) -> None:
    """Refuses a call through which the pipeline wants a gradient: artifacts compute forward only.

    Raises:
        TargetRefusal: Gradients are recorded and an argument asks for one.
    """
    if name := asked_gradient(call):
        raise TargetRefusal(
            f"{quoted(call.where)}: the pipeline asks for a gradient with respect to {quoted(name)}, "
            "and an artifact computes forward only",
            refusals=(Refusal(call.where, "a gradient through it is asked for"),),
            hint="choose a call, or a pipeline, that needs no gradient; one that steers by it runs in PyTorch alone",
        )


def parameter_names(modules: Mapping[str, nn.Module], tensor: torch.Tensor) -> tuple[str, str]:
    """The component and the name of a parameter, from the object; empty where it is no parameter."""
    for component, module in modules.items():
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if parameter is tensor:
                return component, name
    return "", ""


def _watch(skeleton: Skeleton, new: dict[str, dict[str, None]]) -> Callable[[Operation], Any]:
    """Notes parameters that are read in `new`, and refuses what is neither one nor computed of one."""

    def watch(operation: Operation) -> Any:
        origins = []
        for fake in operation.fakes:
            origin = origin_of(fake)
            if origin is None:
                component, name = parameter_names(skeleton.modules, fake)
                origin = f"{component}.{name}" if component else None
            if origin is None:
                raise _left_behind(skeleton, operation)
            origins.append(origin)
        if operation.shares_memory or operation.is_cast:
            return mark_origin(operation.compute(), origins[0])
        written = {id(one) for one in operation.written}
        for fake, origin in zip(operation.fakes, origins, strict=True):
            if origin == _DERIVED:
                continue
            if id(fake) in written:
                raise TargetRefusal(
                    f"{quoted(origin)}: the pipeline changes this parameter while it runs, "
                    "and an artifact computes with the stored values",
                    refusals=(Refusal(origin, "is changed while the pipeline runs"),),
                    hint=_LEFT_OUT,
                )
            component, _, name = origin.partition(".")
            new.setdefault(component, {})[name] = None
        return mark_origin(operation.compute(), _DERIVED)

    return watch


def _left_behind(skeleton: Skeleton, operation: Operation) -> TargetRefusal:
    name = skeleton.folder.pipeline_class
    return TargetRefusal(
        f"{name}: its own Python computes ({quoted(operation.name)}) with what a component's run left behind, such as "
        "attention maps that a processor keeps; an artifact gives its outputs and keeps nothing",
        refusals=(Refusal(name, "reads what a component computes inside"),),
        hint="choose a pipeline that reads the components' outputs alone; this one runs in PyTorch",
    )
