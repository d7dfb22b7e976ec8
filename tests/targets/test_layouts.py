"""Layouts of applications: the data itself, and faults in asking for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qdx.exporter.errors import InvalidTarget, TargetRefusal, UsageError
from qdx.targets import list_targets, load_target
from qdx.targets.layouts import list_layouts, load_layout
from qdx.targets.profile import check_profile, list_base_layouts

COREML = load_target("coreml")


RTX = load_target("rtx-ada")


def test_there_is_one_layout_for_every_core_ml_target() -> None:
    assert list_layouts() == ("epcontext", "swift")
    assert load_layout("swift", load_target("iphone-a17")) == load_layout("swift", COREML)


@pytest.mark.parametrize(
    ("pipeline", "packages"),
    [
        ("StableDiffusionPipeline", {"TextEncoder", "Unet", "VAEDecoder", "VAEEncoder"}),
        (
            "StableDiffusionXLPipeline",
            {"TextEncoder", "TextEncoder2", "Unet", "VAEDecoder", "VAEEncoder"},
        ),
        (
            "StableDiffusion3Pipeline",
            {"TextEncoder", "TextEncoder2", "MultiModalDiffusionTransformer", "VAEDecoder"},
        ),
    ],
)
def test_packages_have_the_names_that_the_swift_package_looks_for(pipeline, packages) -> None:
    family = load_layout("swift", COREML).family(pipeline)

    assert {package.package for package in family.packages.values()} == packages


def test_a_denoiser_has_exactly_one_output() -> None:
    for family in load_layout("swift", COREML).families.values():
        for package in family.packages.values():
            if package.package in {"Unet", "MultiModalDiffusionTransformer"}:
                assert len(package.outputs) == 1


def test_other_pipelines_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(TargetRefusal, match="StableDiffusionXLPipeline"):
        load_layout("swift", COREML).family("FluxPipeline")


def test_an_unknown_name_and_another_runtime_are_refused() -> None:
    with pytest.raises(UsageError, match="there are epcontext, swift"):
        load_layout("kotlin", COREML)
    with pytest.raises(UsageError, match="`openvino` is one of `openvino`"):
        load_layout("swift", load_target("openvino"))


@pytest.mark.parametrize("name", list_targets())
def test_a_target_s_layout_is_what_its_loaders_look_for(name):
    """Recorded before targets shared a layout: a change of what they share changes what several loaders find."""
    profile = load_target(name)
    recorded = json.loads(Path(__file__).with_name("layouts_of_targets.json").read_text())
    layout = profile.layout.model_dump(mode="json")
    for side in ("inputs", "outputs"):
        layout[side] = {
            key: {name: value for name, value in port.items() if value is not None}
            for key, port in layout[side].items()
        }

    assert recorded[profile.runtime] == layout


def test_what_targets_share_is_not_a_layout_of_an_application():
    assert list_base_layouts() == ("diffusers",)
    assert "diffusers" not in list_layouts()


def test_a_layout_of_files_changes_their_names_alone():
    changed = load_layout("epcontext", RTX).upon(RTX.layout)

    assert (changed.model_file, changed.context_file) == ("model.qdq.onnx", "model.onnx")
    names = {"model_file", "external_data_file", "context_file"}
    assert changed.model_dump(exclude=names) == RTX.layout.model_dump(exclude=names)


@pytest.mark.parametrize("name", list_targets())
def test_every_target_has_the_layout_of_engines_or_refuses_it_in_one_message(name):
    profile = load_target(name)
    if profile.runtime == "tensorrt-rtx":
        assert load_layout("epcontext", profile).description
        return
    with pytest.raises(UsageError) as refused:
        load_layout("epcontext", profile)
    assert refused.value.message == (
        f"--layout epcontext: is for targets of `tensorrt-rtx`, `{name}` is one of `{profile.runtime}`"
    )


def test_a_bundle_s_target_may_name_the_files_of_a_layout_of_its_runtime_and_no_others():
    own = RTX.layout
    layout = load_layout("epcontext", RTX).upon(own)

    check_profile(RTX.model_copy(update={"layout": layout}), "qdx.json")
    half = own.model_copy(update={"context_file": "model.onnx"})
    with pytest.raises(InvalidTarget, match=r"layout\.context_file"):
        check_profile(RTX.model_copy(update={"layout": half}), "qdx.json")
    other = load_target("tensorrt")
    with pytest.raises(InvalidTarget, match=r"layout\.model_file"):
        check_profile(other.model_copy(update={"layout": layout}), "qdx.json")
