"""The PyTorch reference: a skeleton whose parameters are filled with the stored weights, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from qdx.exporter.capture.skeleton import Skeleton, build_skeleton
from qdx.exporter.graph.safetensors_file import open_checkpoint
from qdx.exporter.graph.weights import bind_weights, load_buffers
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from qdx.exporter.capture.folder import PipelineFolder
    from qdx.exporter.progress import Progress


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
    """Replaces a component's fake parameters by the stored ones; tied parameters stay one object."""
    checkpoint = open_checkpoint(skeleton.folder.components[name].path)
    weights = bind_weights(module, checkpoint, component=name)
    load_buffers(module, checkpoint)
    filled: dict[str, nn.Parameter] = {}
    for parameter_name, weight in weights.items():
        owner = weights.aliases.get(parameter_name, parameter_name)
        if owner not in filled:
            filled[owner] = nn.Parameter(weight.read(), requires_grad=False)
        path, _, leaf = parameter_name.rpartition(".")
        module.get_submodule(path).register_parameter(leaf, filled[owner])
