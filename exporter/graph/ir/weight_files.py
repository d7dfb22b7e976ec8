"""Which files of a component's folder hold its weights: one or shards with an index, unmarked or of a variant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qdx.exporter.errors import InvalidModel, quoted

__all__ = ["STEMS", "WeightFile", "find_weights", "variant_of", "variants_in"]

STEMS: Final = ("diffusion_pytorch_model", "model")
_VARIANT: Final = r"(?:\.(?P<variant>[A-Za-z0-9][A-Za-z0-9_-]*))?"
_FILE: Final = re.compile(
    rf"(?P<stem>{'|'.join(STEMS)}){_VARIANT}\.safetensors"
    rf"(?P<index>\.index{_VARIANT.replace('<variant>', '<late>')}\.json)?"
)
# A shard is found by its index.
_SHARD: Final = re.compile(r"-\d+-of-\d+")
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_PICKLE_HINT: Final = (
    "pickle files can run code, so qdx never reads them; where you trust them, load the pipeline "
    "with diffusers and write it again with save_pretrained(FOLDER, safe_serialization=True)"
)
_ADAPTER_FILE: Final = "adapter_model.safetensors"
_ADAPTER_HINT: Final = (
    "load the pipeline with its adapter, then `pipeline.fuse_lora()`, `pipeline.unload_lora_weights()`, "
    "`pipeline.save_pretrained(FOLDER)`; without `fuse_lora()` the adapter has no effect"
)
_GGUF_HINT: Final = (
    "weights in GGUF are quantized already; take the original model, and quantize it with a plan"
)


@dataclass(frozen=True)
class WeightFile:
    """A file of weights, or the index of their shards.

    Attributes:
        name: The file's.
        stem: What it begins with: `model` or `diffusion_pytorch_model`.
        variant: Such as `fp16`; empty for the unmarked ones.
        is_index: Whether it is an index.
    """

    name: str
    stem: str
    variant: str
    is_index: bool


def variant_of(name: str) -> str | None:
    """The variant that a file's name tells, empty for the unmarked; None for what holds no weights and no index."""
    file = _weight_file(name)
    return None if file is None else file.variant


def variants_in(folder: Path) -> tuple[str, ...]:
    """The variants of which a folder holds weights, in the order of their names; the unmarked one is empty."""
    return tuple(sorted({file.variant for file in _weight_files(folder)}))


def find_weights(folder: Path, variant: str | None = None) -> WeightFile:
    """Finds the weights of one component.

    Args:
        folder: The component's.
        variant: The one that is wanted; where the component has none of it, the unmarked one, as diffusers does.
            None takes the unmarked one, or the only one that there is.

    Raises:
        InvalidModel: There are none, several variants and none is chosen, or one file and an index of the same weights.
    """
    files = _weight_files(folder)
    if not files:
        raise _no_weights(folder)
    variants = {file.variant for file in files}
    wanted = variant if variant is not None and variant in variants else ""
    if variant is None and len(variants) == 1:
        (wanted,) = variants
    found = [file for file in files if file.variant == wanted]
    if not found:
        names = ", ".join(quoted(file.name) for file in files)
        if variant is None:
            raise InvalidModel(
                f"{quoted(folder)}: holds several variants of its weights, {names}",
                hint=f"choose one, for example --variant {min(filter(None, variants))}",
            )
        raise InvalidModel(
            f"{quoted(folder)}: holds no weights of variant {quoted(variant)} and none without a mark; it holds {names}",
            hint=f"choose another, for example --variant {min(filter(None, variants))}",
        )
    stem = next(stem for stem in STEMS if any(file.stem == stem for file in found))
    first, *more = [file for file in found if file.stem == stem]
    if more:
        message = f"{quoted(folder)}: holds {quoted(first.name)} and {quoted(more[0].name)}"
        raise InvalidModel(f"{message}, expected one of them", hint="remove the unused one")
    return first


def _weight_files(folder: Path) -> list[WeightFile]:
    """Every file of weights and every index in a folder, single files first."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    files = [file for name in names if (file := _weight_file(name)) is not None]
    return sorted(files, key=lambda file: (file.is_index, file.name))


def _weight_file(name: str) -> WeightFile | None:
    match = _FILE.fullmatch(name)
    if match is None or _SHARD.search(name):
        return None
    early, late = match["variant"], match["late"]
    if early and late:
        return None
    return WeightFile(name, match["stem"], early or late or "", match["index"] is not None)


def _no_weights(folder: Path, stems: Sequence[str] = STEMS) -> InvalidModel:
    expected = " or ".join(quoted(f"{stem}.safetensors") for stem in stems)
    if not folder.is_dir():
        return InvalidModel(f"{quoted(folder)}: not a folder, expected one with {expected}")
    names = sorted(path.name for path in folder.iterdir())
    if _ADAPTER_FILE in names:
        message = f"{quoted(folder)}: holds {quoted(_ADAPTER_FILE)}, an adapter without the weights that it adapts"
        return InvalidModel(f"{message}, expected {expected}", hint=_ADAPTER_HINT)
    for name in names:
        if Path(name).suffix in _PICKLES:
            message = f"{quoted(folder)}: holds {quoted(name)}, expected {expected}"
            return InvalidModel(message, hint=_PICKLE_HINT)
    for name in names:
        if Path(name).suffix == ".gguf":
            message = f"{quoted(folder)}: holds {quoted(name)}, expected {expected}"
            return InvalidModel(message, hint=_GGUF_HINT)
    found = [name for name in names if name.endswith(".safetensors")]
    if found:
        message = f"{quoted(folder)}: holds {quoted(found[0])}, expected {expected}"
        return InvalidModel(message, hint="give the file one of these names")
    return InvalidModel(
        f"{quoted(folder)}: no weights, expected {expected}",
        hint="the model folder is incomplete; save or fetch it again",
    )
