"""Lazy weights: every parameter of a graph by name, its bytes read from the checkpoint only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.ir.safetensors_file import Checkpoint, SafetensorsFile, check_finite


@dataclass(frozen=True)
class LazyWeight:
    """One parameter.

    Attributes:
        name: Its fully qualified name in the module.
        shape: Its shape.
        dtype: The dtype that the graph expects; stored bytes of another are converted when read.
        load: Reads it in the dtype in which it is stored; each call reads the file again.
        quantized: The dtype of a quantized weight's part, which no storage dtype changes: `int4` for
            integers in an int8 tensor, `float32` for their scales; None for all other weights.
        rounding: What makes whole numbers of its scaled values when it is quantized; None for the nearest.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor] = field(repr=False)
    quantized: str | None = None
    rounding: Callable[[torch.Tensor], torch.Tensor] | None = field(default=None, repr=False)

    def read(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Reads it in one conversion: in the graph's dtype, or in another that the caller wants."""
        return self.load().to(dtype or self.dtype)


class LazyWeights(Mapping[str, LazyWeight]):
    """Parameters by fully qualified name."""

    def __init__(
        self, weights: dict[str, LazyWeight], *, aliases: dict[str, str] | None = None
    ) -> None:
        """`aliases` maps the names of tied parameters to the one name under which their bytes are stored."""
        self._weights = weights
        self.aliases = aliases or {}

    def __getitem__(self, name: str) -> LazyWeight:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def bind_weights(module: nn.Module, checkpoint: Checkpoint, *, component: str) -> LazyWeights:
    """Binds every parameter of a module with fake weights to the stored tensor of its name.

    Raises:
        InvalidModel: A weight is missing or has another shape; when read, a weight holds NaN or infinity.
    """
    owners: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        names.setdefault(owners.setdefault(id(parameter), name), []).append(name)
    renamed = _renamed_by_transformers(module, checkpoint)
    weights: dict[str, LazyWeight] = {}
    aliases: dict[str, str] = {}
    for owner, tied in names.items():
        candidates = (
            s for name in tied for s in (renamed.get(name, name), *_stored_names(module, name))
        )
        stored = next((s for s in candidates if s in checkpoint), None)
        if stored is None:
            raise InvalidModel(
                f"`{checkpoint.files[0]}`: component `{component}` has no weight `{owner}`",
                hint="the checkpoint is incomplete or belongs to another model; save or fetch it again",
            )
        parameter = parameters[owner]
        shape = tuple(parameter.shape)
        if tuple(checkpoint[stored].shape) != shape:
            raise InvalidModel(
                f"`{checkpoint.files[0]}`: weight `{stored}` has shape {list(checkpoint[stored].shape)}, "
                f"expected {list(shape)} by the configuration of `{component}`",
                hint="config.json and the weights belong to different models",
            )
        _check_kind(checkpoint, stored, parameter.dtype)
        for name in tied:
            weights[name] = LazyWeight(
                name, shape, parameter.dtype, _loader(checkpoint, stored, parameter.dtype)
            )
            if name != owner:
                aliases[name] = owner
    return LazyWeights(weights, aliases=aliases)


def _check_kind(checkpoint: Checkpoint, stored: str, dtype: torch.dtype) -> None:
    """Integers where the model computes in floats are quantized weights, whose scales lie elsewhere."""
    found: torch.dtype = getattr(torch, checkpoint[stored].dtype)
    if dtype.is_floating_point and not found.is_floating_point:
        raise InvalidModel(
            f"`{checkpoint.file_of(stored)}`: weight `{stored}` is {checkpoint[stored].dtype}, expected floats",
            hint="the weights are quantized already; take the original model, and quantize with a plan",
        )


def persistent_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's buffers that belong to its checkpoint (running statistics, latent means), by name."""
    found: dict[str, torch.Tensor] = {}
    for prefix, owner in module.named_modules():
        for leaf, buffer in owner.named_buffers(recurse=False):
            if leaf not in owner._non_persistent_buffers_set:  # noqa: SLF001  # torch has no accessor
                found[f"{prefix}.{leaf}" if prefix else leaf] = buffer
    return found


def load_buffers(module: nn.Module, stored: Checkpoint | SafetensorsFile) -> None:
    """Gives the module's persistent buffers the values that are stored for them."""
    tensors = stored.tensors if isinstance(stored, SafetensorsFile) else stored
    for name, buffer in persistent_buffers(module).items():
        found = next((s for s in _stored_names(module, name) if s in tensors), None)
        if found is not None and tuple(tensors[found].shape) == tuple(buffer.shape):
            path, _, leaf = name.rpartition(".")
            module.get_submodule(path).register_buffer(leaf, stored.read(found).to(buffer.dtype))


def _stored_names(module: nn.Module, name: str) -> Iterator[str]:
    """The names under which libraries have stored this parameter over time, most likely first."""
    yield name
    prefix = getattr(
        module, "base_model_prefix", ""
    )  # transformers: the model inside a model with a head
    if prefix:
        yield f"{prefix}.{name}"
        yield name.removeprefix(f"{prefix}.")
    yield f"text_model.{name}"  # CLIP text encoders saved before transformers 5
    for new, old in _RENAMED_ATTENTION:  # diffusers' attention before 0.15
        if f".{new}." in name:
            yield name.replace(f".{new}.", f".{old}.")


def _renamed_by_transformers(module: nn.Module, checkpoint: Checkpoint) -> dict[str, str]:
    """Stored name by today's name, for transformers models whose parameters were renamed over time."""
    if not type(module).__module__.startswith("transformers."):
        return {}
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [t for t in get_model_conversion_mapping(module) if isinstance(t, WeightRenaming)]
    if not renamings:
        return {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    prefix = getattr(module, "base_model_prefix", None)
    return {
        rename_source_key(stored, renamings, [], prefix, parameters)[0]: stored
        for stored in checkpoint
    }


_RENAMED_ATTENTION = (
    ("to_q", "query"),
    ("to_k", "key"),
    ("to_v", "value"),
    ("to_out.0", "proj_attn"),
)


def _loader(checkpoint: Checkpoint, stored: str, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """Reads a stored tensor; its values are checked once, for a check costs as much as an operation with them."""
    checked = False

    def load() -> torch.Tensor:
        nonlocal checked
        tensor = checkpoint.read(stored)
        if tensor.dtype == torch.float64:
            tensor = tensor.to(dtype)  # may overflow, so the result is what is checked
        if not checked:
            check_finite(tensor, stored, checkpoint.file_of(stored))
            checked = True
        return tensor

    return load
