"""From an analysis to a plan."""

from __future__ import annotations

import pytest

from qdx.cli.search_tables import times_of
from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.exporter.plan import load_plan
from qdx.search.budgets import Demand
from qdx.search.fits import check_model_fits, check_plan_fits, check_target_fits
from qdx.search.from_analysis import problem_of
from qdx.search.from_base import read_roles
from qdx.search.job import find_plan
from qdx.search.ledger import Measured
from qdx.search.read import read_analysis
from qdx.search.search import Settings
from qdx.search.solve import Objective
from qdx.search.tools import Tools
from qdx.search.write_plan import options_of_base
from tests.support.searching import DIGEST, analysis, pipeline, timed_analysis

BASE = load_plan("w8a8")
SENSITIVE = {"attn.q": 0.01, "attn.k": 0.01, "last": 500.0, "first": 100.0}


def found(read=None, demand=None, settings=None, base=BASE, **more):
    return find_plan(
        read or analysis(sensitivity=SENSITIVE),
        pipeline(),
        base,
        demand or Demand(budgets={"average_bits": 9}),
        settings or Settings(),
        name="found",
        analysis_sha256="1" * 64,
        **more,
    )


def test_the_plan_says_how_it_was_found_and_what_it_is_held_against():
    plan = found().plan

    assert plan.found.schema_ == "qdx.found/1"
    assert plan.found.weigh == "steps"
    assert found(weigh="trajectory").plan.found.weigh == "trajectory"
    assert plan.found.analysis == "1" * 64
    assert plan.found.prefer == "bytes"
    assert (plan.found.guidance_weight, plan.found.fixed, plan.found.no_float) == (None, None, None)
    assert plan.found.average_bits <= 9
    assert plan.found.asked == "average_bits=9"
    assert plan.found.measured is None
    assert plan.found.permuted.sqnr_db < plan.found.predicted.sqnr_db
    assert "predicted, not measured" in plan.description
    assert all(rule.why for rule in plan.rules)


def test_the_plan_tells_what_was_insisted_on():
    settings = Settings(Objective({"prediction": 1.0, "guidance": 0.5}), prefer="bit_operations")
    told = found(settings=settings, fix=("first",), no_float=True).plan.found

    assert (told.prefer, told.guidance_weight) == ("bit_operations", 0.5)
    assert (told.fixed, told.no_float) == (("first",), True)


def test_a_budget_of_time_is_kept_and_told():
    done = found(timed_analysis(SENSITIVE), Demand(budgets={"speedup": 1.3}))
    section = done.plan.found

    assert 1.3 <= section.speedup < 1.4
    assert section.latency_ms == pytest.approx(done.predicted_ms, abs=1e-4)
    assert done.problem.float_ms == pytest.approx(2 + 0.25 * len(done.problem.parts))
    assert section.speedup == pytest.approx(done.problem.float_ms / section.latency_ms, abs=1e-3)
    assert "times as fast as float, as declared of a device" in done.plan.description


def test_changes_of_types_keep_neighbours_alike():
    def changes(change_ns):
        one = timed_analysis(SENSITIVE, change_ns)
        done = found(one, Demand(budgets={"speedup": 1.2}))
        chosen = {k: o for g, o in zip(one.groups, done.result.assignment, strict=True) for k in g.sites}  # fmt: skip
        assert done.predicted_ms == pytest.approx(one.latency.of("unet.forward").predict_ms(chosen))
        return one.latency.of("unet.forward").changed_elements(chosen)

    assert changes(50.0) < changes(0.0)


def test_a_time_that_cannot_be_met_names_the_least_that_can():
    with pytest.raises(TargetRefusal, match="speedup=9 cannot be met: the most that can is") as no:
        found(timed_analysis(), Demand(budgets={"speedup": 9}))
    assert no.value.exit_code == 3
    assert "2 ms are of operations that no option changes" in no.value.message
    assert no.value.refusals


def test_times_that_nobody_knows_are_wrong_usage():
    for demand in (Demand(budgets={"latency_ms": 5}), Demand(budgets={"speedup": 2})):
        with pytest.raises(UsageError, match="does not know `latency_ms`") as wrong:
            found(demand=demand)
        assert "--latency auto" in wrong.value.hint
    with pytest.raises(UsageError, match="--prefer: the analysis does not know `latency_ms`"):
        found(settings=Settings(prefer="latency_ms"))


def test_what_is_found_is_timed_where_time_was_asked_for():
    taken = []

    def take_ms(assignments):
        taken.append(dict(assignments))
        return {"float": 8.0, "this plan": 5.0}

    tools, one = Tools(take_ms=take_ms), timed_analysis(SENSITIVE)
    timed = found(one, Demand(budgets={"latency_ms": 14}), tools=tools)
    other = found(one, tools=tools)

    assert taken == [{"this plan": timed.result.assignment}]
    assert timed.taken_ms == timed.to_json()["taken_ms"] == {"float": 8.0, "this plan": 5.0}
    assert other.taken_ms is None
    assert "taken_ms" not in other.to_json()
    assert "measured in turns" in times_of(timed)[0]
    assert "this plan" in times_of(timed)[0]
    assert "1.60" in times_of(timed)[0]
    assert times_of(other)[0].endswith("times as fast as float")
    assert times_of(found()) == []


def test_what_is_measured_slower_than_what_it_began_from_is_not_returned():
    one, demand = timed_analysis(SENSITIVE), Demand(bounds={"prediction": 20})
    settings, asked, weights = Settings(prefer="latency_ms"), [], load_plan("w8")

    def measure(batch):
        return [Measured({"prediction": 1e-6, "guidance": 1e-6}) for _ in batch]

    def begun(ms):
        def take_ms(assignments):
            asked.extend(assignments.values())
            return {"float": 8.0, "this plan": 5.0, "what it began from": ms}

        return found(one, demand, settings, weights, tools=Tools(measure=measure, take_ms=take_ms))

    faster, slower = begun(6.0), begun(4.0)
    start = options_of_base(weights, pipeline(), one.options, one.groups)
    assert faster.result.assignment != slower.result.assignment == start
    assert faster.taken_ms["this plan"] == 5.0
    assert slower.taken_ms["this plan"] == slower.taken_ms["what it began from"] == 4.0
    assert len(asked) == 3  # each once in a search


def test_a_front_is_timed_where_that_was_asked_for():
    settings, demand = Settings(prefer="latency_ms"), Demand(bounds={"prediction": 20})

    def take_ms(assignments):
        return {"float": 8.0} | {name: 5.0 + n for n, name in enumerate(assignments)}

    one, tools = timed_analysis(SENSITIVE), Tools(take_ms=take_ms)
    plain = found(one, demand, settings, tools=tools).result.front
    timed = found(one, demand, settings, tools=tools, time_front=True).result.front

    assert not plain.is_timed
    assert [p.taken_ms for p in timed.points] == [5.0 + n for n in range(len(plain.points))]


@pytest.mark.parametrize(
    ("prefer", "tools", "words"),
    [
        ("bytes", Tools(take_ms=dict), "the front is over bytes"),
        ("latency_ms", Tools(), "nothing times plans here"),
    ],
)
def test_a_front_that_nothing_can_time_is_refused(prefer, tools, words):
    with pytest.raises(UsageError, match=words):
        found(timed_analysis(), settings=Settings(prefer=prefer), tools=tools, time_front=True)


def test_the_cheapest_for_a_goal_is_the_fastest_where_that_is_preferred():
    demand = Demand(bounds={"prediction": 20})
    one = timed_analysis(SENSITIVE)
    fast = found(one, demand, settings=Settings(prefer="latency_ms"))
    small = found(one, demand, settings=Settings(prefer="bytes"))

    assert fast.predicted_ms < small.predicted_ms
    assert fast.plan.found.bytes > small.plan.found.bytes
    assert fast.result.front.cost == "latency_ms"


def test_the_same_inputs_have_the_same_plan():
    assert found().plan.to_json() == found().plan.to_json()


def test_measured_figures_are_in_the_plan():
    def measure(batch):
        return [Measured({"prediction": 1e-3, "guidance": 1e-2}) for _ in batch]

    plan = found(tools=Tools(measure=measure)).plan
    assert plan.found.measured.sqnr_db == 30
    assert plan.found.measured.guidance_db == 20
    assert "30.0 dB, measured" in plan.description


def test_what_is_most_sensitive_keeps_most_bits():
    done = found(demand=Demand(budgets={"average_bits": 8}))
    bits = dict(zip([p.name for p in done.problem.parts], done.result.assignment, strict=True))

    assert bits["unet.conv_out"] == 0
    assert bits["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"] == 3


def test_a_role_that_is_fixed_stays_as_the_base_has_it():
    loud = analysis(sensitivity={**SENSITIVE, "shortcut": 1e-9})
    shortcuts = [g.id for g in loud.groups if g.roles == ("shortcut",)]

    free, fixed = found(loud), found(loud, fix=("shortcut",))
    assert {free.result.assignment[place] for place in shortcuts} != {0}
    assert {fixed.result.assignment[place] for place in shortcuts} == {0}


def test_without_float_every_operation_takes_an_option_but_what_is_fixed():
    demand = Demand(budgets={"average_bits": 9})
    shortcuts = {g.id for g in analysis().groups if g.roles == ("shortcut",)}

    assert 0 in found(demand=demand).result.assignment
    assert 0 not in found(demand=demand, no_float=True).result.assignment
    fixed = found(demand=demand, no_float=True, fix=("shortcut",)).result.assignment
    assert {place for place, option in enumerate(fixed) if option == 0} == shortcuts


def test_what_stands_in_the_way_names_the_restriction_of_its_own():
    demand = Demand(budgets={"bit_operations": 1.0})
    with pytest.raises(TargetRefusal) as caught:
        found(demand=demand, no_float=True, fix=("shortcut",))

    shortcuts = {f"unet.{g.sites[0]}" for g in analysis().groups if g.roles == ("shortcut",)}
    assert {one.site in shortcuts for one in caught.value.refusals} == {True, False}
    for one in caught.value.refusals:
        assert ("--fix keeps it" in one.reason) == (one.site in shortcuts)
        assert ("--no-float leaves it no other" in one.reason) == (one.site not in shortcuts)


def test_a_role_whose_option_was_not_analyzed_cannot_be_fixed():
    with pytest.raises(UsageError, match="none of the options analyzed"):
        found(fix=("conv",))  # the preset chooses ranges by least error, these options do not


def test_a_role_that_no_operation_has_cannot_be_fixed():
    with pytest.raises(UsageError, match="no operation that was analyzed"):
        found(fix=("embedding",))
    with pytest.raises(UsageError, match="not a role") as caught:
        read_roles(["attention"])
    assert caught.value.exit_code == 2


def test_a_budget_below_the_least_names_it():
    with pytest.raises(TargetRefusal, match="average_bits=2 cannot be met: the least that can is"):
        found(demand=Demand(budgets={"average_bits": 2}))


def test_a_plan_of_another_quantizer_is_no_beginning():
    with pytest.raises(UsageError, match="leaves the choice"):
        find_plan(
            analysis(),
            pipeline(),
            load_plan("samples/plans/nncf-ptq.json"),
            Demand(budgets={"average_bits": 9}),
            Settings(),
            name="x",
            analysis_sha256=DIGEST,
        )


def test_an_option_that_was_only_simulated_is_not_chosen():
    read = analysis()
    groups = tuple(
        group.model_copy(
            update={
                "offers": tuple(
                    one.model_copy(update={"form": "simulated"}) if one.option == 3 else one
                    for one in group.offers
                )
            }
        )
        for group in read.groups
    )
    read = read.model_copy(update={"groups": groups})

    assert 3 not in {c.option for p in problem_of(read).parts for c in p.choices}
    assert 3 in {c.option for p in problem_of(read, options=(1, 3)).parts for c in p.choices}


def test_an_option_that_the_analysis_does_not_have_is_wrong_usage():
    with pytest.raises(UsageError, match="option 9"):
        problem_of(analysis(), options=(9,))


def test_an_option_whose_noise_is_unknown_is_none():
    read = analysis()
    rows = tuple(row for row in read.noise.single if row.option != 3)
    read = read.model_copy(update={"noise": read.noise.model_copy(update={"single": rows})})

    assert 3 not in {c.option for p in problem_of(read).parts for c in p.choices}


def test_an_analysis_of_something_else_is_refused():
    read = analysis()
    check_target_fits(read, "openvino", DIGEST)
    check_model_fits(read, {"unet/config.json": DIGEST})
    check_plan_fits(read, "w8a8", DIGEST)

    for check, words in (
        (lambda: check_target_fits(read, "onnxruntime", DIGEST), "for target `openvino`"),
        (lambda: check_target_fits(read, "openvino", "1" * 64), "has changed since"),
        (lambda: check_model_fits(read, {"unet/config.json": "1" * 64}), "is another file"),
        (lambda: check_model_fits(read, {}), "is not there"),
        (lambda: check_plan_fits(read, "w4", "1" * 64), "upon `w8a8`, and this is `w4`"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            check()
        assert caught.value.exit_code == 2


def test_what_is_no_analysis_is_refused(tmp_path):
    from qdx.exporter.errors import InvalidInput
    from qdx.exporter.files import dump_json

    path = tmp_path / "analysis.json"
    path.write_bytes(dump_json(analysis().to_json()))
    assert read_analysis(tmp_path).analysis == analysis()

    for text, words in (
        (b"{}", "`schema`"),
        (b'{"schema": "qdx.analysis/1"}', "key `versions` is missing"),
        (b"nonsense", "analysis.json"),
    ):
        path.write_bytes(text)
        with pytest.raises(InvalidInput, match=words):
            read_analysis(tmp_path)
    with pytest.raises(InvalidInput, match="no such folder"):
        read_analysis(tmp_path / "none")
