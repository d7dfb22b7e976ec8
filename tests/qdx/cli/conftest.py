"""A command line to call, and a small pipeline folder to call it on."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from safetensors.numpy import save_file

from qdx.cli.main import run_command


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@pytest.fixture
def qdx(capsys, monkeypatch):
    """Runs a command line in this process."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("QDX_DEBUG", raising=False)

    def call(*arguments):
        capsys.readouterr()
        status = run_command([str(argument) for argument in arguments])
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture
def facades(tmp_path_factory, monkeypatch):
    """The working folder has a `b` and a `bundle`, an `m` and a `model`, which look like a bundle and pipelines until they are opened."""
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    for file in ("b/qdx.json", "bundle/qdx.json", "m/model_index.json", "model/model_index.json"):
        write(here / file, {})


@pytest.fixture
def model(tmp_path):
    """A pipeline folder of a UNet, a VAE, a scheduler and a tokenizer, as far as its files tell."""
    root = tmp_path / "model"
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.0",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
    }
    write(root / "model_index.json", index)
    write(root / "scheduler" / "scheduler_config.json", {"_class_name": "DDIMScheduler"})
    for name, dtype in (("unet", np.float16), ("vae", np.float32)):
        write(root / name / "config.json", {"_class_name": index[name][1]})
        tensors = {"conv.weight": np.ones((8, 4, 3, 3), dtype), "conv.bias": np.ones(8, dtype)}
        save_file(tensors, root / name / "diffusion_pytorch_model.safetensors")
    return root


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
