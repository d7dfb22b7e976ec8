"""Bytes of weights in Core ML packages: what they should take against what the files have.

    python -m benchmarks.coreml_sizes samples/shapes samples/shapes-mmdit

Of each component that a pipeline call runs, with every preset that compresses weights and with float16. What a
component should take, in bytes:

    weights of operations:  as `qdx plan show` says: elements, scales, zero points and tables
    other parameters:       2 * n
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import qdx
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan import load_plan, resolve
from qdx.exporter.plan.resolve.totals import weight_bytes
from qdx.source.pipeline import trace_pipeline
from qdx.targets import load_target

PLANS: Final = ("float16", "w8", "w4", "palette6", "palette4")


@dataclass(frozen=True)
class Size:
    """The weights of one component in one package.

    Attributes:
        where: `unet.forward`.
        expected_bytes: By the formula.
        weights_bytes: Of the file of weights.
        package_bytes: Of all files of the package.
    """

    where: str
    expected_bytes: int
    weights_bytes: int
    package_bytes: int

    @property
    def excess(self) -> float:
        """What the file has beyond what it should, as a share of that."""
        return self.weights_bytes / self.expected_bytes - 1


def sizes(model: Path, plan: str, name: str, folder: Path) -> Iterator[Size]:
    """Exports a pipeline with one plan and measures its packages.

    Args:
        model: The pipeline folder.
        plan: Name of a preset.
        name: The target.
        folder: Takes the bundle.
    """
    target = load_target(name)
    bundle = folder / plan
    qdx.export(model, target=name, plan=plan, output=bundle, call={})
    source = trace_pipeline(model, {})
    graphs = {where: source.graph(where, target) for where in source.chosen}
    found = {where: sites(graph) for where, graph in graphs.items()}
    resolved = resolve(
        load_plan(plan), source.skeleton.modules, target, found, source.captured.kinds
    )
    for where, graph in graphs.items():
        weights = {
            r.site.weight: weight_bytes(r)
            for r in resolved.sites[where]
            if r.site.weight is not None
        }
        files = [
            path
            for path in (bundle / target.layout.folder(*where.split("."))).rglob("*.mlpackage/**/*")
            if path.is_file()
        ]
        yield Size(
            where,
            sum(weights.values()) + 2 * _other_elements(graph, weights),
            sum(path.stat().st_size for path in files if path.name == "weight.bin"),
            sum(path.stat().st_size for path in files),
        )


def _other_elements(graph: Graph, counted: dict[str, int]) -> int:
    """Elements of the parameters that are read and that no operation counts as its weight."""
    read = {n.name for n in graph.program.graph.nodes if n.op == "placeholder" and n.users}
    names = {name for placeholder, name in graph.parameters.items() if placeholder in read}
    return sum(math.prod(graph.weights[name].shape) for name in names - counted.keys())


def rows(models: list[Path], plans: list[str], target: str) -> Iterator[str]:
    """The table, line by line as it is measured."""
    yield "| model | plan | component | should, bytes | weights, bytes | difference | package, bytes |"
    yield "|---|---|---|---|---|---|---|"
    for model in models:
        for plan in plans:
            with TemporaryDirectory() as folder:
                for size in sizes(model, plan, target, Path(folder)):
                    yield (
                        f"| `{model.name}` | `{plan}` | `{size.where}` | {size.expected_bytes:,} "
                        f"| {size.weights_bytes:,} | {size.excess:+.2%} | {size.package_bytes:,} |"
                    )


def main() -> None:
    """Measures and says the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--plans", nargs="+", default=PLANS)
    parser.add_argument("--target", default="coreml", help="a target of Core ML")
    options = parser.parse_args()
    for line in rows(options.models, options.plans, options.target):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
