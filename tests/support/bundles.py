"""A small bundle and helpers that several tests share."""

from __future__ import annotations

from pathlib import Path

from qdx.bundle.writer import BundleWriter
from qdx.targets import load_target

MANIFEST = {
    "schema": "qdx.bundle/1",
    "qdx": "0.1.0",
    "target": {
        "name": "onnxruntime",
        "runtime": "onnxruntime",
        "options": {"session.set_denormal_as_zero": "0"},
        "profile": load_target("onnxruntime").to_json(),
    },
    "plan": {"schema": "qdx.plan/1", "rules": []},
    "resolution": [
        {
            "component": "unet",
            "asked": "float16",
            "rule": "rules[0]",
            "becomes": "float16",
            "computes": "float32",
            "why": "stored as float16",
        }
    ],
    "resolved": {
        "gates": {
            "component": {"sqnr_db_min": 50},
            "pipeline": {"psnr_db_min": 40, "ssim_min": 0.98},
        },
        "mixed_precision": False,
        "plan": [0],
        "chosen": [{"name": "float", "value": "float16", "by": "rules[0]", "why": ""}],
        "outcomes": [],
        "sites": {},
    },
    "source": {"pipeline_class": "DDPMPipeline", "files": {"model_index.json": "0" * 64}},
    "call": {"num_inference_steps": 1},
    "shapes": "static",
    "components": {
        "unet": {
            "class": "UNet2DModel",
            "library": "diffusers",
            "methods": {
                "forward": {
                    "folder": "unet",
                    "inputs": [
                        {
                            "argument": "sample",
                            "name": "sample",
                            "dtype": "float32",
                            "shape": ["b", 3],
                        }
                    ],
                    "outputs": [
                        {
                            "field": "sample",
                            "name": "out_sample",
                            "dtype": "float32",
                            "shape": [1, 3],
                        }
                    ],
                    "constants": {"return_dict": False},
                }
            },
        }
    },
    "versions": {"torch": "2.13.0"},
}


def fill(folder: Path, content: bytes = b"new") -> None:
    """Writes the files of a small bundle, as a backend would."""
    (folder / "unet").mkdir()
    (folder / "unet" / "model.onnx").write_bytes(b"graph " + content)
    (folder / "unet" / "model.onnx_data").write_bytes(content * 1000)
    (folder / "model_index.json").write_bytes(b"{}\n")


def write(output: Path, content: bytes = b"new", *, force: bool = False) -> Path:
    """Writes a complete small bundle."""
    with BundleWriter(output, force=force) as writer:
        fill(writer.staging, content)
        writer.commit(MANIFEST)
    return output


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]] | None:
    """Mode and content of everything below a folder; None if it does not exist."""
    if not folder.exists():
        return None
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def hidden(parent: Path) -> list[str]:
    """The names of staging folders."""
    return sorted(path.name for path in parent.iterdir() if path.name.startswith("."))
