"""Packages for Core ML in float types against PyTorch, family by family, in the interpreter.

    python -m benchmarks.coreml_families
    python -m benchmarks.coreml_families --plan float32
    python -m benchmarks.coreml_families sd3 flux --targets coreml

Tiny pipelines with random weights. Every call that the components get in a run of the float pipeline is replayed on
the package. Of the denoiser's outputs the least SQNR and the least PSNR count,

    SQNR = 20 log10(rms(reference) / rms(error))        PSNR = 20 log10(max |reference| / rms(error))

the latter as Core ML's own tools for diffusion models report it; then the same of the other components' outputs, and
of what the whole pipelines make.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from torch import Tensor

import qdx
from qdx.bench.calls import reference_calls
from qdx.bundle.reader import read_bundle
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.materialize import load_pipeline
from qdx.exporter.measure.metrics import psnr_db, sqnr_db, worst_of
from qdx.runtime.pipeline import open_methods

TARGETS: Final = ("coreml", "coreml-ios17")
UNTRANSLATED: Final = frozenset({"qwenimage"})
_DENOISERS: Final = ("unet", "transformer")
_STEPS: Final = 2


@dataclass(frozen=True)
class Fidelity:
    """Two metrics of one comparison, or the least of several, in decibels."""

    sqnr_db: float
    psnr_db: float

    @classmethod
    def of(cls, reference: Tensor, output: Tensor) -> Fidelity:
        """Measures one output."""
        return cls(sqnr_db(reference, output), psnr_db(reference, output, peak=None))

    @classmethod
    def least(cls, found: Sequence[Fidelity]) -> Fidelity:
        """The least of each; NaN where one is NaN."""
        return cls(worst_of(f.sqnr_db for f in found), worst_of(f.psnr_db for f in found))

    def __str__(self) -> str:
        return f"{self.sqnr_db:.1f}, {self.psnr_db:.1f}"


def measure(
    name: str, target: str, plan: str, folder: Path
) -> tuple[Fidelity, Fidelity | None, Fidelity]:
    """The denoiser of a family, its other components if any, and what its pipeline makes.

    Args:
        name: Of the family.
        target: Name of the target.
        plan: Name of a preset.
        folder: Takes model and bundle.
    """
    from tests.support.tiny import FAMILIES, build

    family = FAMILIES[name]
    model, bundle = build(name, folder / "model"), folder / "bundle"
    qdx.export(model, target=target, plan=plan, output=bundle, call=family.arguments())
    opened = read_bundle(bundle)
    methods = open_methods(opened)
    calls = reference_calls(opened.manifest, model, steps=_STEPS)
    denoisers: list[Fidelity] = []
    others: list[Fidelity] = []
    for where, method in calls.items():
        kept = denoisers if where.startswith(_DENOISERS) else others
        kept += [
            Fidelity.of(reference, methods[where](dict(inputs))[field])
            for inputs, outputs in zip(method.inputs, method.outputs, strict=True)
            for field, reference in outputs.items()
        ]
    reference, artifact = load_pipeline(read_pipeline_folder(model)).pipeline, qdx.open(bundle)
    products = []
    for pipeline in (reference, artifact):
        output = pipeline(
            **family.arguments(), generator=torch.Generator().manual_seed(1), output_type="np"
        )
        products.append(torch.from_numpy(np.asarray(getattr(output, family.output))))
    others_least = Fidelity.least(others) if others else None
    return Fidelity.least(denoisers), others_least, Fidelity.of(*products)


def rows(names: Sequence[str], targets: Sequence[str], plan: str) -> Iterator[str]:
    """The table, line by line as it is measured."""
    heads = [
        f"{target}, {what}" for target in targets for what in ("denoiser", "others", "pipeline")
    ]
    yield "| SQNR, PSNR in dB | " + " | ".join(heads) + " |"
    yield "|---" * (1 + len(heads)) + "|"
    for name in names:
        cells = []
        for target in targets:
            with TemporaryDirectory() as folder:
                cells += [str(one or "-") for one in measure(name, target, plan, Path(folder))]
        yield f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measures and says the table."""
    from tests.support.tiny import FAMILIES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", help="all without")
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--plan", default="float16", choices=("float16", "float32"))
    options = parser.parse_args()
    names = options.families or [name for name in FAMILIES if name not in UNTRANSLATED]
    for line in rows(names, options.targets, options.plan):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
