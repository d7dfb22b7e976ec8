"""Writing weights and configurations: fp16 safetensors, plain JSON, no machine's paths."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

DROPPED = ("_name_or_path", "name_or_path", "transformers_version", "torch_dtype")


def to_half(module: torch.nn.Module) -> torch.nn.Module:
    """Turns a module's floating weights into fp16 and checks them.

    Args:
        module: The module; changed in place.

    Returns:
        The same module.

    Raises:
        ValueError: A weight is not finite as fp16.
    """
    module.half()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: a weight is not finite as fp16")
    return module


def write_json(path: Path, content: object) -> None:
    """Writes JSON with two spaces and a last newline.

    Args:
        path: The file.
        content: Anything that JSON can hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def strip_paths(folder: Path) -> None:
    """Removes from every JSON configuration what only the machine that wrote it knows.

    Args:
        folder: A pipeline or component folder; searched recursively.
    """
    for path in sorted(folder.rglob("*config.json")) + sorted(folder.rglob("model_index.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {k: v for k, v in content.items() if k not in DROPPED})


class Checkpoint:
    """The state of a training in one safetensors file and one JSON file beside it."""

    def __init__(self, stem: Path) -> None:
        """Names the checkpoint.

        Args:
            stem: Path without suffix.
        """
        self.tensors = stem.with_suffix(".safetensors")
        self.facts = stem.with_suffix(".json")

    def save(self, tensors: dict[str, torch.Tensor], facts: dict[str, object]) -> None:
        """Replaces the checkpoint.

        Args:
            tensors: Named tensors of any dtype.
            facts: Numbers and words that JSON can hold.
        """
        self.tensors.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.tensors.with_suffix(".tmp")
        save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, fresh)
        fresh.replace(self.tensors)
        write_json(self.facts, facts)

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, object]] | None:
        """Reads the checkpoint.

        Returns:
            Tensors and facts, or None where there is none.
        """
        if not (self.tensors.is_file() and self.facts.is_file()):
            return None
        return load_file(self.tensors), json.loads(self.facts.read_text(encoding="utf-8"))


def save_text_encoder(encoder: torch.nn.Module, folder: Path) -> None:
    """Writes a CLIP text encoder under the tensor names that every release of its library reads.

    The configuration asks for fp32 at loading, as the other parts of a pipeline are by default.

    Args:
        encoder: A text encoder of ``transformers``.
        folder: Where configuration and weights go.
    """
    encoder.save_pretrained(folder)
    file = folder / "model.safetensors"
    named = {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": t
        for name, t in load_file(file).items()
    }
    save_file(named, file, metadata={"format": "pt"})
    strip_paths(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, "dtype": "float32"})
