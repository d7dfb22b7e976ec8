"""The pipeline calls of a calibration in plain PyTorch, up to the latents; writes the seconds that they take.

python -m benchmarks.plain_calls build/model --samples 2 --call '{"prompt": "a", "num_inference_steps": 4}' -o seconds
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.materialize import load_pipeline


def main() -> None:
    """Runs one call after the other, each with the noise of its own seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--call", type=json.loads, required=True)
    parser.add_argument("--output", "-o", type=Path, required=True)
    arguments = parser.parse_args()
    pipeline: Any = load_pipeline(read_pipeline_folder(arguments.model)).pipeline
    pipeline.set_progress_bar_config(disable=True)
    start = time.monotonic()
    for seed in range(arguments.samples):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            pipeline(**arguments.call, output_type="latent", generator=generator)
    arguments.output.write_text(f"{time.monotonic() - start}\n")


if __name__ == "__main__":
    main()
