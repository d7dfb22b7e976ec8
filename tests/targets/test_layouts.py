"""Layouts of applications: the data itself, and faults in asking for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.targets import list_targets, load_target
from qdx.targets.layouts import list_layouts, load_layout
from qdx.targets.profile import list_base_layouts

COREML = load_target("coreml")


def test_there_is_one_layout_for_every_core_ml_target() -> None:
    assert list_layouts() == ("swift",)
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
    with pytest.raises(UsageError, match="there are swift"):
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
