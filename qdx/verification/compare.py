"""The second step of a verification: everything that is measured of the artifact, against what the reference did."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from qdx.cache.numbers import StoredNumbers
from qdx.exporter.cost.memory import give_back
from qdx.exporter.devices import is_cpu
from qdx.exporter.text.words import size
from qdx.runtime.tensor_folder import TensorFolder
from qdx.verification.facts import facts_of
from qdx.verification.measure.answers import KIND as ANSWERS
from qdx.verification.measure.answers import Answers
from qdx.verification.measure.comparison import Choice, Chosen, choose_calls, compare_runs
from qdx.verification.measure.coverage import read_coverage
from qdx.verification.measure.lockstep import LockstepCall, measure_in_lockstep
from qdx.verification.measure.outlook import LOCKSTEP
from qdx.verification.measure.picture import compare_products
from qdx.verification.measure.quantized import (
    QuantizedModel,
    answers_of,
    localize_worst,
    middle_rungs,
    quantized_wheres,
    stored_graphs,
)
from qdx.verification.measure.reference_runs import Reference
from qdx.verification.measure.runs import ArtifactPipeline, first_pictures
from qdx.verification.measure.samples import RunResult, RunSpec, Samples, latent_sqnr_db
from qdx.verification.measure.selection import compared_in_part
from qdx.verification.measure.stored_graph import StoredModel
from qdx.verification.measure.stored_lockstep import measure_stored_lockstep
from qdx.verification.measure.ties import (
    ROUNDING_DB,
    Noise,
    Outcome,
    Ties,
    chooses,
    measure_ties,
    misses_a_bound,
)
from qdx.verification.provenance import proof_of, versions_for
from qdx.verification.report.images import small_sheets
from qdx.verification.report.model import Report
from qdx.verification.report.names import RUNS_SHOWN

if TYPE_CHECKING:
    from qdx.exporter.formats.memory import Memory
    from qdx.runtime.methods import TargetMethod
    from qdx.runtime.reference import RecordedMethod
    from qdx.verification.measure.components import MethodResult
    from qdx.verification.measure.picture import PipelineResult
    from qdx.verification.measure.recorded_run import RecordedRun
    from qdx.verification.measure.rungs import Rung
    from qdx.verification.measure.score import Score
    from qdx.verification.reference_writer import ReferenceWriter
    from qdx.verification.run import Opened, Runs

__all__ = ["Comparison"]


@dataclass(frozen=True)
class Comparison:
    """One artifact against one reference.

    Attributes:
        opened: The bundle and the pipeline that it was made from.
        methods: The bundle's methods, opened on the target.
        runs: What the reference did.
        work: A folder for what is computed.
        score: The user's own function; None for none.
        budget_s: Seconds that comparing calls may take; None compares what is usual.
        writer: Takes what PyTorch does, for a reference that is stored; None stores none.
        began_s: When the verification began, by `time.monotonic`.
    """

    opened: Opened
    methods: dict[str, TargetMethod]
    runs: Runs
    work: Path = field(repr=False)
    score: Score | None = None
    budget_s: float | None = None
    writer: ReferenceWriter | None = None
    began_s: float = field(default_factory=time.monotonic)

    def report(self, *, localize: bool) -> Report:
        """Measures everything; the report has no gates yet.

        Args:
            localize: Measure at which sites the error of quantization enters.
        """
        opened, runs = self.opened, self.runs
        scratch = TensorFolder(Path(mkdtemp(dir=self.work)))
        records = [run.records_with(self._fields) for run in runs.recorded]
        answers, between = self._rungs(records[0], scratch)
        chosen = self._chosen(records, between)
        # Before the rungs: where these compute on the processor too, they need not do it again.
        lockstep = self._lockstep(chosen, answers)
        compared = compare_runs(
            chosen,
            self.methods,
            between,
            scratch=scratch,
            told=runs.measured,
            progress=opened.progress,
        )
        first = compared.runs[0]
        localization = None
        model = None if runs.audited is None else runs.audited.quantized
        if localize and isinstance(model, QuantizedModel):
            localization = localize_worst(model, self.methods, records[0], first, opened.progress)
        self._store(answers)
        samples = self._samples(compared.runs)
        manifest = opened.bundle.manifest
        return Report(
            bundle=opened.bundle.path.name,
            target=manifest.target.name,
            runtime=manifest.target.runtime,
            proof=proof_of(opened.bundle),
            plan=opened.plan.name or "unnamed",
            contract=opened.contract.gates,
            contract_source=opened.contract.source,
            findings=opened.contract.findings,
            bundle_plan=dict(manifest.plan),
            seed=runs.specs[0].seed,
            steps=runs.specs[0].call.get("num_inference_steps"),
            call=runs.specs[0].call,
            gates=(),
            methods=first,
            other_methods=compared.other_shape,
            pipeline=samples.runs[0].pipeline,
            versions=versions_for(manifest.target.runtime),
            samples=samples,
            audits=() if runs.audited is None else runs.audited.audits,
            coverage=read_coverage(manifest.calibration),
            localization=localization,
            quantized=quantized_wheres(opened.bundle),
            lockstep=lockstep,
            reference=runs.use,
            facts=facts_of(
                opened.bundle,
                parameters=runs.parameters,
                times=runs.times,
                began_s=self.began_s,
            ),
        )

    @property
    def _fields(self) -> dict[str, frozenset[str]]:
        """The outputs of methods that may leave some out: an application's packages have what it reads."""
        if not self.opened.bundle.manifest.has_packages:
            return {}
        return {
            where: frozenset(port.field for port in method.outputs)
            for where, method in self.methods.items()
        }

    @property
    def _macs(self) -> dict[str, int]:
        """Multiply-accumulates of one call of each quantized graph."""
        if self.runs.audited is None:
            return {}
        model = self.runs.audited.quantized
        return {where: model.macs[where] for where in model.quantized}

    def _rungs(
        self, records: Mapping[str, RecordedMethod], scratch: TensorFolder
    ) -> tuple[Answers | None, dict[str, tuple[Rung, ...]]]:
        """The rungs between float PyTorch and the artifact, and what remembers the quantized graphs' answers."""
        audited, opened = self.runs.audited, self.opened
        if audited is None:
            return None, {}
        model = audited.quantized
        answers = self._answers(model, scratch)
        few: frozenset[str] = frozenset()
        if self.budget_s is None and is_cpu(opened.device):
            # Lockstep computes these anyway; the others would cost as much as a call of the reference each.
            few = compared_in_part(records, self._macs)
        between = middle_rungs(opened.bundle, self.methods, model, answers, opened.device, few=few)
        self.runs.use.quantized = answers.use if model.quantized else None
        return answers, between

    def _answers(self, model: QuantizedModel | StoredModel, scratch: TensorFolder) -> Answers:
        """What remembers the quantized graphs' answers, or has them."""
        opened = self.opened
        if isinstance(model, StoredModel):
            assert opened.reference is not None, "no reference is stored"
            identities = {where: graph.identity for where, graph in model.quantized.items()}
            return Answers(identities, scratch, opened.reference.memory)
        memory: Memory | None = None
        if self.writer is not None:
            memory = self.writer.answers
        elif opened.cache is not None:
            memory = StoredNumbers(opened.cache, ANSWERS)
        return answers_of(model, opened.bundle, opened.device, scratch=scratch, memory=memory)

    def _store(self, answers: Answers | None) -> None:
        """Writes a reference of what PyTorch did."""
        if self.writer is None:
            return
        runs = self.runs
        model = None if runs.audited is None else runs.audited.quantized
        assert not isinstance(model, StoredModel), "a stored reference is not stored again"
        size_bytes = self.writer.write(
            runs.specs,
            runs.recorded,
            runs.other_shape,
            {} if model is None or answers is None else stored_graphs(model, answers),
            None if model is None else model.resolved,
            versions_for(self.opened.bundle.manifest.target.runtime),
        )
        self.opened.progress.say(f"stored the reference, {size(size_bytes)}")

    def _chosen(
        self,
        records: Sequence[Mapping[str, RecordedMethod]],
        between: Mapping[str, Sequence[Rung]],
    ) -> Chosen:
        """The calls that are compared."""
        opened, other = self.opened, self.runs.other_shape
        plan = opened.plan
        every_call = (
            bool(quantized_wheres(opened.bundle))
            or plan.quantizes
            or opened.contract.gates.conditioning is not None
        )
        return choose_calls(
            records,
            None if other is None else other.records_with(self._fields),
            self.methods,
            between,
            choice=Choice(self.budget_s, every_call, self._macs),
            progress=opened.progress,
        )

    def _lockstep(self, chosen: Chosen, answers: Answers | None) -> tuple[LockstepCall, ...]:
        """Calls of the quantized graphs, quantizer by quantizer; none of graphs that were quantized as artifacts."""
        opened, runs = self.opened, self.runs
        if runs.audited is None or answers is None or opened.plan.quantizes_artifacts:
            return ()
        model = runs.audited.quantized
        if isinstance(model, StoredModel):
            return measure_stored_lockstep(opened.bundle, model, self.methods, chosen.runs[0])
        found = measure_in_lockstep(
            opened.bundle,
            model,
            self.methods,
            chosen.runs[0],
            keep=answers.keep if is_cpu(opened.device) else None,
            kept=None if self.writer is None else self.writer.lockstep,
            told=partial(runs.outlook.measured, LOCKSTEP),
            progress=opened.progress,
        )
        give_back()
        runs.outlook.tell()
        return found

    def _samples(self, compared: Sequence[tuple[MethodResult, ...]]) -> Samples:
        """The bundle's own pipeline against what the reference made, run by run."""
        give_back()
        opened, runs, score = self.opened, self.runs, self.score
        runs.outlook.tell()
        pipeline = ArtifactPipeline(
            opened.bundle,
            opened.folder,
            self.methods,
            opened.device,
            calls=runs.outlook.calls_of_a_run,
            progress=opened.progress,
        )
        found: list[RunResult] = []
        for spec, run, methods in zip(runs.specs, runs.recorded, compared, strict=True):
            reference = run.made
            made, error = pipeline.run(spec)
            products = compare_products(reference.products, made.products, error)
            scores: list[float | None] = [None, None]
            if score is not None:
                sides = (reference.products, made.products)
                scores = [score.mean(first_pictures(one), spec.prompts) for one in sides]
            latent = latent_sqnr_db(reference.latents, made.latents)
            ties = self._ties(spec, run, products)
            pictures: dict[str, bytes] = {}
            if found:  # the report shows what the first run made as it is, and of some others small pictures
                pictures = small_sheets(products) if len(found) < RUNS_SHOWN else {}
                products = replace(products, reference={}, artifact={})
            found.append(
                RunResult(spec, methods, products, latent, scores[0], scores[1], ties, pictures)
            )
        return Samples(tuple(found), "" if score is None else score.name)

    def _ties(self, spec: RunSpec, run: RecordedRun, products: PipelineResult) -> Ties | None:
        """What errors that are allowed change, for a picture that misses a bound, of a pipeline that chooses by answers."""
        opened = self.opened
        gates = opened.contract.gates
        if not misses_a_bound(products, gates.pipeline.bounds) or not chooses(run.records):
            return None
        if opened.folder is None:
            self.runs.use.notes.append(
                "what errors that the gates allow change of the pipeline's choices is not known of a stored reference"
            )
            return None
        reference = Reference(
            opened.folder,
            opened.bundle,
            work=self.work,
            device=opened.device,
            progress=opened.progress,
        )

        def again(noise: Noise) -> Outcome:
            noisy = reference.run_altered(spec, noise)
            return noisy.records, noisy.made.products

        made = (run.records, run.made.products)
        return measure_ties(made, max(gates.component.sqnr_db_min, ROUNDING_DB), again)
