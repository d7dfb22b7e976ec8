"""Lazy weights: every parameter of a graph by name, its bytes read from the checkpoint only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.ir.learned_codes import LearnedCodes
from qdx.exporter.graph.ir.safetensors_file import Checkpoint, SafetensorsFile, check_finite
from qdx.exporter.graph.ir.scaled_weights import StoredReader, scaled_reader
from qdx.exporter.graph.ir.stored_names import renamed_by_transformers, stored_names
from qdx.exporter.graph.ir.untaken import check_all_taken, missing_weight, untaken


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
        rounding: What makes whole numbers of its scaled values when it is quantized, or its stored values themselves; None
            for the nearest.
        given: Its stored parts by suffix, where somebody else has quantized it; None where a format derives them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor] = field(repr=False)
    quantized: str | None = None
    rounding: Callable[[torch.Tensor], torch.Tensor] | LearnedCodes | None = field(
        default=None, repr=False
    )
    given: Mapping[str, torch.Tensor] | None = field(default=None, repr=False)

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

    Every stored tensor serves: as a parameter, as a buffer, as the scale of an 8-bit weight; or it is known why none
    needs it.

    Raises:
        InvalidModel: A weight is missing or has another shape, or nothing takes a stored tensor; when read, a weight
            holds NaN or infinity, or is stored twice with other values.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    tied = _tied(parameters)
    renamed = renamed_by_transformers(module, checkpoint)
    present = {
        owner: list(dict.fromkeys(
            stored
            for name in names
            for stored in (*renamed.get(name, ()), *stored_names(module, name))
            if stored in checkpoint
        ))
        for owner, names in tied.items()
    }  # fmt: skip
    for owner, found in present.items():
        if not found:
            raise missing_weight(
                checkpoint, owner, _leftover(module, checkpoint, present), component
            )
    chosen = {found[0] for found in present.values()}
    weights: dict[str, LazyWeight] = {}
    taken: set[str] = set()
    for owner, found in present.items():
        parameter, stored = parameters[owner], found[0]
        shape = tuple(parameter.shape)
        _check_kind(checkpoint, stored, parameter.dtype)
        _check_shape(checkpoint, stored, shape, component)
        twins = [
            name
            for name in found[1:]
            if name not in chosen and tuple(checkpoint[name].shape) == shape
        ]  # of other shapes are refused below, for nothing takes them
        readers = [scaled_reader(checkpoint, name) for name in (stored, *twins)]
        taken.update(name for reader in readers for name in reader.taken)
        load = _loader(checkpoint, readers, parameter.dtype)
        for name in tied[owner]:
            weights[name] = LazyWeight(name, shape, parameter.dtype, load)
    check_all_taken(module, checkpoint, taken, component)
    aliases = {name: owner for owner, names in tied.items() for name in names if name != owner}
    return LazyWeights(weights, aliases=aliases)


def _tied(parameters: dict[str, nn.Parameter]) -> dict[str, list[str]]:
    """The names of each parameter, by the first of them."""
    owners: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for name, parameter in parameters.items():
        names.setdefault(owners.setdefault(id(parameter), name), []).append(name)
    return names


def _leftover(
    module: nn.Module, checkpoint: Checkpoint, present: dict[str, list[str]]
) -> list[str]:
    taken = {name for found in present.values() for name in found}
    return untaken(module, checkpoint, taken)


def _check_shape(
    checkpoint: Checkpoint, stored: str, shape: tuple[int, ...], component: str
) -> None:
    found = tuple(checkpoint[stored].shape)
    if found != shape:
        raise InvalidModel(
            f"`{checkpoint.files[0]}`: weight `{stored}` has shape {list(found)}, "
            f"expected {list(shape)} by the configuration of `{component}`",
            hint="config.json and the weights belong to different models",
        )


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
    """Gives the module's persistent buffers the values that are stored for them.

    Raises:
        InvalidModel: One has another shape, or a checkpoint lacks the statistics of a normalization.
    """
    tensors = stored.tensors if isinstance(stored, SafetensorsFile) else stored
    file = stored.path if isinstance(stored, SafetensorsFile) else stored.files[0]
    for name, buffer in persistent_buffers(module).items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        found = next((s for s in stored_names(module, name) if s in tensors), None)
        if found is None:
            if leaf in _STATISTICS and isinstance(owner, _NormBase):
                raise InvalidModel(
                    f"`{file}`: has no statistics `{name}` of a normalization",
                    hint="the checkpoint is incomplete or belongs to another model; save or fetch it again",
                )
            continue
        if tuple(tensors[found].shape) != tuple(buffer.shape):
            raise InvalidModel(
                f"`{file}`: buffer `{found}` has shape {list(tensors[found].shape)}, "
                f"expected {list(buffer.shape)} by the configuration",
                hint="config.json and the weights belong to different models",
            )
        owner.register_buffer(leaf, stored.read(found).to(buffer.dtype))


# Trained, though no parameters; other buffers that are not stored are what the class computes.
_STATISTICS = frozenset({"running_mean", "running_var"})


def _loader(
    checkpoint: Checkpoint, readers: Sequence[StoredReader], dtype: torch.dtype
) -> Callable[[], torch.Tensor]:
    """Reads a stored tensor; its values are checked once, for a check costs as much as an operation with them.

    Args:
        checkpoint: Where it is stored.
        readers: What reads it, and what reads it under its other names, all with equal values.
        dtype: That of the parameter.
    """
    first, *twins = readers
    checked = False

    def load() -> torch.Tensor:
        nonlocal checked
        tensor = first.read()
        if tensor.dtype == torch.float64:
            tensor = tensor.to(dtype)  # may overflow, so the result is what is checked
        if not checked:
            check_finite(tensor, first.name, checkpoint.file_of(first.name))
            for twin in twins:
                if not torch.equal(tensor.to(dtype), twin.read().to(dtype)):
                    raise InvalidModel(
                        f"`{checkpoint.file_of(twin.name)}`: `{twin.name}` and `{first.name}` differ, "
                        "expected one weight under two names",
                        hint="remove the one that the model was not trained with, or save the model again",
                    )
            checked = True
        return tensor

    return load
