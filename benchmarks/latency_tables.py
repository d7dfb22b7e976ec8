"""Whether the times of operations tell the time of a plan: tables of exported bundles, held against others.

    python -m benchmarks.latency_tables --model samples/shapes --target openvino --work build/latency

Exports the denoiser in float32, in the options w8 (weights) and w8a8 (weights and inputs) for every convolution and linear
layer, with the presets w8 and w8a8, and with plans that draw an option for each layer. The table is measured on the
first three and on one of those drawn; what it predicts for the others is held against what they take, in turns with
float32. With one thread, processor time counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import qdx
from qdx.analyze.latency import DrawnArtifact, OptionArtifact, measure_latency
from qdx.analyze.latency_table import FLOAT, LatencyTable
from qdx.analyze.latency_timing import Bench
from qdx.backends.registry import get_backend
from qdx.bundle.reader import artifact_path, read_bundle
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.source.pipeline import trace_pipeline
from qdx.targets.profile import load_target

WEIGHTS, BOTH = 1, 2
SCHEMES: Final[dict[int, dict[str, Any]]] = {
    WEIGHTS: {"weights": {"dtype": "int8"}},
    BOTH: {"weights": {"dtype": "int8"}, "inputs": {"dtype": "int8"}},
}
PRESETS: Final = {"float": "float32"}
NAMES_MOST: Final = 60
"""Of one rule."""


def main() -> int:
    """Exports what is not there yet, measures, prints a table and writes the figures."""
    arguments = _arguments()
    model, work = arguments.model, arguments.work / arguments.model.name
    work.mkdir(parents=True, exist_ok=True)
    profile = load_target(arguments.target)
    source = trace_pipeline(model, {}, components=[arguments.component])
    where = next(iter(source.chosen))
    graph = source.graph(where, profile)
    sites = [one for one in find_sites(graph) if one.op in {"conv2d", "linear"} and one.weight]
    plans = _plans(arguments.component, [one.key for one in sites], arguments.mixed)
    plans["float"] = {}
    for name in arguments.presets:
        plans[name] = {}
    for name in plans:
        _export(model, arguments, work, name, plans[name])
    folders = {
        name: artifact_path(read_bundle(_bundle(work, arguments, name)), where) for name in plans
    }
    chosen = {name: _chosen(_bundle(work, arguments, name), where) for name in plans}
    artifacts = [
        OptionArtifact(FLOAT, folders["float"], frozenset()),
        OptionArtifact(WEIGHTS, folders["all-w8"], frozenset(chosen["all-w8"])),
        OptionArtifact(BOTH, folders["all-w8a8"], frozenset(chosen["all-w8a8"])),
    ]
    backend = get_backend(profile.runtime)
    bench = Bench(
        graph, find_sites(graph), backend, profile.options,
        threads=arguments.threads, rounds=arguments.rounds,
    )  # fmt: skip
    drawn = [
        DrawnArtifact(folders[name], chosen[name], name, fitted=seed == 0)
        for seed in range(arguments.mixed)
        for name in [f"mixed-{seed}"]
    ]
    table = measure_latency(bench, artifacts, ("float32", "float32", "int8"), drawn=drawn)
    measured = _measured(bench, folders)
    rows: list[dict[str, Any]] = [
        {
            "plan": name,
            "measured_ms": ms,
            "predicted_ms": table.predict_ms(_known(table, chosen[name])),
        }
        for name, ms in measured.items()
    ]
    for row in rows:
        row["off"] = row["predicted_ms"] / row["measured_ms"] - 1
        sys.stdout.write(
            f"{row['plan']:10} {row['measured_ms']:9.2f} ms measured {row['predicted_ms']:9.2f} ms"
            f" predicted {row['off']:+7.1%}\n"
        )
    result = {"rows": rows, "load": os.getloadavg(), "table": table.to_json()}
    (work / f"{arguments.target}-latency.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _plans(component: str, keys: list[str], mixed: int) -> dict[str, dict[str, Any]]:
    """The plans by name: of one option each, and drawn."""
    draw = random.Random(1)
    choices: dict[str, Mapping[str, int]] = {
        "float": {},
        "all-w8": dict.fromkeys(keys, WEIGHTS),
        "all-w8a8": dict.fromkeys(keys, BOTH),
        **{f"mixed-{n}": {k: draw.randrange(3) for k in keys} for n in range(mixed)},
    }
    return {name: _plan(name, component, chosen) for name, chosen in choices.items()}


def _plan(name: str, component: str, chosen: Mapping[str, int]) -> dict[str, Any]:
    rules = []
    for option, scheme in SCHEMES.items():
        names = [key for key, one in chosen.items() if one == option]
        for start in range(0, len(names), NAMES_MOST):
            select = {"component": component, "name": names[start : start + NAMES_MOST]}
            rules.append({"select": select, **scheme})
    if chosen and set(chosen.values()) == {BOTH}:
        select = {"component": component, "op": ["qk", "pv"]}
        rules.append({"select": select, "inputs": SCHEMES[BOTH]["inputs"], "when": "always"})
    return {
        "schema": "qdx.plan/1",
        "name": name,
        "rules": rules,
        "calibration": {"samples": 1, "steps": 2, "timestep_groups": 2},
        "gates": {
            "component": {"sqnr_db_min": 1},
            "pipeline": {"psnr_db_min": 1, "ssim_min": 0.0},
        },
    }


def _bundle(work: Path, arguments: argparse.Namespace, name: str) -> Path:
    return Path(work) / f"{arguments.target}-{name}"


def _export(
    model: Path, arguments: argparse.Namespace, work: Path, name: str, plan: dict[str, Any]
) -> None:
    bundle = _bundle(work, arguments, name)
    if bundle.exists():
        return
    file = work / f"{name}.json"
    if plan:
        file.write_text(json.dumps(plan))
    qdx.export(
        model, target=arguments.target, plan=file if plan else PRESETS.get(name, name), output=bundle,
        components=[arguments.component],
    )  # fmt: skip


def _chosen(bundle: Path, where: str) -> dict[str, int]:
    """The option of each site, as the bundle says what became of it."""
    record = read_bundle(bundle).manifest.resolved
    found = {}
    for key, index in record.sites.get(where, {}).items():
        outcome = record.outcomes[index]
        if any(one.scheme.quantized for one in outcome.inputs):
            found[key] = BOTH
        elif outcome.weights is not None and outcome.weights.quantized:
            found[key] = WEIGHTS
    return found


def _known(table: LatencyTable, chosen: Mapping[str, int]) -> dict[str, int]:
    """The choice without what was not measured: products of attention, which stay float here."""
    return {
        k: o for k, o in chosen.items() if k in table.kind_of and table.site_ms(k, o) is not None
    }


def _measured(bench: Bench, folders: Mapping[str, Path]) -> dict[str, float]:
    """Milliseconds of each by its median ratio to float."""
    of = bench.turns(folders)
    floats = statistics.median(of["float"])
    return {
        name: floats * statistics.median(a / b for a, b in zip(own, of["float"], strict=True))
        for name, own in of.items()
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--component", default="unet")
    parser.add_argument("--target", choices=["openvino", "onnxruntime"], required=True)
    parser.add_argument("--work", type=Path, default=Path("build/latency"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--presets", nargs="*", default=["w8", "w8a8"])
    parser.add_argument(
        "--mixed", type=int, default=3, help="plans that draw an option for each layer"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
