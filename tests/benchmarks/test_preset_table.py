"""The page of presets and targets is what its script makes."""

from __future__ import annotations

import pytest
from diffusers import DiffusionPipeline

import qdx
from benchmarks.preset_table import MODELS, page
from qdx.exporter.plan import list_presets
from qdx.targets import list_targets, load_target
from tests.support.layers import ROOT

PAGE = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
EVERYWHERE = ("float16", "w8")


def cells(preset):
    """By target, what the page says of a preset for each model."""
    column = 1 + list_presets().index(preset)
    return [{row[0].strip("`"): row[column] for row in table(section)} for section in sections()]


def sections():
    """The parts of the page, one for each model."""
    return PAGE.split("\n## ")[1:]


def table(section):
    """The cells of the rows of targets."""
    return [
        line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")
    ]


def test_it_has_every_model_and_preset():
    assert [line[3:] for line in PAGE.splitlines() if line.startswith("## ")] == list(MODELS)
    for preset in list_presets():
        assert [list(row) for row in cells(preset)] == [list(list_targets())] * len(MODELS)


@pytest.mark.parametrize("preset", EVERYWHERE)
def test_what_every_target_has(preset):
    for row in cells(preset):
        assert set(row.values()) == {"yes"}


def test_float32_is_refused_for_turing_alone():
    for row in cells("float32"):
        assert {name for name, cell in row.items() if cell != "yes"} == {"rtx-turing"}


@pytest.mark.parametrize(
    ("preset", "without"),
    [("w4", {"coreml-ios16", "coreml-ios17", "iphone-a16"}), ("w8a8", {"coreml-ios16"})],
)
def test_what_every_target_has_that_has_a_kernel_for_it(preset, without):
    for row in cells(preset):
        refused = {name for name, cell in row.items() if cell != "yes"}
        others = {name for name in refused if not load_target(name).runtime.startswith("tensorrt")}
        assert others == without


def test_4_bits_are_refused_for_tensorrt_only_where_no_block_divides_the_inputs():
    for section, row in zip(sections(), cells("w4"), strict=True):
        cell = row["tensorrt"]
        reason = next((x for x in section.splitlines() if x.startswith(f"{cell}. ")), "")
        assert cell == "yes" or reason.endswith("inputs"), section


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "digits"),
    ],
)
def test_it_is_what_the_script_makes(name):
    assert next(page([name])) in PAGE


FAST = {"coreml": "palette4"}


def exported_cells():
    """Every `yes` of the smallest sample; one is exported by default."""
    row = list(MODELS).index("digits")
    for preset in list_presets():
        for target, cell in cells(preset)[row].items():
            marks = () if FAST.get(target) == preset else pytest.mark.slow
            if cell == "yes":
                yield pytest.param(preset, target, marks=marks)


@pytest.mark.parametrize(("preset", "target"), list(exported_cells()))
def test_what_it_promises_of_the_smallest_sample_is_exported_and_opened(preset, target, tmp_path):
    path, call = tmp_path / "bundle", {"num_inference_steps": 2}
    qdx.export(ROOT / "samples/digits", target=target, plan=preset, output=path, call=call)

    assert isinstance(qdx.open(path), DiffusionPipeline)
