"""Exports with quantizing plans: options, stored recipes, and ranges that were recorded before."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save

import qdx
import qdx.compile.export as exporting
from qdx.bundle import read_bundle
from qdx.bundle.recipes import read_recipe, rebuilt
from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.calibrate.ranges_file import save_ranges
from qdx.exporter.errors import InvalidInput, TargetRefusal, UsageError
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.plan import load_plan
from qdx.exporter.transforms.bias_correction import CorrectBias
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.low_rank import SplitLowRank
from qdx.exporter.transforms.rotation import RotateInputs
from qdx.exporter.transforms.smoothing import Smooth
from qdx.exporter.transforms.time_embedding import TimeTable
from qdx.runtime.pipeline import open_methods
from qdx.source.pipeline import trace_pipeline
from qdx.targets.profile import load_target
from tests.support.quantizing import CALL, STATIC, WEIGHTS, export, files, plan, write_plan

TARGETS = ["onnxruntime", "openvino"]
OPTIONS = {
    "plain": {},
    "smoothing": {"smoothing": {"alpha": 0.5}},
    "bias correction": {"bias_correction": True},
    "time table": {"time_embedding": "precompute"},
    "all": {
        "smoothing": {"alpha": 0.5},
        "bias_correction": True,
        "time_embedding": "precompute",
    },
}


def each(*names):
    """Every pair of options and target; by default each has one of the targets, and all options together both."""
    for index, name in enumerate(names):
        for target in TARGETS:
            is_fast = name == "all" or target == TARGETS[index % 2]
            yield pytest.param(name, target, marks=() if is_fast else pytest.mark.slow)


SAFETENSORS = save({"weight": torch.zeros(2)})


def unwanted(*_, **__):
    """In place of what must not be reached."""
    raise AssertionError


def unet_calls(model, bundle, target):
    """What float PyTorch, the rebuilt quantized graph and the artifact answer to one call."""
    entry = bundle.manifest.components["unet"].methods["forward"]
    recipe = read_recipe(bundle.path / entry.folder)
    source = trace_pipeline(model, dict(CALL))
    graph = source.graph("unet.forward", load_target(target))
    timestep = torch.tensor(32)  # of the call's schedule
    floats, quantized = rebuilt(graph, recipe)
    inputs = {
        spec.name: timestep.reshape(spec.shape).to(getattr(torch, spec.dtype))
        if spec.name == "timestep"
        else torch.randn(spec.shape, generator=torch.Generator().manual_seed(1))
        for spec in graph.inputs
    }
    answers = [next(iter(run(one, inputs).values())) for one in (graph, floats, quantized)]
    artifact = next(iter(open_methods(bundle)["unet.forward"](inputs).values()))
    return recipe, *answers, artifact


def sqnr_db(reference, value):
    error = (reference.double() - value.double()).square().mean()
    return float(10 * torch.log10(reference.double().square().mean() / error))


@pytest.mark.parametrize(("name", "target"), [*each(*OPTIONS)])
def test_the_stored_recipe_rebuilds_what_the_artifact_computes(smallest, tmp_path, name, target):
    options = OPTIONS[name]
    export(smallest, tmp_path, plan(**options), target)
    bundle = read_bundle(tmp_path / target)
    recipe, reference, floats, quantized, artifact = unet_calls(smallest, bundle, target)
    for kind, option in (
        (Smooth, "smoothing"),
        (CorrectBias, "bias_correction"),
        (TimeTable, "time_embedding"),
    ):
        assert (recipe.find(kind) is not None) == (option in options)
    assert sqnr_db(reference, floats) > 90  # the same function, in another form
    assert 10 < sqnr_db(reference, quantized) < 60
    assert sqnr_db(quantized, artifact) > 25


@pytest.mark.parametrize("target", [TARGETS[0], pytest.param(TARGETS[1], marks=pytest.mark.slow)])
def test_a_low_rank_branch_stands_in_the_artifact(smallest, tmp_path, target):
    protected = ["conv_in", "conv_out"]
    value = plan(
        {**STATIC, "weights": {**STATIC["weights"], "low_rank": {"rank": 4, "dtype": "float16"}}}
    )
    value["rules"].append({"select": {"component": "unet", "name": protected}, "keep": "float"})
    export(smallest, tmp_path, value, target)
    bundle = read_bundle(tmp_path / target)
    recipe, reference, floats, quantized, artifact = unet_calls(smallest, bundle, target)
    branches = recipe.find(SplitLowRank).branches
    assert set(branches) == {f"{one.key}.weight" for one in recipe.placement.sites}
    assert not {f"{name}.weight" for name in protected} & set(branches)
    assert sqnr_db(reference, floats) > 90
    assert 10 < sqnr_db(reference, quantized) < 60
    assert sqnr_db(quantized, artifact) > 25


@pytest.mark.parametrize("target", [TARGETS[0], pytest.param(TARGETS[1], marks=pytest.mark.slow)])
def test_rotated_inputs_are_calibrated_and_stored(smallest, tmp_path, target):
    value = plan({**STATIC, "weights": {**STATIC["weights"], "rotate": {"block": 4}}})
    protected = ["conv_in", "conv_out"]
    value["rules"].append({"select": {"component": "unet", "name": protected}, "keep": "float"})
    export(smallest, tmp_path, value, target)
    bundle = read_bundle(tmp_path / target)
    recipe, reference, floats, quantized, artifact = unet_calls(smallest, bundle, target)
    rotations = recipe.find(RotateInputs).rotations
    assert set(rotations) == {one.key for one in recipe.placement.sites}
    assert sqnr_db(reference, floats) > 90
    assert 10 < sqnr_db(reference, quantized) < 60
    assert sqnr_db(quantized, artifact) > 25


def test_scales_by_timestep_name_the_input_that_tells_it(smallest, tmp_path):
    export(smallest, tmp_path, plan({**STATIC, "inputs": {"dtype": "int8", "timestep_groups": 2}}))
    bundle = read_bundle(tmp_path / "onnxruntime")
    recipe, *_, quantized, artifact = unet_calls(smallest, bundle, "onnxruntime")
    assert recipe.find(InsertQuantizers).timestep_input == "timestep"
    assert recipe.placement.by_timestep
    assert sqnr_db(quantized, artifact) > 25


def test_bias_correction_of_weights_alone_takes_ranges_too(smallest, tmp_path):
    export(smallest, tmp_path, plan(WEIGHTS, bias_correction=True))
    recipe = read_recipe(tmp_path / "onnxruntime" / "unet")
    assert recipe.find(CorrectBias).means
    assert not any(site.inputs for site in recipe.placement.sites)


@pytest.fixture(scope="module")
def bundle(smallest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    result = export(
        smallest, folder, plan(WEIGHTS, time_embedding="precompute"), call={"num_inference_steps": 5}
    )  # fmt: skip
    assert any("takes the 5 timesteps" in note for note in result.notes)
    return read_bundle(result.bundle)


class TestTimeTable:
    def test_the_manifest_tells_the_timesteps_and_the_steps(self, bundle):
        ports = {
            p.argument: p for p in bundle.manifest.components["unet"].methods["forward"].inputs
        }
        assert ports["timestep"].values == (0, 10, 20, 30, 40)
        assert ports["sample"].values == ()
        assert bundle.manifest.call["num_inference_steps"] == 5

    def test_its_own_schedule_runs(self, bundle):
        pipeline = qdx.open(bundle.path)
        made = pipeline(num_inference_steps=5, output_type="np").images
        assert made.shape[0] == 1

    def test_another_schedule_is_refused(self, bundle):
        with pytest.raises(UsageError, match="a table of 5 timesteps from 0 to 40"):
            qdx.open(bundle.path)(num_inference_steps=7)

    def test_the_call_s_own_steps_are_written_out(self, smallest, tmp_path):
        import shutil

        from tests.support.adversity import edit

        model = tmp_path / "model"
        shutil.copytree(smallest, model)
        edit(model / "scheduler" / "scheduler_config.json", num_train_timesteps=1000)
        export(model, tmp_path, plan(WEIGHTS, time_embedding="precompute"), call={})
        manifest = read_bundle(tmp_path / "onnxruntime").manifest
        assert manifest.call["num_inference_steps"] == 1000

    def test_a_float_plan_may_want_one(self, smallest, tmp_path):
        value = plan({"keep": "float32"}, time_embedding="precompute")
        value["rules"] = [{"select": {"component": "unet"}, "weights": {"dtype": "float32"}}]
        export(smallest, tmp_path, value)
        recipe = read_recipe(tmp_path / "onnxruntime" / "unet")
        assert recipe.find(TimeTable).timesteps == (0, 16, 32)
        assert recipe.placement.sites == ()


@pytest.fixture(scope="module")
def kept(smallest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    for name in ("plain", "smoothing"):
        path = write_plan(folder, plan(**OPTIONS[name]), f"{name}.json")
        qdx.calibrate(smallest, plan=path, output=folder / name, call=dict(CALL))
    return folder


class TestRangesFile:
    @pytest.mark.parametrize(("name", "target"), [*each("plain", "smoothing")])
    def test_it_makes_the_bundle_that_calibrating_makes(
        self, smallest, kept, tmp_path, name, target
    ):
        made = []
        for ranges in (None, kept / name):
            folder = tmp_path / str(len(made))
            folder.mkdir()
            export(smallest, folder, plan(**OPTIONS[name]), target, ranges=ranges)
            made.append(files(folder / target))
        assert [file for file in made[0] if made[0][file] != made[1].get(file)] == []

    @pytest.mark.parametrize(
        ("name", "options", "words"),
        [
            ("plain", "smoothing", "recorded without smoothing, and the plan is with smoothing of alpha 0.5"),
            ("smoothing", "plain", "recorded with smoothing of alpha 0.5, and the plan is without smoothing"),
        ],
    )  # fmt: skip
    def test_smoothing_must_agree(self, smallest, kept, tmp_path, name, options, words):
        with pytest.raises(InvalidInput, match=words):
            export(smallest, tmp_path, plan(**OPTIONS[options]), ranges=kept / name)

    def test_smoothed_sites_must_agree(self, smallest, kept, tmp_path):
        value = plan(**OPTIONS["smoothing"])
        value["rules"].append({"select": {"component": "unet", "role": "first"}, "keep": "float32"})
        with pytest.raises(InvalidInput, match="other sites, such as `conv_in`"):
            export(smallest, tmp_path, value, ranges=kept / "smoothing")

    def test_another_model_is_refused(self, smallest, kept, tmp_path):
        import shutil

        from tests.support.adversity import edit

        model = tmp_path / "model"
        shutil.copytree(smallest, model)
        edit(model / "scheduler" / "scheduler_config.json", beta_end=0.03)
        with pytest.raises(InvalidInput, match="recorded for a model whose"):
            export(model, tmp_path, plan(), ranges=kept / "plain")

    def test_groups_of_timesteps_must_agree(self, smallest, kept, tmp_path):
        value = plan({"weights": {"dtype": "int8"}, "inputs": {"dtype": "int8", "timestep_groups": 3}})  # fmt: skip
        value["calibration"] |= {"timestep_groups": 3, "steps": 3}
        with pytest.raises(InvalidInput, match="in 2 groups of timesteps, expected 3"):
            export(smallest, tmp_path, value, ranges=kept / "plain")

    def test_what_was_not_recorded_is_named(self, smallest, tmp_path):
        value = plan(STATIC)
        path = write_plan(tmp_path, value, "calibrated.json")
        ranges = qdx.calibrate(smallest, plan=path, output=tmp_path / "ranges", call=dict(CALL))
        graph = ranges.graphs["unet.forward"]
        lacking = {key: ports for key, ports in graph.ports.items() if key != "conv_in"}
        from dataclasses import replace

        save_ranges(
            Ranges({"unet.forward": replace(graph, ports=lacking)}, ranges.provenance),
            tmp_path / "ranges",
        )
        with pytest.raises(
            InvalidInput, match=r"site `conv_in` of `unet.forward` was not recorded"
        ):
            export(smallest, tmp_path, value, ranges=tmp_path / "ranges")

    @pytest.mark.parametrize(
        "junk", [None, b"", b"junk " * 20, SAFETENSORS], ids=["missing", "empty", "text", "weights"]
    )
    def test_a_file_of_something_else_is_refused_before_the_pipeline_is_read(
        self, tmp_path, monkeypatch, junk
    ):
        monkeypatch.setattr(exporting, "trace_pipeline", unwanted)
        if junk is not None:
            (tmp_path / "junk").write_bytes(junk)
        with pytest.raises(InvalidInput, match="junk"):
            export(tmp_path / "no model", tmp_path, plan(), ranges=tmp_path / "junk")

    def test_a_plan_without_need_of_ranges_says_so(self, smallest, tmp_path):
        path = write_plan(tmp_path, plan(WEIGHTS))
        with pytest.raises(UsageError, match="needs no ranges"):
            qdx.calibrate(smallest, plan=path, output=tmp_path / "ranges", call=dict(CALL))
        assert list(tmp_path.iterdir()) == [path]


def test_single_operations_in_a_float_type_of_their_own_are_refused(smallest, tmp_path):
    value = load_plan("float16").to_json()
    value["rules"] = [{"select": {"op": "linear"}, "weights": {"dtype": "float32"}}]
    path = write_plan(tmp_path, value)

    with pytest.raises(TargetRefusal) as refused:
        qdx.export(smallest, target="coreml", plan=path, output=tmp_path / "b", call=dict(CALL))

    assert "float weights of a component have one type" in str(refused.value)
    assert list(tmp_path.iterdir()) == [path]


class TestGroupsThatCalibrationCannotFill:
    """They are refused before anything computes."""

    @pytest.fixture(autouse=True)
    def no_computing(self, monkeypatch):
        monkeypatch.setattr("qdx.calibration.sample.Sample.run", unwanted)

    def refused(self, model, folder, value, **arguments):
        """What an export and `calibrate` say; both the same."""
        path = write_plan(folder, value)
        with pytest.raises(UsageError) as one:
            export(model, folder, value, **arguments)
        with pytest.raises(UsageError) as other:
            qdx.calibrate(model, plan=path, output=folder / "ranges", call=arguments["call"])
        assert str(one.value) == str(other.value)
        assert list(folder.iterdir()) == [path]
        return str(one.value)

    def test_of_a_component_without_timesteps(self, tiny_sd, tmp_path):
        value = plan({**STATIC, "inputs": {"dtype": "int8", "timestep_groups": 2}})
        value["rules"][0]["select"]["component"] = ["unet", "text_encoder"]
        call = {"prompt": "a", "height": 16, "width": 16, "num_inference_steps": 2}

        words = self.refused(tiny_sd, tmp_path, value, call=call)

        assert (
            "`text_encoder.forward`: scales by timestep, in 2 groups, and calibration distinguishes 1"
            in words
        )
        assert "leave its component out of the rule" in words

    def test_of_a_schedule_of_fewer_steps(self, smallest, tmp_path):
        value = plan({**STATIC, "inputs": {"dtype": "int8", "timestep_groups": 5}})
        value["calibration"] = {"samples": 1, "timestep_groups": 5}

        words = self.refused(smallest, tmp_path, value, call=dict(CALL))

        assert (
            "`unet.forward`: scales by timestep, in 5 groups, and calibration distinguishes 3"
            in words
        )


def test_dynamic_shapes_take_ranges_of_the_call_s_own(smallest, tmp_path):
    export(smallest, tmp_path, plan(smoothing={"alpha": 0.5}), shapes="dynamic")
    bundle = read_bundle(tmp_path / "onnxruntime")
    method = open_methods(bundle)["unet.forward"]
    for batch in (1, 2):
        inputs = {"sample": torch.zeros(batch, 3, 8, 8), "timestep": torch.tensor(16)}
        assert next(iter(method(inputs).values())).shape[0] == batch


def test_a_plan_that_reaches_nothing_exported_says_so(tmp_path):
    from qdx.compile.export import export
    from tests.support.tiny import FAMILIES, build

    result = export(
        build("sd", tmp_path / "sd"),
        target="onnxruntime",
        plan="w8a8",
        output=tmp_path / "out",
        call=FAMILIES["sd"].arguments(),
        components=["vae"],
    )

    assert any("quantizes nothing" in note for note in result.notes)
