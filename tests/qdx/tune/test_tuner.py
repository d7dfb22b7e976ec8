"""A quantized denoiser learns to answer as the float one, and what it learned is in recipes and artifacts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.backends.registry import get_backend
from qdx.bundle.recipes import read_recipe
from qdx.cache.store import Store
from qdx.calibration.learning_calls import learning_calls
from qdx.calibration.record import record_ranges
from qdx.compile.recipe import choose_recipe
from qdx.exporter.errors import InsufficientMemory, InvalidPlan, TargetRefusal, UsageError
from qdx.exporter.formats.affine import quantize_weight
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.plan.resolve.tuned import with_tuning
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.progress import SILENT
from qdx.exporter.transforms.given import TakeGiven
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import plan_graphs
from qdx.targets.profile import load_target
from qdx.tune import distil, tuner
from qdx.tune.tuner import Tuner
from qdx.verification.verify import verify
from tests.support.quantizing import CALL, export, plan
from tests.support.smallest import build_smallest

WHERE = "unet.forward"
SCHEME = {"weights": {"dtype": "int4"}, "inputs": {"dtype": "int8"}}


def asking(scheme=None, options=None, **tune):
    value = plan(scheme or SCHEME, **(options or {}))
    value["gates"]["lowering"] = {"sqnr_db_min": 60}
    return {**value, "tune": {"method": "distil", "steps": 12, "batch": 2, "calls": 4, **tune}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_smallest(tmp_path_factory.mktemp("tuning") / "model")


@pytest.fixture(scope="module")
def source(model):
    return trace_pipeline(model, dict(CALL))


@pytest.fixture(scope="module")
def known(source, tmp_path_factory):
    """Recorded calls and ranges, with which every plan here learns."""
    intent = plan_from_json(asking(), source="p.json")
    profile = load_target("openvino")
    planned = plan_graphs(source, intent, profile)
    calls = learning_calls(source, intent, source.call, planned=planned, workers=1)
    folder = tmp_path_factory.mktemp("calls")
    ranges = record_ranges(source, intent, source.call, planned=planned, workers=1, choices=profile.choices)  # fmt: skip
    return SimpleNamespace(recorded=calls.record({WHERE: 4}, folder), ranges=ranges)


def tuned(source, known, value, store=None, progress=SILENT, **arguments):
    intent = plan_from_json(value, source="p.json")
    planned = plan_graphs(source, intent, load_target("openvino"))
    calls = learning_calls(source, intent, source.call, planned=planned, workers=1)
    graph = planned.graphs[WHERE]
    with Tuner(
        calls,
        planned.resolved,
        store=store,
        progress=progress,
        recorded=known.recorded,
        **arguments,
    ) as learns:
        return choose_recipe(
            graph, planned.resolved, known.ranges, get_backend("openvino"), tuner=learns
        )


@pytest.fixture(scope="module")
def learned(source, known, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("cache"))
    base, recipe = tuned(source, known, asking(), store)
    return SimpleNamespace(store=store, base=base, recipe=recipe)


def losses(store):
    from safetensors.torch import load_file

    (file,) = (store.root / "tuned").rglob("tensors.safetensors")
    return load_file(file)["losses"].tolist()


def same(one, other):
    tensors, others = one.tensors(), other.tensors()
    return (
        one.to_json() == other.to_json()
        and tensors.keys() == others.keys()
        and all(torch.equal(tensors[name], others[name]) for name in tensors)
    )


def test_the_loss_falls(learned):
    before, after = losses(learned.store)

    assert after < before / 1.5


def test_weights_and_scales_have_moved(source, known, learned):
    value = asking()
    del value["tune"]
    intent = plan_from_json(value, source="p.json")
    planned = plan_graphs(source, intent, load_target("openvino"))
    _, plain = choose_recipe(
        planned.graphs[WHERE], planned.resolved, known.ranges, get_backend("openvino")
    )
    floats = quantized_graph(learned.base, plain).weights
    given = learned.recipe.find(TakeGiven)
    moved = sum(
        int((given.parts[f"{name}.values"] != floats[name].read()).sum()) for name in given.weights
    )
    scales = [
        (one.inputs[0].scale, other.inputs[0].scale)
        for one, other in zip(plain.placement.sites, learned.recipe.placement.sites, strict=True)
    ]

    assert plain.find(TakeGiven) is None
    assert moved > 50
    assert all(one != other for one, other in scales)
    assert all(one / 2 < other < 2 * one for one, other in scales)


def mean_error(known, base, recipe):
    """Of the recipe's graph against the float one, on the calls that were recorded."""
    quantized = quantized_graph(base, recipe)
    errors = [
        float(distil.loss_of(run(quantized, dict(call)), run(base, dict(call))))
        for call in known.recorded[WHERE]
    ]
    return sum(errors) / len(errors)


def test_the_quantized_graph_is_the_student_that_learned(known, learned):
    wanted = losses(learned.store)[1]

    assert mean_error(known, learned.base, learned.recipe) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("scheme", "learns"),
    [
        ({**SCHEME, "inputs": {"dtype": "int8", "timestep_groups": 2}}, True),
        pytest.param({**SCHEME, "inputs": {"dtype": "int4"}}, True, marks=pytest.mark.slow),
        ({**SCHEME, "inputs": {"dtype": "int4", "timestep_groups": 2}}, True),
        pytest.param(
            {**SCHEME, "inputs": {"dtype": "uint8", "symmetric": False}}, True, marks=pytest.mark.slow
        ),
        ({**SCHEME, "inputs": {"dtype": "int8", "mode": "dynamic", "granularity": "token"}}, False),
    ],
    ids=["groups", "few-bits", "few-bits-groups", "zero-points", "tokens"],
)  # fmt: skip
def test_every_form_of_inputs_learns_what_its_graph_then_computes(
    source, known, tmp_path, scheme, learns
):
    store, value = Store(tmp_path), asking(scheme, steps=6)
    value["rules"][0]["select"]["op"] = ["conv2d", "linear"] if learns else ["linear"]
    base, recipe = tuned(source, known, value, store)
    before, after = losses(store)
    plain = {**value}
    del plain["tune"]
    intent = plan_from_json(plain, source="p.json")
    planned = plan_graphs(source, intent, load_target("openvino"))
    _, started = choose_recipe(
        planned.graphs[WHERE], planned.resolved, known.ranges, get_backend("openvino")
    )
    moved = [
        one.inputs != other.inputs
        for one, other in zip(started.placement.sites, recipe.placement.sites, strict=True)
    ]

    assert after < before
    assert mean_error(known, base, started) == pytest.approx(before, rel=1e-3)
    assert mean_error(known, base, recipe) == pytest.approx(after, rel=1e-3)
    assert all(moved) if learns else not any(moved)


def test_the_same_again_and_an_interrupted_one_have_the_same_bytes(
    source, known, learned, tmp_path, monkeypatch
):
    store, follow, steps = Store(tmp_path), distil._follow, 0

    def some(*arguments):
        nonlocal steps
        steps += 1
        if steps == 8:
            raise KeyboardInterrupt
        follow(*arguments)

    monkeypatch.setattr(distil, "_follow", some)
    with pytest.raises(KeyboardInterrupt):
        tuned(source, known, asking(), store)
    _, recipe = tuned(source, known, asking(), store)

    assert steps == 8 + 12 - 7
    assert same(recipe, learned.recipe)


def test_what_was_learned_is_kept(source, known, learned, monkeypatch):
    def not_again(*arguments, **more):
        raise AssertionError("it was learned already")

    monkeypatch.setattr(tuner, "distil", not_again)
    _, recipe = tuned(source, known, asking(), learned.store)

    assert same(recipe, learned.recipe)
    with pytest.raises(AssertionError, match="learned already"):
        tuned(source, known, asking(seed=1), learned.store)


def test_a_selection_alone_is_touched(source, known, learned):
    _, recipe = tuned(source, known, asking(select={"name": ["conv_in", "*conv2"]}))
    given = recipe.find(TakeGiven)
    plain = {one.key: one for one in learned.recipe.placement.sites}
    _, untuned = tuned(source, known, asking(steps=1, learning_rate=1e-12))
    before = {one.key: one for one in untuned.placement.sites}
    chosen = {one.key for one in recipe.placement.sites if one.key == "conv_in" or one.key.endswith("conv2")}  # fmt: skip

    assert {name.removesuffix(".weight") for name in given.weights} == chosen
    assert len(chosen) < len(plain)
    for one in recipe.placement.sites:
        changed = one.inputs[0].scale != pytest.approx(before[one.key].inputs[0].scale, rel=1e-6)
        assert changed is (one.key in chosen), one.key


def test_low_rank_updates_learn_too(source, known, tmp_path):
    store = Store(tmp_path)
    tuned(source, known, asking(rank=2, steps=6), store)
    before, after = losses(store)

    assert after < before


def test_steps_that_gain_nothing_leave_all_as_it_was(source, known, monkeypatch):
    said = []
    progress = SimpleNamespace(task=SILENT.task, say=said.append)

    def worse(student, batch):
        del batch
        with torch.no_grad():
            for leaf in student.leaves.values():
                leaf.mul_(1.5)

    monkeypatch.setattr(distil, "_follow", worse)
    base, recipe = tuned(source, known, asking(steps=1), progress=progress)
    given = recipe.find(TakeGiven)
    for name, quantization in given.weights.items():
        wanted = quantize_weight(base.weights[name].read(), quantization)
        assert torch.equal(given.parts[f"{name}.values"], wanted.values)
        assert torch.equal(given.parts[f"{name}.scale"], wanted.scale)

    assert "nothing is gained" in said[-1]


def test_a_memory_that_does_not_do_is_refused(source, known, monkeypatch):
    monkeypatch.setattr(tuner, "available_memory_bytes", lambda: 1000)
    with pytest.raises(InsufficientMemory, match=r"tuning unet\.forward needs about"):
        tuned(source, known, asking())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (asking({"weights": {"dtype": "float32"}}), "`tune`, and no rule quantizes"),
        (asking(options={"bias_correction": True}), "`bias_correction` beside `tune`"),
        (asking(select={"timesteps": [0, 0.5]}), "`timesteps` in what is tuned"),
        (asking(timesteps=[0, 0]), "`timesteps` of which none counts"),
        (asking(steps=0), "steps"),
    ],
)
def test_what_contradicts_itself_is_refused(value, words):
    with pytest.raises(InvalidPlan, match=words):
        plan_from_json(value, source="p.json")


def test_given_weights_do_not_learn(model, tmp_path):
    with pytest.raises(UsageError, match="the plan asks for `tune`"):
        export(model, tmp_path, asking(), weights=tmp_path / "weights.safetensors")


def test_a_pipeline_without_a_denoiser_is_refused():
    intent = plan_from_json(asking(), source="p.json")
    with pytest.raises(InvalidPlan, match="none of what is exported is a denoiser"):
        with_tuning(intent, {"vae.decode": ()}, {"vae": "decoder"})


def test_an_analysis_of_such_a_plan_is_refused(model):
    intent = plan_from_json(asking(), source="p.json")
    settings = AnalysisSettings(plan=intent)
    with (
        pytest.raises(UsageError, match="of which none has learned"),
        open_session(model, target="openvino", settings=settings),
    ):
        pass


def test_a_selection_of_nothing_is_refused(source):
    intent = plan_from_json(asking(select={"name": "nowhere"}), source="p.json")
    with pytest.raises(InvalidPlan, match="no quantized operation of a denoiser is selected"):
        plan_graphs(source, intent, load_target("openvino"))


@pytest.mark.parametrize(
    ("target", "weights", "words"),
    [
        ("coreml", {"dtype": "palette4"}, "weights are palette4"),
        ("openvino", {"dtype": "int4", "rounding": "gptq"}, "rounding gptq has learned them"),
    ],
)
def test_operations_that_cannot_learn_are_refused(source, target, weights, words):
    intent = plan_from_json(asking({"weights": weights}), source="p.json")
    with pytest.raises(TargetRefusal) as refused:
        plan_graphs(source, intent, load_target(target))

    assert words in str(refused.value.refusals[0].reason)


def test_the_artifact_computes_with_what_was_learned(model, tmp_path):
    bundle = export(model, tmp_path, asking(), workers=1).bundle
    recipe = read_recipe(bundle / "unet")

    assert recipe.find(TakeGiven).tool == "qdx"
    report = verify(bundle, model=model)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["openvino", "coreml", "tensorrt"])
def test_on_every_target(model, tmp_path, target):
    value = asking({"weights": {"dtype": "int8"}, "inputs": {"dtype": "int8"}})
    value["gates"]["lowering"] = {}  # the target's own: some store all else in sixteen bits
    bundle = export(model, tmp_path, value, target, workers=1).bundle
    (path,) = bundle.rglob("quantization.json")

    assert read_recipe(path.parent).find(TakeGiven) is not None
    assert verify(bundle, model=model).ok


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"smoothing": {"alpha": 0.5}}, {}),
        ({"time_embedding": "precompute"}, {}),
        ({}, {"low_rank": {"rank": 2}}),
        ({}, {"dtype": "uint8", "symmetric": False}),
    ],
    ids=["smooth", "table", "branch", "zero-points"],
)
def test_beside_what_else_changes_a_graph(model, tmp_path, options, weights):
    value = asking({**SCHEME, "weights": {"dtype": "int4", **weights}}, options)
    bundle = export(model, tmp_path, value, "openvino", workers=1).bundle

    assert verify(bundle, model=model).ok


@pytest.mark.slow
def test_sizes_that_stay_open_learn_at_the_calls_own(model, tmp_path):
    bundle = export(model, tmp_path, asking(), workers=1, shapes="dynamic").bundle

    assert verify(bundle, model=model).ok
