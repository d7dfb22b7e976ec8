"""The further parts of an analysis on a small pipeline: complete, the same with any number of workers, kept when interrupted."""

from __future__ import annotations

import pytest

from qdx.analyze.settings import PARTS, read_parts
from qdx.analyze.trajectory_data import Missing
from qdx.cache.store import Store
from qdx.exporter.errors import UsageError

ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"
OPTIONS = ["int4", "int8/int8"]


def scale(weights, factor=50.0):
    """Half of the values that attention adds up are made smaller, and larger again behind: floats stay as they are."""
    to_v, to_out = weights[f"{ATTENTION}.to_v.weight"], weights[f"{ATTENTION}.to_out.0.weight"]
    to_v[::2] /= factor
    to_out[:, ::2] *= factor


@pytest.mark.slow
def test_all_parts_are_found_out(analyzed, tiny_sd, tmp_path):
    given = {"options": OPTIONS, "calls": 2, "parts": PARTS, "trace": True}
    cache = Store(tmp_path / "cache")
    found = analyzed(tiny_sd, "one", **given, cache=cache)
    analysis = found.analysis

    gradients = analysis.gradients
    weighted = {one.id for one in analysis.groups if one.weight_elements}
    assert {one.group for one in gradients.groups} == weighted
    assert all(one.trace is not None for one in gradients.groups)
    pairs = {(g.id, o) for g in analysis.groups if g.id in weighted for o in g.options if o}
    assert {(one.group, one.option) for one in gradients.fisher} == pairs
    by_option = {
        one.option: one.spearman
        for one in gradients.correlations
        if one.of == "fisher" and one.measure == "prediction"
    }
    assert by_option[1] > 0.6

    trajectory = analysis.trajectory
    assert [one.option for one in trajectory.options] == [1, 2, None]
    assert trajectory.sampler == "PNDMScheduler"
    assert "several steps at one timestep" in trajectory.why_no_divergence
    assert sum(one.weight for one in trajectory.weights) == pytest.approx(1)
    assert {one.step for one in trajectory.weights} == {0, 1, 2}

    ablations = analysis.ablations
    assert {row.kind for row in ablations.rows} == {"role", "stage", "segment"}
    for option in (1, 2):
        own = [row for row in ablations.rows if row.option == option]
        gains = [row.latents_db if row.kind == "segment" else row.prediction_db for row in own]
        assert gains == sorted(gains, reverse=True)
        assert all(row.more_bytes > 0 for row in own if row.kind == "role" and row.groups)

    again = analyzed(tiny_sd, "again", **given, cache=cache)
    other = analyzed(tiny_sd, "other", **given, workers=2)
    assert again.files == other.files == found.files


@pytest.mark.slow
def test_a_planted_sensitive_layer_is_found_first_by_gradients(analyzed, altered, tiny_sd):
    """By what quantizing the weights does to the loss; and the sensitivity sees it become smaller, for the weights grew."""

    def first(model, name):
        analysis = analyzed(model, name, options=["int8"], parts=["gradients"]).analysis
        fisher = sorted(analysis.gradients.fisher, key=lambda one: -one.value)
        return analysis.groups[fisher[0].group].sites[0]

    assert first(tiny_sd, "before") != f"{ATTENTION}.to_out.0"
    assert first(altered(scale), "after") == f"{ATTENTION}.to_out.0"


@pytest.mark.slow
def test_what_does_not_denoise_is_not_followed_and_says_why(analyzed, tiny_sd):
    parts = ["trajectory", "ablations"]
    found = analyzed(tiny_sd, options=["int8"], components=["vae"], parts=parts).analysis

    assert isinstance(found.trajectory, Missing)
    assert "schedule of timesteps" in found.trajectory.why_not
    assert found.ablations.why_no_pictures == found.trajectory.why_not
    assert {row.kind for row in found.ablations.rows} >= {"role"}


def test_parts_are_read():
    assert read_parts("trajectory, noise") == ("noise", "trajectory")
    for text in ("", "noises"):
        with pytest.raises(UsageError, match="--parts"):
            read_parts(text)
