"""What is done to an opened pipeline and cannot have an effect is refused when it is done.

Its components hold no values: those are in the artifacts. Operations on them are seen by the fake mode that they belong
to; methods that would load adapters, or move a component, are refused by themselves, where the message comes early.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final, NoReturn

import torch

from qdx.exporter.capture.values_read import parameter_names
from qdx.exporter.capture.watched_mode import Operation, mark_origin, origin_of
from qdx.exporter.errors import UsageError, quoted

if TYPE_CHECKING:
    from qdx.exporter.capture.skeleton import Skeleton

__all__ = ["refuse_without_effect"]

# What diffusers' mixins for adapters and embeddings call their methods; what only tells or takes away stays.
_LOADER: Final = re.compile(
    r"Lora|TextualInversion|IPAdapter|IP_Adapter|PeftAdapter|FreeU", re.IGNORECASE
)
_CHANGES: Final = re.compile(r"(load|fuse|set|add|enable|disable|hotswap)_")
_OFFLOADS: Final = re.compile(r"enable_.*offload\Z")
_EXPORT_AGAIN: Final = (
    "do it before the export: `qdx export --lora FILE` merges a LoRA, and with --lora-ready RANK an artifact takes some when "
    "it runs; anything else is done in diffusers (load the "
    "original pipeline, change it, fuse and unload adapters), saved with save_pretrained and exported from that folder"
)


def refuse_without_effect(skeleton: Skeleton, exported: AbstractSet[str]) -> None:
    """Makes an opened pipeline refuse what its artifacts cannot obey.

    Args:
        skeleton: The pipeline.
        exported: Names of the components that compute in artifacts.
    """
    pipeline: Any = skeleton.pipeline
    for cls in type(pipeline).__mro__:
        for name, value in vars(cls).items():
            if not inspect.isfunction(value):
                continue
            if _LOADER.search(cls.__name__) and _CHANGES.match(name):
                _replace(pipeline, name, _refused(pipeline, name, "adapters and embeddings are part of the artifacts", _EXPORT_AGAIN))  # fmt: skip
            elif _OFFLOADS.match(name):
                _replace(pipeline, name, _refused(pipeline, name, "the components have no weights to move: artifacts compute where they were opened", "leave the call out"))  # fmt: skip
    pipeline.to = _moved(pipeline, pipeline.to)
    pipeline.save_pretrained = _refused(
        pipeline, "save_pretrained", "the components have no weights to save", "copy the bundle's folder, which is all of it"
    )  # fmt: skip
    for name, module in skeleton.modules.items():
        if name in exported:
            for method in ("load_state_dict", "save_pretrained"):
                _replace(module, method, _refused(module, method, f"the weights of {quoted(name)} are in its artifacts", _EXPORT_AGAIN))  # fmt: skip
    skeleton.mode.watch(_watch(skeleton))


def _replace(owner: Any, name: str, function: Callable[..., Any]) -> None:
    vars(owner)[name] = function


def _refused(owner: Any, name: str, why: str, hint: str) -> Callable[..., NoReturn]:
    original = getattr(owner, name)

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        del args, kwargs
        raise UsageError(f"{quoted(name)} has no effect on a pipeline opened from a bundle: {why}", hint=hint)  # fmt: skip

    refuse.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]  # pipelines look at it
    return refuse


def _moved(pipeline: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """`to`, which takes the processor and float32: there is nothing else to do."""

    def to(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, kwargs.get("device"), kwargs.get("dtype"), kwargs.get("torch_dtype"), kwargs.get("torch_device")):  # fmt: skip
            if isinstance(value, torch.dtype) and value != torch.float32:
                raise _no_move(type(pipeline).__name__, str(value))
            is_device = isinstance(value, str | torch.device)
            if is_device and torch.device(value).type != "cpu":
                raise _no_move(type(pipeline).__name__, str(value))
        return original(*args, **kwargs)

    return to


def _no_move(what: str, place: str) -> UsageError:
    return UsageError(
        f"{quoted(what)}: cannot be moved to {place}: its components compute in artifacts, in the types and on the device "
        "that these were made and opened for, and the pipeline's own tensors stay float32 on the processor",
        hint="leave the move out; `--plan float16` at the export, or another target, computes otherwise",
    )


def _watch(skeleton: Skeleton) -> Callable[[Operation], Any]:
    def watch(operation: Operation) -> Any:
        named = [_origin(skeleton, fake) for fake in operation.fakes]
        first = next(filter(None, named), None)
        if first is None:
            raise UsageError(
                f"{type(skeleton.pipeline).__name__}: {quoted(operation.name)} reads what a component keeps of its run, "
                "such as attention maps; an artifact gives its outputs and keeps nothing",
                hint="use the outputs of the components alone, or run the original pipeline in diffusers",
            )
        if operation.shares_memory or (operation.is_cast and not operation.cast_to):
            return mark_origin(operation.compute(), first)
        if operation.is_cast:
            raise _no_move(first.partition(".")[0], operation.cast_to)
        written = {id(one) for one in operation.written}
        for fake, name in zip(operation.fakes, named, strict=True):
            if id(fake) in written:
                raise UsageError(
                    f"{quoted(name)}: changing this parameter ({quoted(operation.name)}) has no effect on a pipeline "
                    "opened from a bundle: the artifact computes with the values of the export",
                    hint="change the original pipeline in diffusers, save it with save_pretrained and export that folder",
                )
        raise UsageError(
            f"{quoted(first)}: its values are in the artifact, and {quoted(operation.name)} reads them outside of it",
            hint="where the pipeline's own call reads them, export again with a --call like this one: the bundle then "
            "keeps them; else read them from the original pipeline in diffusers",
        )

    return watch


def _origin(skeleton: Skeleton, tensor: torch.Tensor) -> str | None:
    """`unet.conv_in.weight`; None for what a run of a component left behind."""
    found = origin_of(tensor)
    if found is not None:
        return found
    component, name = parameter_names(skeleton.modules, tensor)
    return f"{component}.{name}" if component else None
