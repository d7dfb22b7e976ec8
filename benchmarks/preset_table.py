"""Which preset can be had on which target, for the samples and tiny pipelines of six families, as Markdown.

    python -m benchmarks.preset_table -o docs/presets.md
    python -m benchmarks.preset_table --models digits

Plans are resolved, and nothing is exported. Each model is traced once for all targets that pass it the same inputs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from benchmarks.artifact_bytes import SAMPLES, TINY, models
from qdx.exporter.errors import InvalidPlan, TargetRefusal
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan import examine, list_presets, load_plan
from qdx.source.pipeline import TracedPipeline, trace_pipeline
from qdx.source.timesteps import with_exact_timesteps
from qdx.targets import TargetProfile, list_targets, load_target

MODELS: Final = (*SAMPLES, *TINY)
_HEAD: Final = """# Presets and targets

What becomes of every preset on every target, for the samples and tiny pipelines of six families: a target is a row, a preset
a column; `yes` where the plan resolves and can be exported, else the number of the reason below. `python -m benchmarks.preset_table -o docs/presets.md`
makes this page; `qdx plan show PRESET --model MODEL --target TARGET` tells the same of one, operation by operation.
"""
Sites = Mapping[str, Sequence[Site]]


def section(name: str, model: Path, call: dict[str, Any]) -> str:
    """The table of one model under its name, with the reasons."""
    source = trace_pipeline(model, call)
    traced: dict[str, Sites] = {}
    reasons: dict[str, int] = {}
    targets = list_targets()
    profiles = [
        with_exact_timesteps(load_target(one), source.skeleton, source.captured)[0]
        for one in targets
    ]
    rows = []
    for profile in profiles:
        sites = _sites(source, profile, traced)
        cells = []
        for preset in list_presets():
            reason = refusal(preset, source, profile, sites)
            cells.append(str(reasons.setdefault(reason, len(reasons) + 1)) if reason else "yes")
        rows.append([f"`{profile.name}`", *cells])
    return "\n".join([
        f"\n## {name}\n",
        _row(["Target", *(f"`{one}`" for one in list_presets())]),
        _row(["---"] * (len(list_presets()) + 1)),
        *map(_row, rows),
        "",
        *(f"{number}. {reason}" for reason, number in reasons.items()),
        "",
    ])  # fmt: skip


def refusal(preset: str, source: TracedPipeline, profile: TargetProfile, sites: Sites) -> str:
    """Why a target cannot carry out a preset; empty where it can."""
    try:
        examination = examine(
            load_plan(preset), source.skeleton.modules, profile, sites, source.captured.kinds
        )
    except (InvalidPlan, TargetRefusal) as error:
        return error.message.splitlines()[0]
    reasons = [one.reason.partition(": ")[2] or one.reason for one in examination.refusals]
    return "; ".join(dict.fromkeys(reasons))


def _sites(source: TracedPipeline, profile: TargetProfile, traced: dict[str, Sites]) -> Sites:
    """The sites of a model as a target has it traced; `traced` remembers them by what decides that."""
    layout = profile.layout
    key = repr((layout.inputs, layout.dtypes))
    if key not in traced:
        traced[key] = {where: find_sites(source.graph(where, profile)) for where in source.chosen}
    return traced[key]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(names: Sequence[str]) -> Iterator[str]:
    """The sections of some models, in order."""
    with TemporaryDirectory() as place:
        for name, model, call in models(list(names), Path(place)):
            yield section(name, model, call)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    sections = []
    for one in page(chosen.models):
        sections.append(one)
        print(one.splitlines()[1], file=sys.stderr)
    text = _HEAD + "".join(sections)
    if chosen.output is None:
        sys.stdout.write(text)
    else:
        chosen.output.parent.mkdir(exist_ok=True)
        chosen.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
