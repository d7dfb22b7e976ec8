"""Target profiles: the data itself, the layout rules, and faults."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

import qdx.targets
from qdx.exporter.errors import InternalError, UsageError
from qdx.exporter.plan import list_presets, load_plan, resolve
from qdx.targets import Port, TargetProfile, list_targets, load_target
from qdx.targets import profile as profile_module
from qdx.targets.profile import target_data
from qdx.targets.text import target_text

ALL = ("onnxruntime", "openvino")
FOLDER = Path(qdx.targets.__file__).parent


def port(target, direction, key, dtype):
    component, method, name = key.split(".", 2)
    return getattr(load_target(target).layout, direction)(component, method, name, dtype)


def test_targets_are_listed():
    assert list(list_targets()) == sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert set(ALL) <= set(list_targets())


@pytest.mark.parametrize("name", list_targets())
def test_each_target_is_named_like_its_file(name):
    assert name == load_target(name).name


@pytest.mark.parametrize("name", list_targets())
def test_no_number_type_is_both_offered_and_refused(name):
    profile = load_target(name)

    assert not set(profile.storage_dtypes) & profile.refused.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_runtime_s_own_target_is_named_like_it(name):
    profile = load_target(name)

    assert (name, name, "CPU") == (profile.name, profile.runtime, profile.device)
    assert name in profile.distributions


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("preset", list_presets())
def test_every_preset_resolves_on_every_target(name, preset):
    profile = load_target(name)
    plan = load_plan(preset)
    resolved = resolve(plan, ["unet"], profile)

    asked = [rule.asked_weights.dtype for rule in plan.rules if rule.select.by_component]
    assert (asked or ["float32"])[-1] == resolved.storage_dtype("unet")


def test_an_unknown_target_is_refused_with_a_guess():
    with pytest.raises(UsageError) as caught:
        load_target("openvion")

    assert str(caught.value) == (
        f"--target: `openvion` is not a target; there are {', '.join(list_targets())}"
        "\n\nhint: did you mean `openvino`?"
    )


@pytest.mark.parametrize("name", ["../openvino", "", "OPENVINO", "layouts/swift", "/etc/passwd"])
def test_a_target_s_name_is_never_a_path(name):
    with pytest.raises(UsageError):
        load_target(name)


def test_file_names():
    assert (
        load_target("onnxruntime").layout.model_file,
        load_target("onnxruntime").layout.external_data_file,
    ) == ("model.onnx", "model.onnx_data")
    assert (
        load_target("openvino").layout.model_file,
        load_target("openvino").layout.external_data_file,
    ) == ("openvino_model.xml", "openvino_model.bin")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("component", "method", "folder"),
    [
        ("unet", "forward", "unet"),
        ("text_encoder_2", "forward", "text_encoder_2"),
        ("vae", "encode", "vae_encoder"),
        ("vae", "decode", "vae_decoder"),
        ("image_encoder", "encode", "image_encoder_encode"),
    ],
)
def test_folders(name, component, method, folder):
    assert folder == load_target(name).layout.folder(component, method)


@pytest.mark.parametrize(
    ("target", "key", "dtype", "expected"),
    [
        ("onnxruntime", "unet.forward.timestep", "int64", Port("timestep", "float32", 0)),
        ("openvino", "unet.forward.timestep", "int64", Port("timestep", "int64", 1)),
        ("openvino", "unet.forward.timestep", "float32", Port("timestep", "int64", 1)),
        ("onnxruntime", "transformer.forward.timestep", "bfloat16", Port("timestep", "float32", 1)),
        ("openvino", "transformer_2.forward.timestep", "int64", Port("timestep", "float32", 1)),
        ("openvino", "unet.forward.sample", "float16", Port("sample", "float32", None)),
        ("openvino", "text_encoder.forward.input_ids", "int64", Port("input_ids", "int64", None)),
        (
            "onnxruntime",
            "text_encoder.forward.input_ids",
            "int32",
            Port("input_ids", "int64", None),
        ),
        (
            "onnxruntime",
            "unet.forward.added_cond_kwargs.time_ids",
            "float32",
            Port("time_ids", "float32", None),
        ),
        ("openvino", "vae.encode.x", "float32", Port("sample", "float32", None)),
        ("openvino", "vae.decode.z", "float32", Port("latent_sample", "float32", None)),
        ("openvino", "controlnet.forward.timestep", "int64", Port("timestep", "int64", None)),
    ],
)
def test_inputs(target, key, dtype, expected):
    assert expected == port(target, "input", key, dtype)


@pytest.mark.parametrize("target", ALL)
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("unet.forward.out_sample", "out_sample"),
        ("unet.forward.sample", "out_sample"),
        ("vae.encode.latent_parameters", "latent_parameters"),
        ("vae.encode.latent", "latent_sample"),
        ("vae.decode.sample", "sample"),
        ("text_encoder.forward.last_hidden_state", "last_hidden_state"),
        ("text_encoder.forward.hidden_states.3", "hidden_states.3"),
    ],
)
def test_outputs(target, key, expected):
    assert Port(expected, "float32", None) == port(target, "output", key, "float16")


@pytest.mark.parametrize("field", ["sample", "output"])
@pytest.mark.parametrize(
    ("target", "expected"), [("onnxruntime", "out_hidden_states"), ("openvino", "out_sample")]
)
def test_the_output_of_a_transformer(target, expected, field):
    key = f"transformer.forward.{field}"

    assert Port(expected, "float32", None) == port(target, "output", key, "float16")


def test_the_targets_differ_in_nothing_but_what_their_loaders_need():
    one, other = (raw(name)["layout"] for name in ALL)
    for layout in (one, other):
        layout.pop("exact_readers", None)
        del (
            layout["model_file"],
            layout["external_data_file"],
            layout["inputs"]["unet*.forward.timestep"],
            layout["outputs"]["transformer*.forward.sample"],
            layout["outputs"]["transformer*.forward.output"],
        )

    assert one == other


def test_a_glob_does_not_reach_across_the_dots():
    data = raw("openvino")
    data["layout"]["inputs"] = {"*.forward.x": {"name": "wrong"}}
    layout = TargetProfile.model_validate(data).layout

    assert layout.input("vae", "decode.forward", "x", "float32").name == "x"


def test_an_exact_key_comes_before_a_glob():
    data = raw("openvino")
    data["layout"]["inputs"] = {
        "*.forward.x": {"name": "general"},
        "vae.forward.x": {"name": "special"},
    }
    layout = TargetProfile.model_validate(data).layout

    assert layout.input("vae", "forward", "x", "float32").name == "special"


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"schema": "qdx.target/2"},
        {"storage_dtypes": ["int3"]},
        {"runtime": "a toaster"},
        {"options": {"x": 1}},
    ],
)
def test_a_faulty_profile_is_refused(change):
    with pytest.raises(ValidationError):
        TargetProfile.model_validate(raw("openvino") | change)


def test_a_profile_may_extend_another(tmp_path, monkeypatch):
    base = raw("openvino")
    shutil.copy(FOLDER / "openvino.toml", tmp_path)
    shutil.copytree(FOLDER / "layouts", tmp_path / "layouts")
    (tmp_path / "small.toml").write_text(
        'extends = "openvino"\nname = "small"\n[limits]\nrank = 5\n[options]\nNEW = "1"\n'
        '[[kernels]]\nop = ["conv2d"]\nform = "refused"\nwhy = "small"\n'
    )
    monkeypatch.setattr(profile_module, "_FOLDER", tmp_path)
    profile = load_target("small")

    assert (profile.name, profile.runtime, profile.limits.rank) == ("small", "openvino", 5)
    assert profile.options == {**base["options"], "NEW": "1"}
    assert profile.kernels[0].why == "small"
    assert len(profile.kernels) == 1 + len(base["kernels"])


def test_nested_names_are_joined_as_the_layout_says():
    data = raw("openvino")
    data["layout"]["dot"] = "_"
    layout = TargetProfile.model_validate(data).layout

    assert layout.output("x", "forward", "hidden_states.3", "float32").name == "hidden_states_3"


@pytest.mark.parametrize("key", ["timestep", "unet.timestep", "unet.forward.", "unet forward.x.y"])
def test_a_port_s_key_names_component_method_and_tensor(key):
    data = raw("openvino")
    data["layout"]["inputs"] = {key: {"rank": 0}}
    with pytest.raises(ValidationError, match=r"expected component\.method\.tensor"):
        TargetProfile.model_validate(data)


@pytest.mark.parametrize("text", ["not toml", 'schema = "qdx.target/1"', None])
def test_a_broken_profile_is_a_defect_of_qdx(tmp_path, monkeypatch, text):
    text = text or target_text("openvino")
    (tmp_path / "toaster.toml").write_text(text)
    monkeypatch.setattr(profile_module, "_FOLDER", tmp_path)
    with pytest.raises(InternalError, match=r"toaster\.toml"):
        load_target("toaster")


def raw(name):
    return copy.deepcopy(target_data(name))
