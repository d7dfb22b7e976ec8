"""Weights in 8 and 4 bits: bytes that they should take against bytes on disk, and what the runtime computes with them.

    python -m benchmarks.weight_only --work build/weight_only

The UNet of the speed measurements (79.6 million random weights) and that of `samples/shapes`. What a component should
take, in bytes:

    quantized weight:  ceil(n * bits / 8) + 4 * scales + ceil(scales * bits / 8) where there are zero points
                       scales: 1, one for each output channel, or one for each block of the reduced dimension
    other parameters:  4 * n
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx
import torch

import qdx
from benchmarks.pipelines import make_pipeline
from qdx.bundle.reader import read_bundle
from qdx.exporter.dtypes import bits
from qdx.exporter.measure.metrics import sqnr_db, worst_of
from qdx.exporter.plan.schema.load import load_plan
from qdx.runtime.pipeline import open_methods
from qdx.verification.measure.quantized import as_method, quantized_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qdx.exporter.graph.ir.graph import Graph, TensorSpec
    from qdx.exporter.plan.resolve.resolution import SiteResolution
    from qdx.exporter.plan.schema.scheme import Weights

ROOT: Final = Path(__file__).resolve().parents[1]
COMPONENT: Final = "unet"
WHERE: Final = "unet.forward"
PLANS: Final = ("w8", "w4")
TARGETS: Final = ("onnxruntime", "openvino")
_FLOAT_BYTES: Final = 4
_TIMESTEP: Final = 500
_DATA: Final = (".onnx_data", ".bin")


@dataclass(frozen=True)
class Size:
    """One component of one bundle.

    Attributes:
        model: The pipeline's folder name.
        plan: The plan.
        target: The target.
        parameters: Number of the component's parameters.
        expected_bytes: By the formula.
        weights_bytes: Weights on disk, wherever they lie.
        padding_bytes: Between them, so that large ones begin on a page.
        graph_bytes: The rest of the files: the graph, which names every operation.
        sqnr_db: Of the runtime's output against the quantized graph in PyTorch.
    """

    model: str
    plan: str
    target: str
    parameters: int
    expected_bytes: int
    weights_bytes: int
    padding_bytes: int
    graph_bytes: int
    sqnr_db: float

    @property
    def excess(self) -> float:
        """Weights on disk beyond the formula, as a share of it."""
        return self.weights_bytes / self.expected_bytes - 1


def expected_bytes(graph: Graph, resolutions: Iterable[SiteResolution]) -> int:
    """What a graph's weights should take in a file.

    Args:
        graph: The float graph.
        resolutions: What becomes of its sites.
    """
    schemes = {
        r.site.weight: scheme
        for r in resolutions
        if r.site.weight is not None and (scheme := r.quantized_weights) is not None
    }
    names = {graph.weights.aliases.get(name, name) for name in graph.parameters.values()}
    return sum(
        _quantized_bytes(graph.weights[name].shape, schemes[name])
        if name in schemes
        else _FLOAT_BYTES * math.prod(graph.weights[name].shape)
        for name in names
    )


def _quantized_bytes(shape: tuple[int, ...], scheme: Weights) -> int:
    width = bits(scheme.dtype)
    scales = {
        "tensor": 1,
        "channel": shape[0],
        "block": shape[0] * math.ceil(shape[1] / (scheme.block or 1)) * math.prod(shape[2:]),
    }[scheme.granularity]
    zero_points = 0 if scheme.symmetric else math.ceil(scales * width / 8)
    return math.ceil(math.prod(shape) * width / 8) + _FLOAT_BYTES * scales + zero_points


def measure(model: Path, plan: str, target: str, work: Path, threads: int = 1) -> Size:
    """Exports the UNet of a pipeline, and measures its size and its error against the quantized graph."""
    folder = work / f"{model.name}-{plan}-{target}"
    qdx.export(model, target=target, plan=plan, output=folder, components=[COMPONENT], force=True)
    bundle = read_bundle(folder)
    made = quantized_model(bundle, load_plan(plan), model)
    method = open_methods(bundle, threads=threads)[WHERE]
    inputs = _inputs(made.quantized[WHERE].inputs)
    reference, got = as_method(method, made.quantized[WHERE])(inputs), method(inputs)
    entry = bundle.manifest.components[COMPONENT].methods[WHERE.partition(".")[2]]
    stored = _stored(folder / entry.folder)
    graph = made.prepared[WHERE]
    return Size(
        model.name,
        plan,
        target,
        sum(math.prod(graph.weights[name].shape) for name in set(graph.parameters.values())),
        expected_bytes(graph, made.resolved.sites[WHERE]),
        stored.weights,
        stored.padding,
        stored.graph,
        _sqnr(reference, got),
    )


def _inputs(specs: Iterable[TensorSpec]) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    found = {}
    for spec in specs:
        dtype = getattr(torch, spec.dtype)
        sizes = [size for size in spec.shape if isinstance(size, int)]
        found[spec.name] = (
            torch.full(sizes, _TIMESTEP, dtype=dtype)
            if spec.name == "timestep"
            else torch.randn(sizes, generator=random).to(dtype)
        )
    return found


def _sqnr(reference: Mapping[str, torch.Tensor], got: Mapping[str, torch.Tensor]) -> float:
    return worst_of(sqnr_db(tensor, got[name]) for name, tensor in reference.items())


@dataclass(frozen=True)
class _Stored:
    """Bytes of one artifact's files by what they hold."""

    weights: int
    padding: int
    graph: int


def _stored(folder: Path) -> _Stored:
    data = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _DATA)
    graph = next(path for path in folder.iterdir() if path.suffix in {".onnx", ".xml"})
    size = graph.stat().st_size
    if graph.suffix == ".xml":
        return _Stored(data, 0, size)
    # ONNX keeps small initializers in the file of the graph, and begins large ones on a page.
    inside = outside = 0
    for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        outside += int(entries.get("length", 0))
        inside += len(tensor.raw_data)
    return _Stored(inside + outside, data - outside, size - inside)


def main() -> int:
    """Measures both models with both plans on both targets, and prints a table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    models = {"pipeline": make_pipeline, "shapes": lambda _: ROOT / "samples" / "shapes"}
    sizes = []
    for name in arguments.models:
        model = models[name](work / name)
        for plan in arguments.plans:
            for target in arguments.targets:
                sizes.append(measure(model, plan, target, work, arguments.threads))
                _say(sizes[-1])
    (work / "weight_only.json").write_text(json.dumps([asdict(s) for s in sizes], indent=2) + "\n")
    return 0


def _say(size: Size) -> None:
    sys.stdout.write(
        f"{size.model:10} {size.plan:4} {size.target:12} {size.parameters / 1e6:6.2f} M parameters: "
        f"expected {size.expected_bytes:,} bytes, weights {size.weights_bytes:,} ({100 * size.excess:+.2f} %), "
        f"padding {size.padding_bytes:,}, graph {size.graph_bytes:,}, {4 * size.parameters / size.weights_bytes:.2f} times smaller than float32, "
        f"runtime against quantized graph {size.sqnr_db:.1f} dB\n"
    )
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path("build/weight_only"))
    parser.add_argument("--models", nargs="+", choices=("pipeline", "shapes"), default=["pipeline", "shapes"])  # fmt: skip
    parser.add_argument("--plans", nargs="+", default=list(PLANS))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
