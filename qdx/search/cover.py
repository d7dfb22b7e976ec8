"""Few ordered rules that give every operation an option it accepts: a decision list, read from the top, the last match wins.

Greedily, the rule is added next that saves most: what a list of names for all that is still wrong would cost a reader,
less what the rule costs. Then rules are taken out again whose absence saves more. What remains wrong is listed by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from qdx.exporter.plan.schema.globs import covering

__all__ = ["NOTHING", "Operation", "Selection", "cover", "options_after"]

NOTHING: Final = -1
"""What holds where no rule of the list selects: the plan that the search began from."""

_RULE: Final = 1.0
_KEY: Final = 0.15
_VALUE: Final = 0.1
_NAME: Final = 0.35
"""What a rule, a key of its selection, a further value and a name cost a reader; of the order of lines to read."""
_NAMES_MOST: Final = 64
_KEYS: Final = ("op", "role", "stage")


@dataclass(frozen=True)
class Operation:
    """What rules see of an operation, and the options that do to it what is wanted.

    Attributes:
        component: Of the pipeline.
        name: Its key.
        op: What it computes.
        role: What it is for.
        stage: Where it stands; empty outside of all stages.
        accepts: Options that come to the same here; `NOTHING` among them where no rule need speak.
        wants: The option that was chosen; `NOTHING` for one that was not to choose.
    """

    component: str
    name: str
    op: str
    role: str
    stage: str
    accepts: frozenset[int]
    wants: int


@dataclass(frozen=True)
class Selection:
    """One rule of the list: what it selects, and the option it gives.

    Attributes:
        component: The component.
        option: What it asks.
        values: Of `op`, `role`, `stage` and `name`, sorted; keys that are absent select everything.
    """

    component: str
    option: int
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def cost(self) -> float:
        """What it costs a reader."""
        total = _RULE
        for key, values in self.values:
            each = _NAME if key == "name" else _VALUE
            total += _KEY + each * (len(values) - (key != "name"))
        return total


def cover(operations: Sequence[Operation]) -> tuple[Selection, ...]:
    """Returns the rules, component by component in the order of the operations, general ones first."""
    found: list[Selection] = []
    for component in dict.fromkeys(one.component for one in operations):
        found += _Cover([one for one in operations if one.component == component]).rules()
    return tuple(found)


def options_after(operations: Sequence[Operation], rules: Sequence[Selection]) -> tuple[int, ...]:
    """Returns the option of each operation when all rules have been read."""
    found = []
    for one in operations:
        option = NOTHING
        for rule in rules:
            if rule.component == one.component and _selects(rule, one):
                option = rule.option
        found.append(option)
    return tuple(found)


def _selects(rule: Selection, one: Operation) -> bool:
    from qdx.exporter.plan.schema.rule import matches

    return all(matches(getattr(one, key), values) for key, values in rule.values)


def _without_members(values: Mapping[str, object]) -> tuple[str, ...]:
    """Values without those that a glob beside them selects."""
    families = tuple(value[:-1] for value in values if value.endswith(".*"))
    return tuple(v for v in values if v.endswith(".*") or not v.startswith(families))


class _Cover:
    """The work on one component. Operations are known by their places."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._all = operations
        self._component = operations[0].component
        self._names = [one.name for one in operations]
        self._options = sorted({one.wants for one in operations} - {NOTHING})
        self._by_value = {
            key: {
                value: frozenset(
                    p for p, one in enumerate(operations) if getattr(one, key) == value
                )
                for value in sorted({getattr(one, key) for one in operations} - {""})
            }
            for key in _KEYS
        }
        # A person writes `up.*` for all stages on the way up.
        stages = self._by_value["stage"]
        families = {stage.partition(".")[0] for stage in stages if "." in stage}
        for family in sorted(families):
            of_it = [places for stage, places in stages.items() if stage.startswith(f"{family}.")]
            if len(of_it) > 1:
                stages[f"{family}.*"] = frozenset().union(*of_it)
        # What is not to choose, and no option leaves as it is, no rule may select: none could take that back.
        self._untouched = {
            option: frozenset(
                place
                for place, one in enumerate(operations)
                if one.wants == NOTHING and option not in one.accepts
            )
            for option in self._options
        }
        self._sets: dict[Selection, frozenset[int]] = {}

    def rules(self) -> list[Selection]:
        chosen: list[Selection] = []
        while (better := self._with_one_more(chosen)) is not None:
            chosen = better
        chosen = self._thinned(chosen)
        return [*chosen, *self._exceptions(self._after(chosen))]

    def _with_one_more(self, chosen: Sequence[Selection]) -> list[Selection] | None:
        state = self._after(chosen)
        before = self._left(state)
        best: tuple[float, int, Selection] | None = None
        for number, rule in enumerate(self._candidates(state)):
            gain = before - self._left(self._with(state, rule)) - rule.cost
            if gain > 1e-9 and (best is None or gain > best[0] + 1e-9):
                best = (gain, number, rule)
        return None if best is None else [*chosen, best[2]]

    def _thinned(self, chosen: list[Selection]) -> list[Selection]:
        """Without rules that cost more than they save now that later ones stand behind them."""
        total = self._total(chosen)
        for place in range(len(chosen) - 1, -1, -1):
            without = chosen[:place] + chosen[place + 1 :]
            if self._total(without) <= total + 1e-9:
                return self._thinned(without)
        return chosen

    def _total(self, chosen: Sequence[Selection]) -> float:
        return sum(rule.cost for rule in chosen) + sum(
            rule.cost for rule in self._exceptions(self._after(chosen))
        )

    def _after(self, chosen: Sequence[Selection]) -> list[int]:
        state = [NOTHING] * len(self._all)
        for rule in chosen:
            state = self._with(state, rule)
        return state

    def _with(self, state: Sequence[int], rule: Selection) -> list[int]:
        changed = list(state)
        for place in self._sets[rule]:
            changed[place] = rule.option
        return changed

    def _wrong(self, state: Sequence[int]) -> list[int]:
        return [p for p, one in enumerate(self._all) if state[p] not in one.accepts]

    def _left(self, state: Sequence[int]) -> float:
        """What lists of names would cost for all that is wrong."""
        wrong = self._wrong(state)
        rules = {self._all[place].wants for place in wrong}
        return _NAME * len(wrong) + (_RULE + _KEY) * len(rules)

    def _candidates(self, state: Sequence[int]) -> Iterator[Selection]:
        """Selections that put more right than wrong, for each option."""
        for option in self._options:
            gain = [self._gain(place, state[place], option) for place in range(len(self._all))]
            yield from self._known(Selection(self._component, option), frozenset(range(len(gain))))
            for key in _KEYS:
                yield from self._of_key(option, key, gain, None)
            for first, second in combinations(_KEYS, 2):
                for key, other in ((first, second), (second, first)):
                    for value in self._by_value[key]:
                        yield from self._of_key(option, other, gain, (key, value))

    def _gain(self, place: int, now: int, option: int) -> int:
        accepts = self._all[place].accepts
        return (option in accepts) - (now in accepts)

    def _of_key(
        self, option: int, key: str, gain: Sequence[int], within: tuple[str, str] | None
    ) -> Iterator[Selection]:
        """Every value alone that helps, and all of them together."""
        inside = None if within is None else self._by_value[within[0]][within[1]]
        helps: dict[str, frozenset[int]] = {}
        for value, places in self._by_value[key].items():
            kept = places if inside is None else places & inside
            if sum(gain[place] for place in kept) > 0:
                helps[value] = kept
        outer = () if within is None else ((within[0], (within[1],)),)
        together = _without_members(helps)
        several = [together] if len(together) > 1 else []
        for values in [*((value,) for value in helps), *several]:
            keys = tuple(sorted((*outer, (key, values))))
            places = frozenset().union(*(helps[value] for value in values))
            yield from self._known(Selection(self._component, option, keys), places)

    def _known(self, rule: Selection, places: frozenset[int]) -> Iterator[Selection]:
        if places & self._untouched[rule.option]:
            return
        self._sets[rule] = places
        yield rule

    def _exceptions(self, state: Sequence[int]) -> list[Selection]:
        """Rules by name for all that is still wrong."""
        by_option: dict[int, list[str]] = {}
        for place in self._wrong(state):
            one = self._all[place]
            by_option.setdefault(one.wants, []).append(one.name)
        found = []
        for option in sorted(by_option):
            allowed = self._accepting(option)
            globs = covering(by_option[option], allowed, self._names)
            for start in range(0, len(globs), _NAMES_MOST):
                values = (("name", globs[start : start + _NAMES_MOST]),)
                rule = Selection(self._component, option, values)
                self._sets[rule] = frozenset()  # never a part of the greedy list
                found.append(rule)
        return found

    def _accepting(self, option: int) -> AbstractSet[str]:
        return {one.name for one in self._all if option in one.accepts}
