"""An estimate of calibration's time and memory for models of real sizes, from their configurations alone.

    python -m benchmarks.estimates sd15 sdxl flux-12b
    python -m benchmarks.estimates sdxl --rate "a GPU=8e12" --rate "16 cores=4.5e11"

Nothing of a model is run: its calls are traced with fake tensors, and their multiply-accumulates divided by a rate.
Without `--rate`, that of this machine is measured on a block of Stable Diffusion's, and others are assumed from it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.real_sizes import MODELS, make
from qdx.cli.output import table
from qdx.exporter.cost.activations import peak_activation_bytes
from qdx.exporter.cost.arithmetic import macs_of_call
from qdx.exporter.plan.schema.settings import CALIBRATION_STEPS_MOST, Calibration
from qdx.exporter.text.words import about, memory
from qdx.source.pipeline import trace_pipeline

_CALLS: dict[str, dict[str, Any]] = {
    "sd15": {"height": 512, "width": 512, "guidance_scale": 7.5},
    "sdxl": {"height": 1024, "width": 1024, "guidance_scale": 5.0},
}
_FLUX_CALL = {"height": 1024, "width": 1024, "guidance_scale": 3.5, "max_sequence_length": 512}
_DENOISERS = ("unet", "transformer")
_PROBE_SECONDS = 3.0
_CORES = 16
_EFFICIENCY = 0.8
"""Assumed of the other cores: memory is shared, and operations between the large ones do not scale."""
_GPU_MACS_PER_S = 8e12
"""Assumed of a GPU of 40 float32 teraflops, nominally 20e12 multiply-accumulates, of which such models reach 40 %."""


@dataclass(frozen=True)
class Cost:
    """One graph of a pipeline.

    Attributes:
        model: The pipeline.
        where: `component.method`.
        calls: Of it, for one picture.
        macs: Multiply-accumulates of a call.
        weight_bytes: Of its weights in float32.
        peak_bytes: What a call holds at most, in float32, with weights that are read late.
    """

    model: str
    where: str
    calls: int
    macs: int
    weight_bytes: int
    peak_bytes: int


def main() -> None:
    """Prints the costs of each graph and the seconds of a calibration by rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--rate", action="append", default=[], metavar="NAME=MACS_PER_S")
    usual = Calibration()
    parser.add_argument(
        "--steps", type=int, default=CALIBRATION_STEPS_MOST, help="denoising steps of a sample"
    )
    parser.add_argument("--samples", type=int, default=usual.samples)
    parser.add_argument(
        "--observed", type=float, default=usual.observed, help="share of the denoiser's calls"
    )
    parser.add_argument("--observed-cost", type=float, default=1.2, help="in plain calls")
    arguments = parser.parse_args()
    rates = dict(map(_rate, arguments.rate)) or measured_rates()
    costs = [cost for model in arguments.models for cost in costs_of(model, arguments.steps)]
    print("ESTIMATES from configurations, nothing of these models was run; float32")
    print("flux: the transformer alone has its real size, the other components are tiny\n")
    print(_costs_table(costs, rates))
    print(
        f"\ncalibration of {arguments.samples} samples of {arguments.steps} steps, {arguments.observed:g} of the "
        f"denoiser's calls observed at {arguments.observed_cost:g} times a plain call\n"
    )
    rows = []
    for model in arguments.models:
        own = [cost for cost in costs if cost.model == model]
        macs = calibration_macs(own, arguments.samples, arguments.observed, arguments.observed_cost)
        needed = max(cost.peak_bytes for cost in own)
        rows.append([model, *(about(macs / rate) for rate in rates.values()), memory(needed)])
    print(table(["model", *rates, "activations and late weights"], rows))


def costs_of(model: str, steps: int) -> list[Cost]:
    """Traces a model that has no weights; its graphs in the order of their names."""
    with tempfile.TemporaryDirectory() as work:
        make(model, Path(work) / "model", dtype="float16", hollow=True)
        call = {"prompt": "a", "num_inference_steps": 2, **_CALLS.get(model, _FLUX_CALL)}
        source = trace_pipeline(Path(work) / "model", call)
        found = []
        for where in sorted(source.chosen):
            graph = source.graph(where)
            calls = steps if where.startswith(_DENOISERS) else 1
            weights = sum(4 * torch.Size(one.shape).numel() for one in graph.weights.values())
            found.append(
                Cost(
                    model, where, calls, macs_of_call(graph), weights, peak_activation_bytes(graph)
                )
            )
    return found


def calibration_macs(
    costs: list[Cost], samples: int, observed: float, observed_cost: float
) -> float:
    """Multiply-accumulates of a calibration in plain ones: no autoencoder runs after the last observed call."""
    before = [cost for cost in costs if not cost.where.endswith(".decode")]
    plain = samples * sum(cost.calls * cost.macs for cost in before)
    denoisers = [cost for cost in before if cost.where.startswith(_DENOISERS)]
    extra = samples * sum(cost.calls * cost.macs for cost in denoisers) * (observed_cost - 1)
    return plain + observed * extra


def measured_rates() -> dict[str, float]:
    """The rate of this machine, and what it lets us assume of others."""
    cores = os.cpu_count() or 1
    rate = measure_rate()
    load = os.getloadavg()[0]
    if load > cores:
        sys.stderr.write(
            f"other work runs on these {cores} cores (load {load:.1f}): the rate is too low\n"
        )
    return {
        f"{cores} cores, measured": rate,
        f"{_CORES} cores, assumed": rate / cores * _CORES * _EFFICIENCY,
        "a GPU, assumed": _GPU_MACS_PER_S,
    }


def measure_rate() -> float:
    """Multiply-accumulates per second of a block as Stable Diffusion has: convolution, norm, attention, linear."""
    torch.manual_seed(0)
    block = _Block().eval()
    image = torch.randn(2, _CHANNELS, _SIDE, _SIDE)
    with torch.no_grad():
        block(image)
        began, runs = time.monotonic(), 0
        while time.monotonic() - began < _PROBE_SECONDS:
            block(image)
            runs += 1
        return runs * _BLOCK_MACS / (time.monotonic() - began)


_CHANNELS, _SIDE, _HEADS = 320, 64, 8
_TOKENS = _SIDE * _SIDE
_BLOCK_MACS = (
    2 * _TOKENS * _CHANNELS * (9 * _CHANNELS + 4 * _CHANNELS + 2 * _TOKENS + 8 * _CHANNELS)
)


class _Block(nn.Module):
    """A residual convolution, self-attention and a feed-forward, in Stable Diffusion's largest resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, _CHANNELS)
        self.conv = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1)
        self.inside = nn.Linear(_CHANNELS, 3 * _CHANNELS)
        self.outside = nn.Linear(_CHANNELS, _CHANNELS)
        self.feed = nn.Sequential(
            nn.LayerNorm(_CHANNELS),
            nn.Linear(_CHANNELS, 4 * _CHANNELS),
            nn.GELU(),
            nn.Linear(4 * _CHANNELS, _CHANNELS),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = image + self.conv(nn.functional.silu(self.norm(image)))
        tokens = image.flatten(2).transpose(1, 2).contiguous()
        heads = (
            part.unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for part in self.inside(tokens).chunk(3, -1)
        )
        attended = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        tokens = tokens + self.outside(attended)
        answer: torch.Tensor = tokens + self.feed(tokens)
        return answer


def _rate(text: str) -> tuple[str, float]:
    name, _, rate = text.rpartition("=")
    if not name or not float(rate) > 0:
        raise SystemExit(f"--rate: `{text}`, expected such as `a GPU=8e12`")
    return name, float(rate)


def _costs_table(costs: list[Cost], rates: dict[str, float]) -> str:
    columns = [
        "model",
        "graph",
        "calls",
        "GMAC/call",
        "weights",
        "peak",
        *(f"s/call, {n}" for n in rates),
    ]
    rows = [
        [
            cost.model,
            cost.where,
            cost.calls,
            round(cost.macs / 1e9, 1),
            memory(cost.weight_bytes),
            memory(cost.peak_bytes),
            *(cost.macs / rate for rate in rates.values()),
        ]
        for cost in costs
    ]
    return table(columns, rows)


if __name__ == "__main__":
    main()
