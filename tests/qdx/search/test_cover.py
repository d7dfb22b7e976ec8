"""Few rules that give every operation an option it accepts."""

from __future__ import annotations

import random

import pytest

from qdx.search.cover import NOTHING, Operation, Selection, cover, options_after
from tests.support.searching import SITES


def operations(wants, accepts=None):
    """The operations of the UNet, each with the option that a function gives it; norms are not to choose."""
    found = []
    for one in SITES["unet.forward"]:
        option = wants(one)
        if one.op == "group_norm":
            found.append(Operation("unet", one.key, one.op, one.role, one.stage, frozenset({NOTHING, 0, 1, 2, 3}), 0))  # fmt: skip
            continue
        fine = frozenset({option} | (accepts(one) if accepts else set()))
        found.append(Operation("unet", one.key, one.op, one.role, one.stage, fine, option))
    return found


def holds(every, rules):
    return all(o in one.accepts for one, o in zip(every, options_after(every, rules), strict=True))


def test_one_option_everywhere_is_one_rule_for_the_component():
    every = operations(lambda _: 1)

    assert cover(every) == (Selection("unet", 1),)


def test_exceptions_of_a_role_are_a_rule_of_that_role():
    every = operations(lambda one: 0 if one.role in {"first", "last"} else 1)

    assert cover(every) == (
        Selection("unet", 1),
        Selection("unet", 0, (("role", ("first", "last")),)),
    )


def test_a_stage_of_some_roles_is_a_rule_with_both():
    every = operations(lambda one: 2 if one.role == "conv" and one.stage.startswith("up") else 1)

    assert cover(every) == (
        Selection("unet", 1),
        Selection("unet", 2, (("role", ("conv",)), ("stage", ("up.*",)))),
    )


def test_one_operation_that_is_like_others_is_named():
    odd = "up_blocks.1.resnets.0.conv2"
    every = operations(lambda one: 0 if one.key == odd else 1)

    assert cover(every) == (Selection("unet", 1), Selection("unet", 0, (("name", (odd,)),)))


@pytest.mark.parametrize("seed", range(10))
def test_any_assignment_is_given_by_its_rules(seed):
    generator = random.Random(seed)
    every = operations(lambda _: generator.randrange(4))

    assert holds(every, cover(every))


@pytest.mark.parametrize("seed", range(10))
def test_what_follows_roles_and_ways_takes_about_a_rule_for_each_group(seed):
    generator = random.Random(seed)
    of = {}
    every = operations(lambda one: of.setdefault((one.role, one.stage[:2]), generator.randrange(3)))

    rules = cover(every)
    assert holds(every, rules)
    assert len(rules) <= len(of)
    assert sum(rule.cost for rule in rules) < 0.5 * sum(0.35 for _ in every)


def test_options_that_come_to_the_same_need_no_rule_of_their_own():
    every = operations(lambda one: 3 if one.role == "attn.q" else 1, lambda _: {1})

    assert cover(every) == (Selection("unet", 1),)


def test_what_is_not_to_choose_is_left_alone_where_no_option_leaves_it_so():
    every = [
        *operations(lambda _: 1),
        Operation("unet", "embed", "embedding", "embedding", "", frozenset({NOTHING}), NOTHING),
    ]
    rules = cover(every)

    assert holds(every, rules)
    assert options_after(every, rules)[-1] == NOTHING
    assert Selection("unet", 1) not in rules


def test_components_have_rules_of_their_own():
    every = operations(lambda _: 1)
    every.append(Operation("vae", "conv", "conv2d", "conv", "", frozenset({2}), 2))

    assert cover(every) == (Selection("unet", 1), Selection("vae", 2))
