"""Names in selections that no operation can have: found without a model, because these vocabularies are closed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from qdx.exporter.errors import quoted
from qdx.exporter.graph.ir.site import OPERATIONS, ROLES, STAGES
from qdx.exporter.model_faults import choices
from qdx.exporter.plan.schema.fault import Fault
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import matches

__all__ = ["unknown_names"]

_NUMBERED: Final = re.compile(r"(?:down|up|block)\.[0-9]+", re.ASCII)
_BLOCKS: Final = 1000
"""How many blocks of a kind a glob is tried with."""
_WORDS: Final = {"op": ("an operation", "operations"), "role": ("a role", "roles"), "stage": ("a stage", "stages")}  # fmt: skip


def unknown_names(plan: Plan) -> tuple[Fault, ...]:
    """Returns each name or glob of `select.op`, `role` and `stage` that fits nothing, with what was probably meant."""
    return (*_all(plan),)


def _all(plan: Plan) -> Iterator[Fault]:
    for index, rule in enumerate(plan.rules):
        for key, (one, several) in _WORDS.items():
            for glob in getattr(rule.select, key) or ():
                if not _can_match(key, glob):
                    yield Fault(
                        ("rules", index, "select", key),
                        f"{quoted(glob)} is not {one}; {several} are {choices(_shown(key))}"
                        if not _is_glob(glob)
                        else f"{quoted(glob)} matches no {one.partition(' ')[2]}; {several} are {choices(_shown(key))}",
                        _hint(key, glob),
                    )


def _can_match(key: str, glob: str) -> bool:
    if key == "stage" and not _is_glob(glob):
        return glob == "mid" or _NUMBERED.fullmatch(glob) is not None
    return any(matches(name, (glob,)) for name in _names(key))


def _is_glob(text: str) -> bool:
    return "*" in text or "?" in text


@cache
def _names(key: str) -> tuple[str, ...]:
    """Everything that a key can select, of stages the first ones."""
    if key == "stage":
        numbered = (f"{kind}.{n}" for kind in STAGES if kind != "mid" for n in range(_BLOCKS))
        return ("mid", *numbered)
    return OPERATIONS if key == "op" else ROLES


def _shown(key: str) -> tuple[str, ...]:
    return ("down.0", "mid", "up.0", "block.0") if key == "stage" else _names(key)


def _hint(key: str, glob: str) -> str:
    near = difflib.get_close_matches(glob.lower(), [*_names(key), *(STAGES if key == "stage" else ())], n=1)  # fmt: skip
    if near:
        meant = f"{near[0]}.0" if key == "stage" and near[0] in {"down", "up", "block"} else near[0]
        return f"did you mean `{meant}`?"
    return "`qdx inspect MODEL --sites` lists what the operations of a model are called"
