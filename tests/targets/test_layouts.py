"""Layouts of applications: the data itself, and faults in asking for one."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.targets import load_target
from qdx.targets.layouts import list_layouts, load_layout

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
