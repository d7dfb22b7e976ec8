"""Groups of timesteps that a search finds against equal ones: digits with 4-bit inputs, as many bit-operations for all.

    python -m benchmarks.timestep_search --work build/timestep_search

Five plans with weights in 8 bits and as many groups of timesteps each, drawn in free runs with the same noise:
`equal` has 4 bits everywhere and equal groups; `edges` 4 bits everywhere and the groups that were found; `layers` the bits of
each operation that the search finds where they are the same at all timesteps, in equal groups; `found` what the search finds
with all of it open: where groups end, and the bits of each operation in each. Steps count by what part of a run's error they
make; `alike` is what is found where all steps count alike.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

import qdx
from benchmarks.timestep_groups import (
    MODEL,
    PLANS,
    Settings,
    exported,
    gain_db,
    in_torch,
    pictures,
    row,
    say,
    words,
)
from qdx.analyze.analyze import analyze
from qdx.analyze.settings import AnalysisSettings
from qdx.cache.store import Store
from qdx.exporter.plan.schema.load import load_plan
from qdx.search.budgets import Demand
from qdx.search.read import read_analysis
from qdx.search.run import run
from qdx.targets import load_target
from samples.measure import load

if TYPE_CHECKING:
    from qdx.analyze.analysis import Analysis
    from qdx.exporter.plan.schema.found import Weighing
    from qdx.search.found import PlanFound

LABORATORY: Final = Path(__file__).with_name("narrow_inputs.toml")
OPTIONS: Final = tuple(f"int8/int{bits}" for bits in (3, 4, 5, 6))
FLOAT_ROLES: Final = ("first", "last", "time_embed")
"""Stay float in all plans."""
FOUR: Final = 4
_WEIGHT_BITS: Final = 8
_FLOAT_BITS: Final = 32


def base_plan(work: Path, steps: int) -> Path:
    """The plan of 4-bit inputs upon which all others are, with statistics of every step apart."""
    data = json.loads((PLANS / "digits-a4-static.json").read_text())
    data["calibration"]["timestep_groups"] = steps
    data["name"] = "static"
    _four(data)["inputs"] = {"dtype": "int4", "observer": "mse"}
    return _written(work / "static.json", data)


def equal_plan(work: Path, base: Path, groups: int) -> Path:
    """4 bits everywhere in equal groups."""
    data = json.loads(base.read_text())
    data["name"] = "equal"
    _four(data)["inputs"]["timestep_groups"] = groups
    return _written(work / "equal.json", data)


def edges_plan(work: Path, base: Path, steps: tuple[tuple[float, float], ...]) -> Path:
    """4 bits everywhere in groups that were found."""
    data = json.loads(base.read_text())
    data["name"] = "edges"
    four = _four(data)
    place = data["rules"].index(four)
    timed = [
        {
            "id": f"steps-{number}",
            "select": {**four["select"], "timesteps": [round(edge, 9) for edge in span]},
            "inputs": copy.deepcopy(four["inputs"]),
        }
        for number, span in enumerate(steps, 1)
    ]
    data["rules"][place + 1 : place + 1] = timed
    return _written(work / "edges.json", data)


def layers_plan(work: Path, found: PlanFound, groups: int) -> Path:
    """What was found with the same bits at all timesteps, in equal groups."""
    data = found.plan.to_json()
    data["name"] = "layers"
    for rule in data["rules"]:
        if rule.get("inputs", {}).get("dtype", "float32") != "float32":
            rule["inputs"]["timestep_groups"] = groups
    return _written(work / "layers.json", data)


def four_bits(analysis: Analysis) -> float:
    """Bit-operations of one call with 4-bit inputs everywhere but in the float roles."""
    return float(
        sum(
            group.macs * (_FLOAT_BITS**2 if set(group.roles) & set(FLOAT_ROLES) else _WEIGHT_BITS * FOUR)
            for group in analysis.groups
        )
    )  # fmt: skip


def analyzed(work: Path, base: Path, settings: Settings, cache: Store, workers: int) -> Path:
    """The analysis; kept if it is there."""
    folder = work / "analysis"
    if not folder.exists():
        analyze(
            MODEL, target=LABORATORY, output=folder,
            settings=AnalysisSettings(
                plan=base, options=OPTIONS, workers=workers, cache=cache,
                call={"batch_size": 16, "num_inference_steps": settings.steps},
                parts=("trajectory",),
            ),
        )  # fmt: skip
    return folder


def searched(
    analysis: Path,
    base: Path,
    groups: int,
    weigh: Weighing,
    measurements: int,
    cache: Store,
    workers: int,
) -> PlanFound:
    """The best plan that spends as many bit-operations as 4 bits everywhere."""
    read = read_analysis(analysis)
    budget = four_bits(read.analysis) * (1 + 1e-9)
    return run(
        MODEL, read, load_target(str(LABORATORY)), load_plan(base),
        Demand(budgets={"bit_operations": budget}),
        name="found" if groups > 1 else "layers", prefer="bit_operations", fix=FLOAT_ROLES,
        measurements=measurements, timestep_groups=groups, weigh=weigh, cache=cache, workers=workers,
    )  # fmt: skip


def plans(work: Path, arguments: argparse.Namespace, settings: Settings) -> dict[str, Path]:
    """The plans by name."""
    base = base_plan(work, settings.steps)
    cache = Store(work / "cache")
    given = (arguments.measurements, cache, arguments.workers)
    folder = analyzed(work, base, settings, cache, arguments.workers)
    layers = searched(folder, base, 1, "trajectory", *given)
    found = searched(folder, base, arguments.groups, "trajectory", *given)
    alike = searched(folder, base, arguments.groups, "steps", *given)
    parts = found.problem.parts
    four = four_bits(read_analysis(folder).analysis)
    for name, one in (("layers", layers), ("found", found), ("alike", alike)):
        spent = one.problem.cost(one.result.assignment, "bit_operations") / four
        sys.stdout.write(f"{name}: {spent:.2%} of the bit-operations of 4 bits\n")
    steps = found.steps or ((0.0, 1.0),)
    for span in steps:
        bits: dict[str, int] = {}
        for part, option in zip(parts, found.result.assignment, strict=True):
            if part.steps == span:
                bits[found.problem.labels[option]] = bits.get(found.problem.labels[option], 0) + 1
        sys.stdout.write(f"{span[0]:.0%} to {span[1]:.0%}: {bits}\n")
    return {
        "equal": equal_plan(work, base, arguments.groups),
        "edges": edges_plan(work, base, steps),
        "layers": layers_plan(work, layers, arguments.groups),
        "found": _written(work / "found.json", found.plan.to_json()),
        "alike": _written(work / "alike.json", alike.plan.to_json()),
    }


def main() -> int:
    """Searches, draws with every plan and prints a table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    settings = Settings(arguments.pictures, arguments.batch, arguments.steps)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    every = plans(work, arguments, settings)
    reference = pictures(load(MODEL), settings)
    rows, gains = [], {}
    for where in ("PyTorch", *arguments.targets):
        drawn: dict[str, Any] = {}
        for name, file in every.items():
            bundle = exported(work, file, "openvino" if where == "PyTorch" else where, settings)
            pipeline = in_torch(bundle, file) if where == "PyTorch" else qdx.open(bundle.path, threads=arguments.threads)  # fmt: skip
            drawn[name] = pictures(pipeline, settings)
            rows.append(row(name, where, reference, drawn[name]))
            say(rows[-1])
        for one, other in itertools.combinations(every, 2):
            gain = gains[f"{where}: {other} above {one}"] = gain_db(reference, drawn[one], drawn[other])  # fmt: skip
            sys.stdout.write(f"{where}: {other} is {words(gain, 1, 'dB')} above {one}\n")
        np.savez_compressed(work / f"drawn-{where}.npz", reference=reference, **drawn)
    result = {"rows": [asdict(each) for each in rows], "gains_db": {n: asdict(g) for n, g in gains.items()}}  # fmt: skip
    (work / "timestep_search.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _four(data: dict[str, Any]) -> dict[str, Any]:
    """The rule of the 4-bit inputs."""
    found: dict[str, Any] = next(rule for rule in data["rules"] if "inputs" in rule)
    return found


def _written(file: Path, data: dict[str, Any]) -> Path:
    file.write_text(json.dumps(data, indent=2) + "\n")
    return file


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path("build/timestep_search"))
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--measurements", type=int, default=400)
    parser.add_argument("--pictures", type=int, default=Settings.pictures)
    parser.add_argument("--batch", type=int, default=Settings.batch)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--targets", nargs="*", default=["openvino", "onnxruntime"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
