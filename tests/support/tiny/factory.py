"""Building of one family's folder: components, weights, files."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tests.support.tiny.families import FAMILIES, picture
from tests.support.tiny.vocabularies import save_for_older_readers
from tests.support.tiny.weights import randomise

if TYPE_CHECKING:
    from pathlib import Path

_MODULES = ("unets", "transformers_2d", "sequences", "bilingual")


def build(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Save a complete pipeline folder with random weights in safetensors.

    Args:
        family: A key of `FAMILIES`.
        folder: Where to write; parents are created.
        seed: Chooses the weights; the same seed gives the same bytes.

    Returns:
        The folder.

    Raises:
        KeyError: The family is not known.
    """
    import diffusers
    import torch

    described = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        # Fixed tables, such as Fourier frequencies, are drawn when a module is made.
        torch.manual_seed(seed)
        components = dict(_maker(family)())
    randomise(components, seed)
    pipeline = getattr(diffusers, described.pipeline)(**components)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _adapt_files(pipeline, folder)
    return folder


def load(family: str, folder: Path) -> Any:
    """Load a folder as a diffusers pipeline in float32, without a progress bar.

    Args:
        family: A key of `FAMILIES`.
        folder: What `build` wrote.

    Returns:
        The pipeline.
    """
    import diffusers
    from safetensors.torch import load_file

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    given: dict[str, Any] = {}
    for name, entry in index.items():
        if not isinstance(entry, list) or entry[0] != "diffusers":
            continue
        made = getattr(diffusers, entry[1])
        # diffusers itself loads models with such a list only where accelerate is installed.
        if getattr(made, "_keep_in_fp32_modules", None):
            module = made.from_config(made.load_config(folder / name))
            module.load_state_dict(load_file(folder / name / "diffusion_pytorch_model.safetensors"))
            given[name] = module.eval()
    pipeline = getattr(diffusers, FAMILIES[family].pipeline).from_pretrained(folder, **given)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def write_inputs(family: str, folder: Path) -> list[Path]:
    """Write the pictures that a family's calls name, as PNG files.

    Args:
        family: A key of `FAMILIES`.
        folder: Existing folder the file names are relative to.

    Returns:
        The files written, sorted.
    """
    described = FAMILIES[family]
    names: set[str] = set()
    for call in (described.call, described.call_other):
        for argument in described.images:
            value = call[argument]
            names.update(value if isinstance(value, list) else [value])
    for name in names:
        picture(name).save(folder / name)
    return [folder / name for name in sorted(names)]


def _maker(family: str) -> Any:
    function = family.replace("-", "_")
    for name in _MODULES:
        module = import_module(f"tests.support.tiny.{name}")
        if hasattr(module, function):
            return getattr(module, function)
    raise KeyError(family)


def _adapt_files(pipeline: Any, folder: Path) -> None:
    for name, component in pipeline.components.items():
        if (folder / name / "tokenizer_config.json").is_file():
            save_for_older_readers(component, folder / name)
        if type(component).__name__ == "CLIPTextModel":
            _prefix_weights(folder / name / "model.safetensors", "text_model.")
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    for name, entry in index.items():
        # In transformers 4 the plain name is the slow tokenizer, which needs a sentencepiece file.
        if entry in (["transformers", "T5Tokenizer"], ["transformers", "GemmaTokenizer"]):
            index[name] = ["transformers", f"{entry[1]}Fast"]
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _prefix_weights(path: Path, prefix: str) -> None:
    # transformers 5 drops this prefix; published checkpoints hold it and transformers 4 needs it.
    from safetensors.torch import load_file, save_file

    tensors = {f"{prefix}{name}": tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
