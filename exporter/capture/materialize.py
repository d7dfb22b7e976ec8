"""The PyTorch reference: a skeleton whose parameters are filled with the stored weights, in float32.

Weights that are stored in the dtype of the model are pages of their files and take no memory of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from qdx.exporter.capture.component_weights import open_weights
from qdx.exporter.capture.deltas import merged
from qdx.exporter.capture.skeleton import Skeleton, build_skeleton
from qdx.exporter.graph.ir.weights import bind_weights, load_buffers
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qdx.exporter.capture.folder import PipelineFolder
    from qdx.exporter.progress import Progress

__all__ = [
    "fill_buffers",
    "fill_named",
    "fill_weights",
    "is_converted",
    "load_pipeline",
    "replace_parameters",
]


def load_pipeline(folder: PipelineFolder, *, progress: Progress = SILENT) -> Skeleton:
    """The pipeline with its real weights, read by the same reader that exports use.

    Raises:
        InvalidModel: A configuration or weight is missing, damaged or of another shape.
    """
    skeleton = build_skeleton(folder)
    modules = skeleton.modules
    with progress.task("loading weights", len(modules)) as task:
        for name, module in modules.items():
            fill_weights(module, skeleton, name)
            task.advance(1)
    return skeleton


def fill_weights(module: nn.Module, skeleton: Skeleton, name: str) -> None:
    """Replaces a component's fake parameters by the stored ones; tied parameters stay one object.

    Raises:
        InvalidModel: A weight is missing, of another shape, or not finite.
        StorageError: A file cannot be read.
    """
    checkpoint = open_weights(skeleton.folder.components[name], mapped=True)
    weights = bind_weights(module, checkpoint, component=name)
    weights = merged(weights, skeleton.folder.layers_adapted(name))
    load_buffers(module, checkpoint)
    filled: dict[str, nn.Parameter] = {}
    found: dict[str, nn.Parameter] = {}
    for parameter_name, weight in weights.items():
        owner = weights.aliases.get(parameter_name, parameter_name)
        if owner not in filled:
            filled[owner] = nn.Parameter(weight.read(), requires_grad=False)
        found[parameter_name] = filled[owner]
    replace_parameters(module, found)


def fill_named(module: nn.Module, skeleton: Skeleton, name: str, parameters: Sequence[str]) -> None:
    """Replaces some of a component's fake parameters by the stored ones, under all the names of tied ones.

    Raises:
        InvalidModel: A weight is missing, of another shape, or not finite.
        StorageError: A file cannot be read.
    """
    checkpoint = open_weights(skeleton.folder.components[name])
    weights = bind_weights(module, checkpoint, component=name)
    weights = merged(weights, skeleton.folder.layers_adapted(name))
    owners = {one: weights.aliases.get(one, one) for one in weights}
    wanted = dict.fromkeys(owners[one] for one in parameters)
    filled = {owner: nn.Parameter(weights[owner].read(), requires_grad=False) for owner in wanted}
    replace_parameters(module, {n: filled[o] for n, o in owners.items() if o in filled})


def fill_buffers(module: nn.Module, skeleton: Skeleton, name: str) -> None:
    """Gives a component's persistent buffers their stored values, and leaves its parameters.

    Raises:
        InvalidModel: A file is damaged.
        StorageError: A file cannot be read.
    """
    load_buffers(module, open_weights(skeleton.folder.components[name]))


def is_converted(module: nn.Module, skeleton: Skeleton, name: str) -> bool:
    """Whether weights of a component, bound and not read, are stored in another dtype than the model's.

    Raises:
        InvalidModel: A weight is missing or of another shape.
        StorageError: A file cannot be read.
    """
    checkpoint = open_weights(skeleton.folder.components[name])
    bind_weights(module, checkpoint, component=name)
    wanted = {parameter.dtype for parameter in module.parameters()}
    stored: set[torch.dtype] = {getattr(torch, one.dtype) for one in checkpoint.values()}
    return any(dtype.is_floating_point for dtype in stored - wanted)


def replace_parameters(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Puts parameters in the place of those of the same names; one object under two names stays one."""
    for name, parameter in parameters.items():
        path, _, leaf = name.rpartition(".")
        module.get_submodule(path).register_parameter(leaf, parameter)
