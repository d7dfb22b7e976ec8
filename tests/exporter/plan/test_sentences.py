from __future__ import annotations

import pytest

from qdx.exporter.plan import load_plan
from qdx.exporter.plan.schema.rule import Rule
from qdx.exporter.plan.schema.settings import Options
from qdx.exporter.plan.schema.tuning import Tune
from qdx.exporter.plan.sentences import (
    asked_sentences,
    option_sentences,
    selected_sentence,
)


def rule(**keys) -> Rule:
    return Rule.model_validate(keys)


@pytest.mark.parametrize(
    ("select", "sentence"),
    [
        ({}, "Everything in every component"),
        ({"component": "unet"}, "Everything in unet"),
        ({"component": ["unet", "vae"]}, "Everything in unet or vae"),
        ({"kind": "denoiser"}, "Everything in every component that is a denoiser"),
        (
            {"component": "unet", "op": ["conv2d", "linear"], "stage": "mid"},
            "Operations of unet of kind conv2d or linear, in stage mid",
        ),
        ({"name": "*.to_q", "role": "attn.q"}, "Operations of every component with the role attn.q, named *.to_q"),
        ({"timesteps": (0.0, 0.25)}, "Operations of every component from 0 % to 25 % of the schedule, noisiest first"),
    ],
)  # fmt: skip
def test_a_selection_says_what_it_takes(select, sentence):
    assert selected_sentence(rule(select=select, keep="float32").select) == sentence


@pytest.mark.parametrize(
    ("keys", "sentences"),
    [
        ({"keep": "float"}, ["Kept in the target's float type: weights and inputs."]),
        ({"weights": {"dtype": "float16"}}, ["Weights: float16."]),
        (
            {"weights": {"dtype": "int8", "granularity": "channel", "reduce_range": True}},
            ["Weights: int8, one scale for each output channel, in seven bits."],
        ),
        (
            {"weights": {"dtype": "int4", "granularity": "block", "block": 32, "symmetric": False, "observer": "mse"}},
            ["Weights: int4, one scale for 32 elements, with zero points, the range of least squared error."],
        ),
        (
            {"inputs": {"dtype": "int8", "granularity": "token", "mode": "dynamic"}, "when": "faster"},
            ["Inputs: int8, one scale for each token, scales from the values as it runs.",
             "Only where the target's kernel is faster so."],
        ),
        (
            {"inputs": {"dtype": "int8", "observer": "percentile", "percentile": 0.999, "symmetric": True,
                        "timestep_groups": 4}},
            [
                "Inputs: int8, one scale for the tensor, zero stays zero, a calibrated range of 99.9 % of the values, apart in 4 groups of timesteps."
            ],
        ),
        ({"inputs": {"dtype": "float32"}}, ["Inputs: left in float."]),
    ],
)  # fmt: skip
def test_a_rule_says_what_it_asks(keys, sentences):
    assert list(asked_sentences(rule(**keys))) == sentences


def test_options_that_a_plan_changes_are_said():
    options = {"smoothing": {"alpha": 0.5}, "bias_correction": True, "time_embedding": "precompute"}
    plan = load_plan("float32").model_copy(update={"options": Options.model_validate(options)})

    assert list(option_sentences(plan)) == [
        "Layers of the timestep alone become a table.",
        "Biases are corrected by the mean error.",
        "The spread of activations moves into weights (smoothing, alpha 0.5).",
    ]
    assert not list(option_sentences(load_plan("float32")))


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"steps": 50},
            "Quantized operations of denoisers learn the float model's predictions in 50 steps from 128 calls.",
        ),
        (
            {"select": {"role": "attn.*"}, "rank": 8},
            "Operations of every component with the role attn.* learn the float model's predictions in 1000 steps from 128 calls, in updates of rank 8.",
        ),
    ],
)
def test_what_learns_is_said(keys, sentence):
    tune = Tune.model_validate({"method": "distil", **keys})
    plan = load_plan("w8").model_copy(update={"tune": tune})

    assert list(option_sentences(plan)) == [sentence]
