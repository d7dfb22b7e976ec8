"""Low-rank adapters (LoRA) that an export merges into the weights: read as diffusers reads them, added when a weight is read.

What a file means is diffusers' business: the pipeline's own class turns the spellings of trainers into its components'
names. Here the pairs of matrices find their layers, and whatever finds none is refused by name.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from qdx.exporter.capture.deltas import Adapters, Delta
from qdx.exporter.errors import InvalidInput, UsageError, first_line, quoted
from qdx.exporter.files import sha256_file
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile, check_finite

if TYPE_CHECKING:
    from qdx.exporter.capture.skeleton import Skeleton

__all__ = ["LoraFile", "parse_lora", "read_adapters", "read_layers"]

_PAIR: Final = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
# Other ways to adapt a layer, by what their tensors are called.
_OTHERS: Final = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "oft_": "OFT",
    "lora_mid": "LoCon with a core (CP decomposition)",
    "lora_embedding": "an adapted embedding",
}
_LAYERS: Final = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FUSE: Final = (
    "fuse it in diffusers (load_lora_weights, fuse_lora, unload_lora_weights), save the pipeline with save_pretrained and "
    "export that folder"
)


@dataclass(frozen=True)
class LoraFile:
    """A file of adapters, and how strongly it counts.

    Attributes:
        path: A safetensors file.
        scale: Factor of all that it adds, as `set_adapters` and `fuse_lora` take it.
        tensors: Its tensors, where they are in memory; the path is then what messages call them.
    """

    path: Path
    scale: float = 1.0
    tensors: Mapping[str, torch.Tensor] | None = field(default=None, repr=False)


def parse_lora(text: str) -> LoraFile:
    """A file and its scale from `FILE` or `FILE:SCALE`.

    Raises:
        UsageError: The scale is no finite number.
    """
    path, colon, number = text.rpartition(":")
    if not colon or not path:
        return LoraFile(Path(text))
    try:
        scale = float(number)
    except ValueError:
        return LoraFile(Path(text))  # a colon in the name
    if not math.isfinite(scale):
        raise UsageError(
            f"--lora: the scale of {quoted(path)} is {number}, expected a finite number"
        )
    return LoraFile(Path(path), scale)


def read_adapters(files: Sequence[LoraFile], skeleton: Skeleton) -> Adapters:
    """Reads files of adapters for a pipeline.

    Args:
        files: In the order in which they are added.
        skeleton: The pipeline without weights.

    Raises:
        InvalidInput: A file is damaged, of another kind of adapter, or has weights for no layer of the pipeline.
        StorageError: It cannot be read.
        UsageError: The pipeline takes no adapters.
    """
    found: dict[str, dict[str, tuple[Delta, ...]]] = {}
    for file in files:
        for component, layers in read_layers(file, skeleton).items():
            own = found.setdefault(component, {})
            for path, delta in layers.items():
                own[path] = (*own.get(path, ()), delta)
    return Adapters(found, tuple((sha256_file(file.path), file.scale) for file in files))


def read_layers(file: LoraFile, skeleton: Skeleton) -> dict[str, dict[str, Delta]]:
    """What one file adds, by component and layer; see `read_adapters`."""
    if file.tensors is None:
        _check_file(file.path)
    else:
        _check_tensors(file.tensors, file.path)
    tensors, alphas, metadata = _converted(file, skeleton)
    pipeline: Any = skeleton.pipeline
    found: dict[str, dict[str, Delta]] = {}
    left = dict(tensors)
    for component in pipeline._lora_loadable_modules:  # noqa: SLF001  # diffusers has no other list
        prefix = f"{component}."
        module = skeleton.modules.get(component)
        if module is None:
            continue
        own = {n.removeprefix(prefix): left.pop(n) for n in tensors if n.startswith(prefix)}
        if own:
            factors = _Factors.of(
                {n.removeprefix(prefix): v for n, v in alphas.items() if n.startswith(prefix)},
                {n.removeprefix(prefix): v for n, v in metadata.items() if n.startswith(prefix)},
                file,
                module,
            )
            found[component] = _deltas(
                _in_peft_names(own, module), component, module, file, factors
            )
    if left:
        name = next(iter(left))
        raise InvalidInput(
            f"{quoted(file.path)}: {quoted(name)} is for no component of {type(pipeline).__name__} that takes adapters",
            hint="the adapter was made for another kind of pipeline",
        )
    return found


def _check_file(path: Path) -> None:
    """Refuses damaged files, and tensors that `_check_tensors` refuses."""
    if path.suffix != ".safetensors":
        raise InvalidInput(
            f"{quoted(path)}: is no safetensors file, and others can hold code that runs when they are read",
            hint="save the adapter as safetensors",
        )
    file = SafetensorsFile(path)
    try:
        for name in file.tensors:
            _check_tensors({name: file.read(name)}, path)
    finally:
        file.close()


def _check_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuses other kinds of adapters, and numbers that are none."""
    for name, tensor in tensors.items():
        for mark, kind in _OTHERS.items():
            if mark in name:
                raise InvalidInput(
                    f"{quoted(path)}: {quoted(name)} belongs to {kind}, and only LoRA is taken: pairs of matrices "
                    "whose product is added to a weight",
                    hint=_FUSE,
                )
        check_finite(tensor, name, path)


def _converted(
    file: LoraFile, skeleton: Skeleton
) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, Any]]:
    """The file's tensors by the names of the pipeline's components, alphas likewise, and what peft wrote beside them."""
    path, pipeline = file.path, skeleton.pipeline
    name = type(pipeline).__name__
    if not hasattr(pipeline, "lora_state_dict"):
        raise UsageError(f"--lora: diffusers loads no LoRA into {name}", hint="leave it out")
    unet = skeleton.modules.get("unet")
    try:
        made = type(pipeline).lora_state_dict(
            str(path) if file.tensors is None else dict(file.tensors),
            use_safetensors=True,
            local_files_only=True,
            return_alphas=True,
            return_lora_metadata=True,
            **({} if unet is None else {"unet_config": unet.config}),
        )
    except Exception as error:  # diffusers' converters raise anything
        raise InvalidInput(
            f"{quoted(path)}: {name} does not read it as a LoRA: {type(error).__name__}: {first_line(error)}",
            hint="the adapter was made for another kind of pipeline, or its format is not one of diffusers'",
        ) from error
    tensors, *rest = made if isinstance(made, tuple) else (made,)
    alphas: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for one in filter(None, rest):
        (alphas if all(key.endswith(".alpha") for key in one) else metadata).update(one)
    return dict(tensors), alphas, metadata


def _in_peft_names(tensors: dict[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """Names as `layer.lora_A.weight`, whichever of diffusers' own spellings they have."""
    from diffusers.utils.state_dict_utils import (
        StateDictType,
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    spelled = any(".lora_A." in name or ".lora_B." in name for name in tensors)
    if not type(module).__module__.startswith("transformers."):
        return tensors if spelled else convert_unet_state_dict_to_peft(tensors)
    if not spelled:
        if any("_lora." in name for name in tensors):
            tensors = convert_state_dict_to_diffusers(tensors, StateDictType.DIFFUSERS_OLD)
        tensors = convert_state_dict_to_peft(tensors, StateDictType.DIFFUSERS)
    if not hasattr(module, "text_model"):  # transformers 5 has no module of that name
        tensors = {name.removeprefix("text_model."): value for name, value in tensors.items()}
    return tensors


@dataclass(frozen=True)
class _Factors:
    """What the product of a pair is multiplied with, as diffusers and peft tell it.

    Attributes:
        scale: Of the file.
        alphas: By layer.
        usual: The alpha of layers without one of their own; None for their rank.
        by_root: Whether alpha is divided by the root of the rank.
    """

    scale: float
    alphas: Mapping[str, float]
    usual: float | None
    by_root: bool = False

    @classmethod
    def of(
        cls,
        alphas: Mapping[str, Any],
        metadata: Mapping[str, Any],
        file: LoraFile,
        module: nn.Module,
    ) -> _Factors:
        """Those of one component."""
        if metadata:
            for key in ("use_dora", "lora_bias", "modules_to_save"):
                if metadata.get(key):
                    raise InvalidInput(
                        f"{quoted(file.path)}: its metadata has {quoted(key)}, and only pairs of matrices are merged",
                        hint=_FUSE,
                    )
            usual = float(metadata.get("lora_alpha", 8))
            return cls(file.scale, dict(metadata.get("alpha_pattern") or {}), usual, bool(metadata.get("use_rslora")))  # fmt: skip
        if not alphas:
            return cls(file.scale, {}, None)
        named = {_layer_of_alpha(key, module): float(value) for key, value in alphas.items()}
        return cls(file.scale, named, Counter(named.values()).most_common()[0][0])

    def of_layer(self, layer: str, rank: int) -> float:
        """The factor of one layer; a pattern of peft's counts where it ends the layer's name."""
        pattern = (p for p in self.alphas if re.match(rf"(.*\.)?({p})$", layer))
        key = layer if layer in self.alphas else next(pattern, None)
        alpha = self.usual if key is None else self.alphas[key]
        if alpha is None:
            return self.scale
        return self.scale * alpha / (math.sqrt(rank) if self.by_root else rank)


def _layer_of_alpha(key: str, module: nn.Module) -> str:
    """The layer of an alpha, whose name diffusers makes of that of a pair."""
    stem = key.removesuffix(".alpha")
    name = stem if stem.endswith(".weight") else f"{stem}.lora.down.weight"
    (converted,) = _in_peft_names({name: torch.empty(0)}, module)
    found = _PAIR.fullmatch(converted)
    return stem if found is None else found["layer"]


def _deltas(
    tensors: Mapping[str, torch.Tensor],
    component: str,
    module: nn.Module,
    file: LoraFile,
    factors: _Factors,
) -> dict[str, Delta]:
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        found = _PAIR.fullmatch(name)
        if found is None:
            raise _no_target(file, component, name, "is no part of a pair of matrices")
        pairs.setdefault(found["layer"], {})[found["side"]] = tensor
    modules = dict(module.named_modules())
    tied = _tied(module)
    made: dict[str, Delta] = {}
    for path, pair in pairs.items():
        layer = modules.get(path)
        if layer is None:
            raise _no_target(file, component, path, "is no layer of it")
        if not isinstance(layer, _LAYERS) or getattr(layer, "groups", 1) != 1:
            raise _no_target(
                file, component, path, f"is a {type(layer).__name__}, which no LoRA is merged into"
            )
        if f"{path}.weight" in tied:
            raise _no_target(file, component, path, "shares its weight with another layer")
        if len(pair) != 2:
            raise _no_target(file, component, path, f"has lora_{next(iter(pair))} alone")
        made[path] = _delta(pair["A"], pair["B"], layer, path, component, file, factors)
    return made


def _delta(
    down: torch.Tensor,
    up: torch.Tensor,
    layer: nn.Module,
    path: str,
    component: str,
    file: LoraFile,
    factors: _Factors,
) -> Delta:
    shape = tuple(layer.get_parameter("weight").shape)
    rank = down.shape[0]
    fits = (
        down.dim() >= 2
        and up.dim() >= 2
        and up.flatten(1).shape == (shape[0], rank)
        and down.flatten(1).shape[1] == math.prod(shape[1:])
    )
    if not fits:
        raise _no_target(
            file, component, path,
            f"has a weight of {list(shape)}, and the pair is {list(down.shape)} and {list(up.shape)}",
        )  # fmt: skip
    return Delta(down.to(torch.float32), up.to(torch.float32), factors.of_layer(path, rank))


def _tied(module: nn.Module) -> frozenset[str]:
    parameters = list(module.named_parameters(remove_duplicate=False))
    uses = Counter(id(parameter) for _, parameter in parameters)
    return frozenset(name for name, parameter in parameters if uses[id(parameter)] > 1)


def _no_target(file: LoraFile, component: str, name: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"{quoted(file.path)}: {quoted(f'{component}.{name}')} {why}",
        hint="the adapter was made for another model; or " + _FUSE,
    )
