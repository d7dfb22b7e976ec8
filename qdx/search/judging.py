"""Candidates judged as a user would judge them: written as a plan, exported for the target, verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from qdx.cache.facts import computing_versions
from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidInput, Refusal, TargetRefusal, quoted
from qdx.exporter.files import dump_json, load_json, replace_file
from qdx.exporter.plan.resolve.settle import settled_gates
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.search.verdict import GateResult, Verdict

if TYPE_CHECKING:
    from qdx.cache.store import Store
    from qdx.exporter.plan import Plan, PlanTarget
    from qdx.exporter.progress import Progress
    from qdx.search.problem import Assignment
    from qdx.search.verdict import Judge
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.profile import TargetProfile
    from qdx.verification.judge.gates import Gate

__all__ = ["Exports", "expected_db", "judge_of", "verdict_of", "with_gates"]

PlanOf = Callable[["Assignment"], "Plan"]
_PSNR: Final = "pipeline.psnr_db"
_SIZE_LIMIT: Final = 1 << 20


def with_gates(base: Plan, judged: Mapping[str, float]) -> Plan:
    """Returns a plan whose own gates ask for what pictures are to hold, so that `qdx verify` asks for it too.

    Args:
        base: The plan.
        judged: Goals: with `psnr_db`, that bound stands in the plan instead of its own.
    """
    if "psnr_db" not in judged:
        return base
    data = base.to_json()
    gates = data.setdefault("gates", {})
    gates["pipeline"] = {**gates.get("pipeline", {}), "psnr_db_min": judged["psnr_db"]}
    return plan_from_json(data, source=str(base.name))


def expected_db(plan: Plan, target: PlanTarget, judged: Mapping[str, float]) -> float:
    """Returns the noise of the worst call, in decibels, at which pictures are expected to hold.

    Args:
        plan: Whose gates judge.
        target: Which chooses bounds that are left unsaid.
        judged: Goals.
    """
    if "gates" not in judged:
        return judged["psnr_db"]
    gates, _ = settled_gates(plan, target)
    return gates.component.sqnr_db_min + judged["gates"]


@dataclass(frozen=True)
class Exports:
    """Exports plans and verifies them.

    Traces, calibrations, runs of the reference and answers of quantized graphs are those of the cache, so that each candidate
    after the first is quick.

    Attributes:
        source: The pipeline.
        target: The target.
        call: Arguments of the pipeline call that candidates are exported with.
        prompts: To calibrate with.
        variant: Of the stored weights.
        workers: Samples calibrated at a time; None takes all cores.
        cache: Where the parts that candidates share are kept; None computes them each time.
        progress: Told of the steps.
    """

    source: TracedPipeline = field(repr=False)
    target: TargetProfile
    call: Mapping[str, Any]
    prompts: Sequence[str] | None
    variant: str | None
    workers: int | None
    cache: Store | None
    progress: Progress = field(repr=False)

    def gates(self, plan: Plan) -> tuple[Gate, ...]:
        """Every gate of a plan, as verification finds it.

        Raises:
            QdxError: As `qdx.export` and `qdx.verify`.
        """
        from qdx.compile.export import export
        from qdx.verification.verify import verify

        model = self.source.folder
        with TemporaryDirectory(prefix="qdx-judged-") as work:
            file, bundle = Path(work) / "plan.json", Path(work) / "bundle"
            replace_file(file, dump_json(plan.to_json()))
            export(
                model,
                target=self.target,
                plan=file,
                output=bundle,
                call=dict(self.call),
                setup=model.setup,
                variant=self.variant,
                prompts=self.prompts,
                workers=self.workers,
                cache=self.cache,
                progress=self.progress,
            )
            return verify(
                bundle, model=model, variant=self.variant, cache=self.cache, progress=self.progress
            ).gates


def judge_of(
    gates_of: Callable[[Plan], Sequence[Gate]],
    plan_of: PlanOf,
    judged: Mapping[str, float],
    *,
    basis: str,
    folder: Path | None,
) -> Judge:
    """Returns what judges assignments; each is judged once, and verdicts outlive an interrupted search.

    Args:
        gates_of: Exports a plan and verifies it.
        plan_of: Writes an assignment as a plan.
        judged: Goals that finished pictures are held against.
        basis: Digest of all else that a verdict depends on: the analysis.
        folder: Where verdicts are kept, each in a file named by what it depends on; None keeps them for this search alone.
    """
    known: dict[Assignment, Verdict] = {}

    def judge(assignment: Assignment) -> Verdict:
        if assignment not in known:
            path = None
            if folder is not None:
                path = folder / f"{_key(assignment, judged, basis)}.json"
            found = None if path is None else _read(path)
            if found is None:
                found = verdict_of(gates_of(plan_of(assignment)), judged)
                if path is not None:
                    replace_file(path, dump_json(found.to_json()))
            known[assignment] = found
        return known[assignment]

    return judge


def verdict_of(gates: Sequence[Gate], judged: Mapping[str, float]) -> Verdict:
    """Returns the verdict on an assignment from the gates of its verification.

    Args:
        gates: All of them.
        judged: Goals; without `gates` among them, the pictures' own gate alone counts. Of `gates` the margin in decibels.

    Raises:
        TargetRefusal: A gate has no value that is a number, or there is none to judge by.
    """
    asked = [gate for gate in gates if "gates" in judged or gate.name == _PSNR]
    if not asked:
        raise TargetRefusal(
            "the pipeline makes no pictures to judge: verification has no gate "
            + (f"{quoted(_PSNR)}" if "gates" not in judged else "at all"),
            hint="ask for noise of the prediction instead: --goal sqnr_db=30",
        )
    found: list[GateResult] = []
    unjudged: list[Refusal] = []
    for gate in asked:
        if gate.value is None:
            unjudged.append(Refusal(gate.name, gate.note or "no measurement"))
        else:
            found.append(GateResult(gate.name, gate.value, gate.bound, gate.sense))
    if unjudged:
        raise TargetRefusal(
            f"{quoted(unjudged[0].site)} cannot be judged here: {unjudged[0].reason}",
            refusals=tuple(unjudged),
            hint="take what cannot be judged out of the plan's gates, or search where it can be",
        )
    psnr = next((one.value for one in found if one.name == _PSNR), None)
    return Verdict(tuple(found), psnr, judged.get("gates", 0.0))


def _key(assignment: Assignment, judged: Mapping[str, float], basis: str) -> str:
    return key_of({
        "job": "qdx.verdict/1",
        "versions": computing_versions(),
        "basis": basis,
        "judged": dict(judged),
        "assignment": list(assignment),
    })  # fmt: skip


def _read(path: Path) -> Verdict | None:
    """A verdict that was kept; None for one that is missing or damaged, which is then made again."""
    if not path.is_file():
        return None
    try:
        data = load_json(path, limit_bytes=_SIZE_LIMIT, error=InvalidInput)
        return Verdict.from_json(data)
    except (InvalidInput, KeyError, TypeError):
        return None
