"""What a verification rests on: proof, call, calibration, reference, versions."""

from __future__ import annotations

from typing import Final

from qdx.exporter.strict_json import one_line_json
from qdx.exporter.text.words import duration
from qdx.verification.report.format import percent
from qdx.verification.report.markup import Markup, escaped, joined, section
from qdx.verification.report.text import proof_of, reference_words
from qdx.verification.stored.report import StoredProof, StoredReport

__all__ = ["date_words", "made_section", "proof_sentences"]

_STATUS: Final = {
    "device-verified": "Verified on the target's own runtime",
    "engine-built": "Verified with an engine that was built and not run",
    "artifact-verified": "Verified as an artifact, not on its device",
}


def proof_sentences(proof: StoredProof) -> str:
    """What ran the artifact and what that leaves unproved, in sentences."""
    words = f"{_STATUS[proof.status]} ({proof.status}): {proof_of(proof).computed}."
    if proof.unproved:
        words += f" Not proved: {proof.unproved}."
    return words + (f" Caution: {proof.caution}." if proof.caution else "")


def date_words(report: StoredReport) -> Markup:
    """When the bundle was verified; of a report from before dates were stored, that."""
    if report.facts is None:
        return Markup("not stored")
    day, _, clock = report.facts.date.partition("T")
    return Markup(f'<time datetime="{report.facts.date}">{day}, {clock[:5]} UTC</time>')


def made_section(report: StoredReport) -> Markup:
    """How the verification was made."""
    coverage = report.coverage
    rows: list[tuple[object, object]] = [
        ("date", date_words(report)),
        ("bundle", report.bundle),
        ("target", report.target),
        ("runtime", report.runtime),
        ("plan", report.plan),
        ("contract", report.contract_source),
        ("seed", report.seed),
        ("denoising steps", "-" if report.steps is None else report.steps),
        ("call", _code(one_line_json(report.call))),
        ("proof", proof_sentences(report.proof)),
        ("reference", _lines(reference_words(report.reference))),
    ]
    if report.facts is not None:
        rows.insert(1, ("took", duration(report.facts.duration_s)))
    if report.baseline is not None:
        held = f"{report.baseline.source}, a report of {report.baseline.bundle}"
        left = ", ".join(report.baseline.left_out)
        rows.append(("baseline", f"{held}; not compared with it: {left}" if left else held))
    if coverage is not None:
        guided = "guided" if coverage.guided else "without guidance"
        saw = f"{percent(coverage.timesteps_share)} of the steps, branches: {coverage.branches}, {guided}"
        rows.append(("calibration saw", saw))
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    rows.append(("versions", versions))
    listed = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>\n" for name, value in rows)
    return section("made", "How it was verified", Markup(f'<dl class="made">\n{listed}</dl>\n'))


def _code(text: str) -> Markup:
    return Markup(f"<code>{escaped(text)}</code>")


def _lines(text: str) -> Markup:
    return joined(text.splitlines(), "<br>")
