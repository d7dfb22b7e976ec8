"""What is planted in a model is found by the whole of a search: a layer that four bits hold, and one that they ruin."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from qdx.analyze.analyze import analyze
from qdx.analyze.settings import AnalysisSettings
from qdx.exporter.plan.schema.load import load_plan
from qdx.search.budgets import Demand, read_budgets
from qdx.search.read import read_analysis
from qdx.search.run import run
from qdx.search.solve import Objective, budget_rows, solve
from qdx.targets import load_target
from tests.support.searching import problem

ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"
FREE, SENSITIVE = "conv_in", f"{ATTENTION}.to_out.0"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
BITS = {0: 32, 1: 4, 2: 8}


def plant(weights):
    """One layer whose values four bits hold; half of another's inputs made 50 times smaller, and larger again in it."""
    exact = weights["conv_in.weight"]
    drawn = torch.randint(-7, 8, exact.shape, generator=torch.Generator().manual_seed(0))
    drawn.view(len(drawn), -1)[:, 0] = 7
    exact.copy_(drawn / 32)
    weights[f"{ATTENTION}.to_v.weight"][::2] /= 50
    weights[f"{ATTENTION}.to_out.0.weight"][:, ::2] *= 50


def found_bits(model, folder):
    """Bits of each operation that a search finds."""
    profile, base = load_target("openvino"), load_plan("float32")
    asked = AnalysisSettings(
        parts=("noise",),
        plan="float32",
        call={"num_inference_steps": 2},
        options=["int4", "int8"],
        calls=1,
        workers=1,
    )
    analyze(model, target="openvino", output=folder, settings=asked)
    read = read_analysis(folder)
    found = run(
        model, read, profile, base, Demand(read_budgets(["average_bits=9.5"])), name="found",
        measurements=40, workers=1,
    )  # fmt: skip
    assert found.result.refitted.rounds
    pairs = zip(read.analysis.groups, found.result.assignment, strict=True)
    return {group.sites[0]: BITS[option] for group, option in pairs}


@pytest.mark.slow
def test_a_planted_free_layer_gets_the_fewest_bits_and_a_planted_sensitive_one_the_most(
    tiny_sd, tmp_path
):
    planted = tmp_path / "planted"
    shutil.copytree(tiny_sd, planted)
    weights = load_file(planted / WEIGHTS)
    plant(weights)
    save_file({n: t.contiguous() for n, t in weights.items()}, planted / WEIGHTS)

    before = found_bits(tiny_sd, tmp_path / "before")
    after = found_bits(planted, tmp_path / "after")

    assert after[FREE] == min(after.values()) < before[FREE]
    assert after[SENSITIVE] == max(after.values()) > before[SENSITIVE]


def test_in_one_program_too():
    one = problem([1.0, 2.0, 1e-12, 4.0, 1e6, 3.0])
    found = solve(one, Objective({"prediction": 1.0}), budget_rows(one, {"average_bits": 9}))

    options = [choice.option for choice in one.parts[0].choices]
    assert found[2] == max(options)  # the fewest bits
    assert found[4] == min(options)
    assert found.count(found[2]) == found.count(found[4]) == 1
