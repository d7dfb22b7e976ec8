"""What a run of the reference depends on, as one digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import torch
from PIL import Image

import qdx
from qdx.exporter.capture.arguments import IMAGE_ARGUMENTS
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.errors import UsageError
from qdx.exporter.files import dump_json
from qdx.verify.recorded_run import RUN_SCHEMA
from qdx.verify.samples import RunSpec

__all__ = ["RunIdentity", "versions_of"]

_PACKAGES: Final = ("diffusers", "numpy", "torch", "transformers")


@dataclass(frozen=True)
class RunIdentity:
    """What all runs of one reference have in common: with a call and a seed, it decides their bits.

    Attributes:
        source: SHA-256 of the model's files, by relative path.
        pipeline_class: Of the pipeline.
        graphs: Names of every graph's inputs, by `component.method`: they tell variants apart.
        left_out: Components that are not on record.
        keep: How many calls of each method are kept, besides the last.
        device: What computes: `cpu`, or `cuda: NAME` of a GPU.
    """

    source: Mapping[str, str]
    pipeline_class: str
    graphs: Mapping[str, AbstractSet[str]]
    left_out: tuple[str, ...]
    keep: int
    device: str = "cpu"

    def key(self, spec: RunSpec) -> str | None:
        """The SHA-256 of all that decides what a run does; None for a call that holds more than plain JSON.

        Args:
            spec: The run; its call is complete.
        """
        try:
            call = record_call(spec.call)
        except UsageError:
            return None
        value = {
            "schema": RUN_SCHEMA,
            "source": dict(self.source),
            "pipeline": self.pipeline_class,
            "call": call,
            "images": {n: _pixels(spec.call[n]) for n in IMAGE_ARGUMENTS if n in spec.call},
            "seed": spec.seed,
            "keep": self.keep,
            "graphs": {where: sorted(names) for where, names in self.graphs.items()},
            "left_out": sorted(self.left_out),
            "versions": versions_of(*_PACKAGES),
            # The same sum in another order has other bits.
            "threads": torch.get_num_threads(),
            "device": self.device,
            "instructions": torch.backends.cpu.get_cpu_capability(),
        }
        return hashlib.sha256(dump_json(value)).hexdigest()


def versions_of(*packages: str) -> dict[str, str]:
    """The versions of qdx and of packages, by name."""
    found = {"qdx": qdx.__version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _pixels(value: Any) -> Any:
    """Digests of pictures, in the structure in which they are given."""
    if isinstance(value, list):
        return [_pixels(one) for one in value]
    if not isinstance(value, Image.Image):
        return None
    digest = hashlib.sha256(f"{value.mode} {value.width}x{value.height}\n".encode("ascii"))
    digest.update(value.tobytes())
    return digest.hexdigest()
