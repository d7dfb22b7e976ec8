"""The latency of an analysis: measured where the target's runtime runs here, else declared by what is said of its device.

Artifacts are lowered by the machinery of exports, into a temporary folder, one beside the one in float at a time. What was
measured of each is kept under a digest of all that it depends on, the machine among it, so that an interrupted analysis
goes on and one that is repeated has the same bytes.
"""

from __future__ import annotations

import os
import platform
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Literal, Self

from pydantic import ValidationError

from qdx.analyze.declared_latency import declared_latency, rate_of
from qdx.analyze.latency import Timed, TimedDraw, latency_table
from qdx.analyze.latency_kinds import kinds_of
from qdx.analyze.latency_table import FLOAT, Latency
from qdx.analyze.latency_timing import Bench, TimedArtifact
from qdx.analyze.lowered import Lowering, unlearned
from qdx.analyze.stored_bytes import StoredBytes
from qdx.backends.capabilities import TimesOperations
from qdx.backends.registry import get_backend
from qdx.cache.facts import processor_name
from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidInput, RuntimeMissing, UsageError, quoted
from qdx.exporter.files import dump_json, read_text, replace_file
from qdx.exporter.limits import MIB

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.analyze.analysis import Analysis
    from qdx.analyze.latency_table import How, LatencyTable
    from qdx.analyze.session import Session
    from qdx.targets.profile import TargetProfile

__all__ = ["latency_of", "source_of", "with_latency", "without_latency"]

_DRAWS: Final = 2
"""Artifacts in which options are drawn, which tell how far off the sum is."""
_NEAR: Final = ("plan", "half of it")
"""Artifacts near to real plans, which tell what changes take."""
_PART_LIMIT_BYTES: Final = 64 * MIB


def source_of(
    profile: TargetProfile, how: How
) -> tuple[Literal["measured", "declared", "none"], str]:
    """How latency is come by on this machine, and why it is not measured; empty where it is, or was not asked for.

    Raises:
        UsageError: What was asked for cannot be had for this target.
        RuntimeMissing: It is to be measured, and the runtime is not installed.
    """
    if how == "none":
        return "none", ""
    if how == "declared":
        if profile.speed is None:
            raise UsageError(
                f"--latency declared: nothing is said of the speed of {quoted(profile.name)}",
                hint="give a TOML file that `extends` it, with a table `speed`; see docs/own-targets.md",
            )
        return "declared", ""
    times = isinstance(get_backend(profile.runtime), TimesOperations)
    if times and (profile.needs is None or find_spec(profile.needs) is not None):
        return "measured", ""
    why = (
        f"{profile.runtime} {'is not installed' if times else 'tells no times of operations here'}"
    )
    if how == "measured":
        if times:
            raise RuntimeMissing(
                f"--latency measured: {why}", hint=f'pip install "qdx[{profile.extra}]"'
            )
        raise UsageError(
            f"--latency measured: {why}",
            hint="--latency declared takes the numbers of the target's `speed`",
        )
    if profile.speed is not None:
        return "declared", why
    return "none", f"{why}, and nothing is said of the device's speed"


def latency_of(
    session: Session, how: How, *, threads: int | None = None, rounds: int | None = None
) -> Latency | None:
    """What operations of all graphs of an analysis take; None where nothing is known.

    Args:
        session: The analysis.
        how: `auto` measures where the runtime runs here, and else takes what is declared.
        threads: Of the runtime; None for its own choice.
        rounds: Turns of each artifact; None takes as many as about ten seconds hold.

    Raises:
        UsageError, RuntimeMissing: See `source_of`.
    """
    source, why = source_of(session.findings.profile, how)
    if why:
        session.progress.say(f"latency: {'declared' if source == 'declared' else 'unknown'}, since {why}")  # fmt: skip
    if source == "none":
        return None
    graphs = [_Graph(session, Lowering.of(session, where)) for where in session.findings.bound]
    speed = session.findings.profile.speed
    if source == "declared" and how == "auto" and speed is not None:
        unsaid = sorted({one for graph in graphs for one in graph.types if not rate_of(speed, one)})
        if unsaid:
            session.progress.say(f"latency: unknown, since nothing is said of multiplying {', '.join(unsaid)} on {speed.device}")  # fmt: skip
            return None
    if source == "declared":
        return Latency(graphs=tuple(one.declared() for one in graphs))
    parts = sum(one.parts for one in graphs)
    with session.progress.task("timing", parts, unit="artifacts") as task:
        tables = tuple(one.measured(threads, rounds, task.advance) for one in graphs)
    return Latency(graphs=tables)


def with_latency(analysis: Analysis, latency: Latency | None) -> Analysis:
    """The analysis with times of every group's options."""
    if latency is None:
        return analysis
    groups = tuple(
        group.model_copy(
            update={
                "offers": tuple(
                    offer.model_copy(
                        update={
                            "latency_ms": None
                            if offer.form == "simulated"
                            else latency.of(group.where).sites_ms(group.sites, offer.option)
                        }
                    )
                    for offer in group.offers
                )
            }
        )
        for group in analysis.groups
    )
    return analysis.model_copy(update={"groups": groups, "latency": latency})


def without_latency(analysis: Analysis) -> Analysis:
    """The analysis without times: what a machine at rest or another one would say alike."""
    groups = tuple(
        group.model_copy(
            update={
                "offers": tuple(o.model_copy(update={"latency_ms": None}) for o in group.offers)
            }
        )
        for group in analysis.groups
    )
    return analysis.model_copy(update={"groups": groups, "latency": None})


@dataclass(frozen=True)
class _Graph:
    """The work on one graph."""

    session: Session
    lowering: Lowering

    @property
    def parts(self) -> int:
        """How many artifacts are timed."""
        return 1 + len(self.lowering.executed) + len(_NEAR) + _DRAWS

    @property
    def types(self) -> frozenset[str]:
        """In which operations multiply."""
        return frozenset(self.lowering.reads[option] for option in (FLOAT, *self.lowering.executed))

    def declared(self) -> LatencyTable:
        """The table by what is said of the device."""
        findings, lowering = self.session.findings, self.lowering
        speed = findings.profile.speed
        assert speed is not None
        resolved = findings.planned.resolved
        (own,) = (one for one in resolved.components if one.component == lowering.component)
        stored = StoredBytes(
            lowering.graph, resolved.float_types(lowering.component), own.computes, lowering.backend
        )
        by_option = {FLOAT: tuple(lowering.floats.values())}
        by_option |= {option: tuple(sites.values()) for option, sites in lowering.executed.items()}
        return declared_latency(
            lowering.graph, lowering.sites, by_option, stored, speed, floats=own.computes
        )

    def measured(
        self, threads: int | None, rounds: int | None, done: Callable[[], object]
    ) -> LatencyTable:
        """The table by the target's runtime; `done` is told of every artifact."""
        lowering = self.lowering
        bench = Bench(
            lowering.face, lowering.sites, lowering.backend, lowering.profile.options,
            threads=threads, rounds=rounds,
        )  # fmt: skip
        timed, draws = [], []
        with _Artifacts(self.session, lowering, bench) as artifacts:
            for option in (FLOAT, *lowering.executed):
                sites = lowering.executed.get(option, {})
                found = artifacts.timed(dict.fromkeys(sites, option), operations=True)
                timed.append(Timed(option, frozenset(sites), found))
                done()
            for name, chosen in {**self._near, **self._draws}.items():
                found = artifacts.timed(chosen, operations=False)
                draws.append(TimedDraw(chosen, name, name in _NEAR, found))
                done()
        return latency_table(bench, timed, draws, lowering.reads)

    @cached_property
    def _near(self) -> Mapping[str, Mapping[str, int]]:
        """What the plan asks for, as far as it was analyzed, and half of that.

        Where that reads one type only, the last option of each group stands for it: other plans will have changes.
        """
        asked = self.lowering.like(self.session.findings.planned.resolved)
        lasts = [
            next((o for o in reversed(options) if self._reads_another(o)), FLOAT)
            for _, options in self._groups
        ]
        near = [
            next((o for o in options if all(o in asked.get(key, ()) for key in keys)), FLOAT)
            for keys, options in self._groups
        ]
        if not any(map(self._reads_another, near)):
            near = lasts
        generator = random.Random(self.lowering.where)  # noqa: S311 - chooses groups
        half = [generator.choice((FLOAT, option)) for option in near]
        plan, half_of_it = _NEAR
        return {plan: self._chosen(near), half_of_it: self._chosen(half)}

    @cached_property
    def _draws(self) -> Mapping[str, Mapping[str, int]]:
        """Options of groups drawn at random: first the type in which inputs are read, then one of the options that do."""
        found = {}
        for seed in range(_DRAWS):
            generator = random.Random(f"{self.lowering.where} {seed}")  # noqa: S311 - chooses options
            drawn = []
            for _, options in self._groups:
                by_type: dict[str, list[int]] = {}
                for option in (FLOAT, *options):
                    by_type.setdefault(self.lowering.reads[option], []).append(option)
                drawn.append(generator.choice(by_type[generator.choice(sorted(by_type))]))
            found[f"drawn {seed}"] = self._chosen(drawn)
        return found

    @cached_property
    def _groups(self) -> Sequence[tuple[Sequence[str], Sequence[int]]]:
        """Keys of the sites of each group, and the options beside float that the target carries out of all of them."""
        found = []
        for bound in self.session.findings.bound[self.lowering.where]:
            keys = [site.key for site in bound.sites]
            executed = self.lowering.executed
            options = [o for o in bound.options if all(k in executed.get(o, ()) for k in keys)]
            found.append((keys, options))
        return found

    def _reads_another(self, option: int) -> bool:
        """Whether inputs are read in another type than in float."""
        return self.lowering.reads[option] != self.lowering.reads[FLOAT]

    def _chosen(self, options: Sequence[int]) -> dict[str, int]:
        """Of the sites that have a time of their own, the option where it is not float."""
        kinds = kinds_of(self.lowering.graph, self.lowering.sites)
        return {
            key: option
            for (keys, _), option in zip(self._groups, options, strict=True)
            for key in keys
            if option != FLOAT and key in kinds
        }


class _Artifacts:
    """Times artifacts of one graph, and keeps what was measured."""

    def __init__(self, session: Session, lowering: Lowering, bench: Bench) -> None:
        self._place = session.place / "latency"
        self._lowering = lowering
        self._bench = bench
        self._facts: dict[str, JsonValue] = {
            "job": "qdx.timed/1",
            "facts": session.survey.facts,
            "where": lowering.where,
            "target": lowering.profile.to_json(),
            "versions": dict(lowering.backend.versions()),
            "processor": processor_name(),
            "machine": platform.node(),
            "cores": os.cpu_count(),
            "threads": bench.threads,
            "rounds": bench.rounds,
            "runs": bench.runs,
        }
        self._folder: TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        self._place.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def timed(self, chosen: Mapping[str, int], *, operations: bool) -> TimedArtifact:
        """What an artifact takes whose sites have some options; all others are float."""
        executed = self._lowering.executed
        # Rounding takes no time: options that differ in that alone have one measurement.
        asked: dict[str, JsonValue] = {
            k: unlearned(executed[o][k]).to_json() for k, o in chosen.items()
        }
        path = (
            self._place
            / f"{key_of({**self._facts, 'sites': asked, 'operations': operations})}.json"
        )
        known = _read(path)
        if known is None:
            known = self._measured(chosen, operations=operations)
            replace_file(path, dump_json(known.model_dump(mode="json", by_alias=True)))
        return known

    def _measured(self, chosen: Mapping[str, int], *, operations: bool) -> TimedArtifact:
        floats = self._floats
        if not chosen and operations:
            return self._bench.floats(floats)
        with TemporaryDirectory(prefix="qdx-option-") as folder:
            self._lowering.lower(self._lowering.resolved(chosen), Path(folder))
            return self._bench.artifact(floats, Path(folder), operations=operations)

    @property
    def _floats(self) -> Path:
        """The artifact in float, beside which all others are timed."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="qdx-float-")
            self._lowering.lower(self._lowering.resolved({}), Path(self._folder.name))
        return Path(self._folder.name)


def _read(path: Path) -> TimedArtifact | None:
    """What was kept; None where nothing was, or it is damaged: it is measured again."""
    if not path.is_file():
        return None
    try:
        return TimedArtifact.model_validate_json(read_text(path, _PART_LIMIT_BYTES, error=InvalidInput))  # fmt: skip
    except (InvalidInput, ValidationError):
        return None
