"""A pipeline that somebody holds in Python, read as a folder is: its parts as they are, and its weights from memory.

The object is the user's own code, so nothing of the rules for folders of strangers applies to it. It is left as it was:
what is traced and run is a copy that shares nothing with it but what nobody writes to.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from qdx.exporter.capture.folder import INDEX_FILE, Component, LivePipeline, PipelineFolder
from qdx.exporter.errors import InvalidModel, StorageError, first_line, quoted
from qdx.exporter.files import dump_json, parse_json
from qdx.exporter.graph.ir.safetensors_file import Checkpoint
from qdx.exporter.graph.ir.safetensors_header import StoredTensor
from qdx.exporter.graph.ir.weights import persistent_buffers
from qdx.exporter.strict_json import CONFIG

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["LiveCheckpoint", "copy_without_weights", "live_folder", "weights_digest"]

_CONFIG_FILE: Final = "config.json"
_PLAIN: Final = (torch.Tensor, nn.Parameter)
# What accelerate puts on a module whose weights it moves, and torch.compile on one that it wraps.
_OFFLOADING: Final = ("_hf_hook", "_old_forward")
_COMPILED: Final = "_orig_mod"


class LiveCheckpoint(Checkpoint):
    """The weights of a module in memory, by name; read when they are asked for, from wherever they are kept.

    Args:
        module: The module; nothing of it changes.
        name: The component's, for messages.

    Raises:
        InvalidModel: A weight is of a class of its own, such as one that is quantized.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__([], [Path(name)])
        self._name = name
        self._tensors = dict(_tensors_of(module))
        for key, (_, tensor) in self._tensors.items():
            if type(tensor) not in _PLAIN:
                raise InvalidModel(
                    f"`{name}`: weight {quoted(key)} is a {type(tensor).__name__}, expected a plain tensor",
                    hint="the weights are quantized or wrapped already; take the original ones, and quantize with a plan",
                )

    def __getitem__(self, name: str) -> StoredTensor:
        _, tensor = self._tensors[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        return StoredTensor(name, dtype, tuple(tensor.shape), 0, tensor.nbytes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def read(self, name: str) -> torch.Tensor:
        """The tensor on the processor; the module's own memory where it is there already.

        Raises:
            InvalidModel: It was offloaded, and nobody knows where to.
        """
        owner, tensor = self._tensors[name]
        if tensor.device.type != "meta":
            return tensor.detach().to("cpu")
        kept = getattr(getattr(owner, "_hf_hook", None), "weights_map", None)
        leaf = name.rpartition(".")[2]
        if kept is None or leaf not in kept:
            raise InvalidModel(
                f"`{self._name}`: weight {quoted(name)} is on the meta device, and nothing says where its values are",
                hint="load the pipeline with its weights",
            )
        found: torch.Tensor = kept[leaf]
        return found.detach().to("cpu")

    def file_of(self, name: str) -> Path:
        """The component's name: there is no file."""
        del name
        return Path(self._name)


def live_folder(pipeline: DiffusionPipeline) -> PipelineFolder:
    """A pipeline as the folder that it would be saved to.

    Configurations, tokenizers and schedulers are written to a temporary folder, which lasts as long as what is returned;
    weights stay where they are.

    Args:
        pipeline: The pipeline; nothing of it changes.

    Raises:
        InvalidModel: A part cannot be written, or holds weights that are no plain tensors.
        StorageError: The disk refused.
    """
    place = tempfile.TemporaryDirectory(prefix="qdx-live-")
    root = Path(place.name)
    components: dict[str, Component] = {}
    absent: list[str] = []
    for name, part in pipeline.components.items():
        if part is None:
            absent.append(name)
        elif isinstance(part, nn.Module):
            components[name] = _module(root, name, _without_wrapper(part))
        else:
            components[name] = _helper(root, name, part)
    known = {*components, *absent}
    options = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in pipeline.config.items()
        if key not in known and not key.startswith("_")
    }
    _write(root / INDEX_FILE, {"_class_name": type(pipeline).__name__, **options})
    name = type(pipeline).__name__
    live = LivePipeline(pipeline, place)
    return PipelineFolder(root, name, components, tuple(absent), options, live)


def copy_without_weights(pipeline: DiffusionPipeline, mode: FakeTensorMode) -> DiffusionPipeline:
    """A copy of a pipeline whose parameters are fake and float32; its buffers are copies.

    Args:
        pipeline: The pipeline; nothing of it changes.
        mode: The mode of the fake parameters.

    Raises:
        InvalidModel: An object in it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            memo |= {id(p): _fake(p, mode) for p in part.parameters()}
    try:
        copied = copy.deepcopy(pipeline, memo)
    except Exception as error:  # whatever a pipeline holds copies itself
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InvalidModel(
            f"`{type(pipeline).__name__}`: cannot be copied: {reason}",
            hint="remove what cannot be copied from the pipeline, such as an open file or a lock",
        ) from error
    for name, part in copied.components.items():
        if isinstance(part, nn.Module):
            plain = _without_wrapper(part)
            _settle(plain)
            setattr(copied, name, plain.eval())
    return copied


def weights_digest(module: nn.Module, name: str) -> str:
    """SHA-256 of a module's weights and buffers: names, types, shapes and bytes."""
    checkpoint = LiveCheckpoint(module, name)
    found = hashlib.sha256()
    for key in sorted(checkpoint):
        stored = checkpoint[key]
        found.update(f"{key} {stored.dtype} {list(stored.shape)}\n".encode())
        found.update(checkpoint.read(key).contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _module(root: Path, name: str, module: nn.Module) -> Component:
    config = _config_of(module)
    (root / name).mkdir()
    _write(root / name / _CONFIG_FILE, config)
    LiveCheckpoint(module, name)
    return Component(
        name, _library(module), type(module).__name__, root / name, config, held=module
    )


def _helper(root: Path, name: str, part: Any) -> Component:
    """A tokenizer, scheduler or processor, saved as it saves itself."""
    if isinstance(part, list | tuple) or not hasattr(part, "save_pretrained"):
        raise InvalidModel(
            f"`{name}`: is a {type(part).__name__}, which cannot be saved with a pipeline",
            hint="give components that have `save_pretrained`",
        )
    try:
        part.save_pretrained(root / name)
    except Exception as error:  # each class saves itself in its own way
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InvalidModel(
            f"`{name}`: {type(part).__name__} cannot be saved: {reason}",
            hint="check that `save_pretrained` of this component works",
        ) from error
    config = dict(part.config) if hasattr(part, "config") else {}
    return Component(name, _library(part), type(part).__name__, root / name, config)


def _config_of(module: nn.Module) -> dict[str, Any]:
    """The configuration as its library would write it; of a class without one just its name."""
    own: Any = module if hasattr(module, "to_json_string") else getattr(module, "config", None)
    if own is module:  # it writes its own name and version into what it says
        own = copy.copy(module)
        vars(own)["_internal_dict"] = copy.deepcopy(module.config)
    if not hasattr(own, "to_json_string"):
        return {"_class_name": type(module).__name__}
    where = f"configuration of {type(module).__name__}"
    return parse_json(own.to_json_string(), source=where, error=InvalidModel, rules=CONFIG)


def _library(part: Any) -> str:
    """What an index would name: diffusers, transformers, or the module that the user's own class lies in."""
    module = type(part).__module__
    top = module.split(".")[0]
    if not module.startswith("diffusers.pipelines."):
        return top if top in {"diffusers", "transformers"} else module
    import diffusers

    return "diffusers" if hasattr(diffusers, type(part).__name__) else module.split(".")[2]


def _tensors_of(module: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, torch.Tensor]]]:
    """Parameters and stored buffers by name, each with the part that owns it; tied ones under their first name."""
    parts = dict(module.named_modules())
    for name, tensor in (*module.named_parameters(), *persistent_buffers(module).items()):
        yield name, (parts[name.rpartition(".")[0]], tensor)


def _fake(parameter: nn.Parameter, mode: FakeTensorMode) -> nn.Parameter:
    dtype = torch.float32 if parameter.is_floating_point() else parameter.dtype
    with mode:
        fake = torch.empty(tuple(parameter.shape), dtype=dtype)
    return nn.Parameter(fake, requires_grad=False)


def _settle(module: nn.Module) -> None:
    """Takes what moves weights off a copy, and makes its buffers float32 on the processor."""
    for part in module.modules():
        own = vars(part)
        before = own.get("_old_forward")
        if any(own.pop(key, None) is not None for key in _OFFLOADING):
            own.pop("forward", None)
            if before is not None and before.__func__ is not type(part).forward:
                own["forward"] = before
    stored = persistent_buffers(module)
    for path, buffer in list(module.named_buffers(remove_duplicate=False)):
        dtype = torch.float32 if buffer.is_floating_point() else buffer.dtype
        owner, _, key = path.rpartition(".")
        found = buffer.to("cpu", dtype)
        module.get_submodule(owner).register_buffer(key, found, persistent=path in stored)


def _without_wrapper(module: nn.Module) -> nn.Module:
    """The module inside one that torch.compile made."""
    found = getattr(module, _COMPILED, None)
    return found if isinstance(found, nn.Module) else module


def _write(path: Path, value: dict[str, Any]) -> None:
    try:
        path.write_bytes(dump_json(value))
    except OSError as error:
        raise StorageError(f"{quoted(path)}: {error.strerror}") from error
