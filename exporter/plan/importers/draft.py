"""A plan while a foreign one is read into it, with what became of each part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan.importers.finding import Finding, Verdict
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.patterns import NeedsNamesError, NoGlobError, keys_of
from qdx.exporter.plan.schema.globs import covering
from qdx.exporter.plan.schema.plan import RULES_LIMIT, SCHEMA
from qdx.exporter.plan.schema.rule import matcher

__all__ = ["CONVOLUTIONS", "WEIGHTED", "Draft"]

CONVOLUTIONS: Final = (
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
)
WEIGHTED: Final = (*CONVOLUTIONS, "linear")
"""Operations whose weights other tools quantize: modules of torch with a matrix or a kernel."""
_GLOBS_MOST: Final = 64
_NAMES_FEW: Final = 4
"""What a person reads as they are."""
_FINDINGS_MOST: Final = 10_000


@dataclass
class Draft:
    """The rules so far. Later ones win, as in every plan.

    Attributes:
        component: Glob of the component that the file is about; None for the denoiser, whatever it is called.
        sites: All operations of these components, where a model was given.
        entry: Which of several plans in the file is wanted; None for the only one.
        rules: As JSON data.
        options: Those of the plan.
        calibration: Likewise.
        findings: What became of each part of the file, in its order.
    """

    component: str | None = None
    sites: tuple[Site, ...] | None = None
    entry: str | None = None
    rules: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def rule(
        self,
        id_: str,
        *,
        op: Sequence[str],
        modules: Iterable[str] | None = None,
        **parts: Any,
    ) -> None:
        """Adds a rule, or several where it names more modules than one may.

        Args:
            id_: Its name; a number is added where it is taken.
            op: Operations.
            modules: Globs of the names of modules; None selects all.
            parts: `why`, `weights`, `inputs`, `keep`, `when` and `select`, as in a plan; None for none.
        """
        select: dict[str, Any] = (
            {"kind": "denoiser"} if self.component is None else {"component": self.component}
        )
        select["op"] = op[0] if len(op) == 1 else list(op)
        select |= parts.pop("select", {})
        said = {key: value for key, value in parts.items() if value is not None}
        globs: list[tuple[str, ...] | None] = [None]
        if modules is not None:
            keys = self._short(_keys(modules), select["op"])
            if not keys:
                return
            if "*" not in keys:
                globs = [keys[at : at + _GLOBS_MOST] for at in range(0, len(keys), _GLOBS_MOST)]
        for part in globs:
            named = {} if part is None else {"name": part[0] if len(part) == 1 else list(part)}
            self.rules.append({"id": self._free(id_), "select": {**select, **named}, **said})
        if len(self.rules) > RULES_LIMIT:
            raise InvalidInput(
                f"the plan would have more than {RULES_LIMIT} rules",
                hint="select by patterns, or import a file for each component",
            )

    def say(self, verdict: Verdict, place: Foreign | str, words: str) -> None:
        """Notes what became of a part of the file."""
        where = place.place if isinstance(place, Foreign) else place
        if len(self.findings) >= _FINDINGS_MOST:
            raise InvalidInput(f"{quoted(where)}: the file has more than {_FINDINGS_MOST} parts")
        self.findings.append(Finding(where, verdict, words))

    def exact(self, place: Foreign | str, words: str) -> None:
        """Notes that the plan says the same."""
        self.say("exact", place, words)

    def approximate(self, place: Foreign | str, words: str) -> None:
        """Notes that the plan says something near, and what differs."""
        self.say("approximate", place, words)

    def noted(self, place: Foreign | str, words: str, differs: str) -> None:
        """Notes what the plan says, exact unless something differs."""
        if differs:
            self.approximate(place, f"{words}; {differs}")
        else:
            self.exact(place, words)

    def refuse(self, place: Foreign | str, words: str) -> None:
        """Notes that the plan does not say it, and why."""
        self.say("refused", place, words)

    def refuse_others(
        self, one: Foreign, known: Iterable[str], *, harmless: Iterable[str] = ()
    ) -> None:
        """Refuses each key that is not read here; what changes no number passes without a word."""
        for key, value in one.others((*known, *harmless)):
            self.refuse(value, f"key {quoted(key)} is not read here")

    def globs(
        self, place: Foreign, pattern: str, translate: Any, listed: Any = None
    ) -> tuple[str, ...] | None:
        """The globs of a foreign pattern; None, and a refusal noted, where there are none.

        Args:
            place: Where it stands.
            pattern: As it stands there.
            translate: Makes globs of it.
            listed: Makes names of it and of those of a model, where no globs say it.
        """
        try:
            found: tuple[str, ...] = translate(pattern)
        except NeedsNamesError as bad:
            if self.sites is None or listed is None:
                self.refuse(place, f"{quoted(pattern)} {bad}; with --model its names are listed")
                return None
            names: tuple[str, ...] = listed(pattern, dict.fromkeys(one.fqn for one in self.sites))
            return names
        except NoGlobError as bad:
            self.refuse(place, f"{quoted(pattern)} {bad}")
            return None
        return found

    def to_plan(self, name: str, description: str) -> dict[str, Any]:
        """The plan as JSON data; without rules it leaves everything float."""
        rules = self.rules or [{"id": "float", "weights": {"dtype": "float"}}]
        plan: dict[str, Any] = {"schema": SCHEMA, "name": name, "description": description}
        plan["rules"] = rules
        if self.options:
            plan["options"] = self.options
        if self.calibration:
            plan["calibration"] = self.calibration
        return {**plan, "gates": {}}

    def _short(self, keys: tuple[str, ...], op: str | list[str]) -> tuple[str, ...]:
        """Few globs that match the same operations of the model as many names."""
        if self.sites is None or len(keys) <= _NAMES_FEW:
            return keys
        operations = {op} if isinstance(op, str) else set(op)
        test = matcher(keys)
        wanted = [one.key for one in self.sites if one.op in operations and test(one.key)]
        others = [one.key for one in self.sites if one.op not in operations]
        return covering(wanted, others, [one.key for one in self.sites])

    def _free(self, id_: str) -> str:
        taken: Mapping[str, None] = dict.fromkeys(rule["id"] for rule in self.rules)
        if id_ not in taken:
            return id_
        return next(f"{id_}-{n}" for n in range(2, RULES_LIMIT * 2) if f"{id_}-{n}" not in taken)


def _keys(modules: Iterable[str]) -> tuple[str, ...]:
    """Globs for all calls of modules.

    Raises:
        InvalidInput: A name is one that no module has.
    """
    found: list[str] = []
    for module in modules:
        try:
            found += keys_of([module])
        except NoGlobError as bad:
            raise InvalidInput(
                f"{quoted(module)} {bad}, expected one like `mid_block.conv`"
            ) from None
    return tuple(dict.fromkeys(found))
