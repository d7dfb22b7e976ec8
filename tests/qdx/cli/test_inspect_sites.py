"""`qdx inspect --sites`: what a plan can address, as a table and as data."""

from __future__ import annotations

import json

import pytest

from tests.support.tiny import build


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return build("ddpm", tmp_path_factory.mktemp("tiny") / "ddpm")


def test_sites_as_json(qdx, pipeline):
    done = qdx("inspect", pipeline, "--sites", "--json")
    (graph,) = json.loads(done.out)["graphs"]
    sites = {site["key"]: site for site in graph["sites"]}

    assert done.status == 0
    assert graph["graph"] == "unet.forward"
    assert (sites["conv_in"]["role"], sites["conv_out"]["role"]) == ("first", "last")
    assert sum(site["share"] for site in sites.values()) == pytest.approx(1)
    shape = sites["conv_in"]["weight_shape"]
    assert sites["conv_in"]["size_bytes"] == 4 * shape[0] * shape[1] * 9


def test_sites_as_a_table(qdx, pipeline):
    lines = qdx("inspect", pipeline, "--sites").out.splitlines()

    assert lines[0] == "DDPMPipeline"
    assert lines[2].startswith("unet.forward: ")
    assert lines[4].split() == ["site", "op", "role", "stage", "weight", "size", "MACs", "share"]
    assert any(line.split()[:3] == ["conv_in", "conv2d", "first"] for line in lines)


def test_a_bundle_has_no_sites(qdx, tmp_path):
    (tmp_path / "qdx.json").write_text("{}")
    done = qdx("inspect", tmp_path, "--sites")

    assert done.status != 0
    assert "model_index.json" in done.err
