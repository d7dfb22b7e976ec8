"""Times of a whole analysis: of every option of every group, kept, and told to a search."""

from __future__ import annotations

import pytest

from qdx.analyze import latency_timing
from qdx.analyze.latency_job import _Graph, latency_of, source_of, with_latency, without_latency
from qdx.analyze.latency_table import FLOAT, read_how
from qdx.analyze.latency_whole import FLOATS, assigned, can_lower, whole_ms
from qdx.analyze.lowered import Lowering
from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.exporter.errors import InternalError, RuntimeMissing, UsageError
from qdx.search.from_analysis import problem_of
from qdx.search.solve import Objective, budget_rows, solve
from qdx.targets.profile import list_targets, load_target, parse_target

WHERE = "unet.forward"
OPTIONS = ["int8", "int8/int8"]


@pytest.fixture(scope="module")
def session(smallest):
    asked = AnalysisSettings(
        parts=("noise",),
        plan="w8a8",
        options=OPTIONS,
        calls=1,
        workers=1,
        call={"num_inference_steps": 2},
    )
    with open_session(smallest, target="onnxruntime", settings=asked) as found:
        yield found


@pytest.fixture(scope="module")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency_timing, "_PAUSE_S", 0.0)
        patch.setattr(latency_timing, "_TURN_S", 0.0)
        patch.setattr(latency_timing, "_OPENINGS_MOST", 1)
        yield


@pytest.fixture(scope="module")
def timed(session, quick):
    latency = latency_of(session, "measured", threads=1, rounds=2)
    return with_latency(session.analysis()[0], latency)


def test_every_option_of_every_group_has_a_time(timed):
    for group in timed.groups:
        assert all(offer.latency_ms is not None for offer in group.offers)
    assert timed.latency.source == "measured"
    table = timed.latency.of(WHERE)
    assert [one.option for one in table.whole] == [FLOAT, 1, 2]
    assert table.reads == ("float32", "float32", "int8")
    fitted = {one.name: one.fitted for one in table.mixed}
    assert fitted == {"plan": True, "half of it": True, "drawn 0": False, "drawn 1": False}


def test_a_search_counts_what_the_table_says(timed):
    problem = problem_of(timed)
    table = timed.latency.of(WHERE)

    assert "latency_ms" in problem.known_costs
    for option in (0, 1, 2):
        chosen = {k: option for g in timed.groups if option in g.options for k in g.sites}
        assignment = tuple(option if option in g.options else 0 for g in timed.groups)
        assert problem.cost(assignment, "latency_ms") == pytest.approx(table.predict_ms(chosen))
    assert problem.float_ms == pytest.approx(table.predict_ms({}))
    fastest = solve(problem, Objective({"prediction": 1.0}, "latency_ms"))
    most = problem.cost(fastest, "latency_ms") * 1.05
    within = solve(problem, Objective({"prediction": 1.0}), budget_rows(problem, {"latency_ms": most}))  # fmt: skip
    assert problem.cost(within, "latency_ms") <= most


def test_changes_are_told_from_the_plan_and_half_of_it(session):
    graph = _Graph(session, Lowering.of(session, WHERE))
    asked = session.findings.planned.resolved.quantized(WHERE)
    plan, half = graph._near.values()

    lowered = {one.key: one for one in graph.lowering.resolved(plan).quantized(WHERE)}
    assert plan.keys() == lowered.keys() == {one.key for one in asked}
    for one in asked:
        assert (lowered[one.key].weights, lowered[one.key].inputs) == (one.weights, one.inputs)
    assert 0 < len(half) < len(plan)
    assert half.items() <= plan.items()


def test_of_a_plan_that_reads_one_type_changes_are_told_from_the_last_options(smallest, session):
    asked = AnalysisSettings(parts=("noise",), plan="w8", options=OPTIONS, calls=1, workers=1, call={"num_inference_steps": 2})  # fmt: skip
    with open_session(smallest, target="onnxruntime", settings=asked) as weights:
        plan, _ = _Graph(weights, Lowering.of(weights, WHERE))._near.values()

    both = OPTIONS.index("int8/int8") + 1
    assert set(plan.values()) == {both}
    assert plan.keys() >= _Graph(session, Lowering.of(session, WHERE))._near["plan"].keys()


def test_what_was_measured_is_kept(session, timed, monkeypatch):
    monkeypatch.setattr(Lowering, "lower", _nothing_is_lowered)

    assert latency_of(session, "measured", threads=1, rounds=2) == timed.latency
    with pytest.raises(AssertionError, match="lowered"):  # another number of threads
        latency_of(session, "measured", threads=2, rounds=2)


def test_what_is_damaged_is_measured_again(session, timed, monkeypatch):
    kept = sorted((session.place / "latency").glob("*.json"))
    whole = {path: path.read_bytes() for path in kept}
    kept[0].write_bytes(whole[kept[0]][:40])
    lowered = []
    lower = Lowering.lower
    monkeypatch.setattr(Lowering, "lower", lambda *given: lowered.append(given) or lower(*given))

    latency_of(session, "measured", threads=1, rounds=2)

    assert 1 <= len(lowered) <= 2  # itself, and the one in float beside it
    assert kept[0].read_bytes() != whole[kept[0]][:40]
    kept[0].write_bytes(whole[kept[0]])


def _nothing_is_lowered(*_):
    raise AssertionError("lowered")


def test_an_analysis_without_its_times_is_that_of_another_machine(session, timed):
    assert without_latency(timed) == session.analysis()[0]
    assert with_latency(without_latency(timed), timed.latency) == timed
    assert with_latency(timed, None) is timed


def test_an_assignment_is_lowered_as_it_is_and_timed_beside_float(session, timed, quick):
    options = [group.options[-1] for group in timed.groups]
    resolved = assigned(session, options)
    by_key = {key: o for g, o in zip(timed.groups, options, strict=True) for key in g.sites}

    quantized = {one.key for one in resolved.quantized(WHERE)}
    assert quantized == {key for key, option in by_key.items() if option}
    assert can_lower(session, session.findings.planned.resolved)
    taken = whole_ms(session, {"mine": resolved}, threads=1, rounds=2)
    assert list(taken) == [FLOATS, "mine"]
    assert min(taken.values()) > 0
    with pytest.raises(InternalError, match="options for"):
        assigned(session, options[1:])


def test_declared_times_are_of_every_option_and_say_whose(smallest):
    asked = AnalysisSettings(
        parts=("noise",),
        plan="w8",
        options=["int8"],
        calls=1,
        workers=1,
        call={"num_inference_steps": 2},
    )
    with open_session(smallest, target="tensorrt-ada", settings=asked) as session:
        analysis = with_latency(session.analysis()[0], latency_of(session, "auto"))
    table = analysis.latency.of(WHERE)

    assert (analysis.latency.source, table.device) == ("declared", "GeForce RTX 4090")
    for group in analysis.groups:
        floats, *others = group.offers
        assert floats.latency_ms > 0
        # As much arithmetic in sixteen bits, and fewer bytes.
        assert all(0 < one.latency_ms <= floats.latency_ms for one in others)


def test_where_times_come_from_depends_on_the_target():
    assert source_of(load_target("openvino"), "auto") == ("measured", "")
    assert source_of(load_target("tensorrt-ada"), "auto")[0] == "declared"
    assert source_of(load_target("iphone-a17"), "declared")[0] == "declared"
    assert source_of(load_target("openvino"), "none") == ("none", "")


@pytest.mark.parametrize("name", list_targets())
def test_every_target_is_timed_or_declared(name):
    assert source_of(load_target(name), "auto")[0] in {"measured", "declared"}


def test_what_cannot_be_had_is_wrong_usage():
    with pytest.raises(UsageError, match="tells no times of operations") as refused:
        source_of(load_target("tensorrt"), "measured")
    assert "--latency declared" in refused.value.hint
    with pytest.raises(UsageError, match="nothing is said of the speed of `openvino`"):
        source_of(load_target("openvino"), "declared")
    with pytest.raises(UsageError, match="`fast` is none that there is"):
        read_how("fast")


def test_a_runtime_that_is_not_installed_is_missing(monkeypatch):
    monkeypatch.setattr("qdx.analyze.latency_job.find_spec", lambda _: None)

    with pytest.raises(RuntimeMissing, match="openvino is not installed"):
        source_of(load_target("openvino"), "measured")
    source, why = source_of(load_target("openvino"), "auto")
    assert (source, why) == ("none", "openvino is not installed, and nothing is said of the device's speed")  # fmt: skip


def test_a_target_of_ones_own_says_its_speed():
    text = 'extends = "openvino"\nname = "mine"\n[speed]\ndevice = "My processor"\nbytes_per_s = 5e10\n[speed.macs_per_s]\nfloat32 = 1e12\n'
    profile = parse_target(text, source="mine.toml")

    assert source_of(profile, "declared")[0] == "declared"
    assert profile.speed.macs_per_s == {"float32": 1e12}
