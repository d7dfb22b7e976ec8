"""`qdx inspect --sites`: what a plan can address, as a table and as data."""

from __future__ import annotations

import json
import re

import pytest

from qdx.cli.site_choice import chosen_sites
from qdx.exporter.errors import UsageError


def test_sites_as_json(qdx, smallest):
    done = qdx("inspect", smallest, "--sites", "--json")
    (graph,) = json.loads(done.out)["graphs"]
    sites = {site["key"]: site for site in graph["sites"]}

    assert done.status == 0
    assert graph["graph"] == "unet.forward"
    assert (sites["conv_in"]["role"], sites["conv_out"]["role"]) == ("first", "last")
    assert sum(site["share"] for site in sites.values()) == pytest.approx(1)
    shape = sites["conv_in"]["weight_shape"]
    assert sites["conv_in"]["size_bytes"] == 4 * shape[0] * shape[1] * 9


def test_sites_as_a_table(qdx, smallest):
    lines = qdx("inspect", smallest, "--sites").out.splitlines()

    assert lines[0] == "DDPMPipeline"
    assert lines[2].startswith("unet.forward: ")
    assert lines[4].split() == ["site", "op", "role", "stage", "weight", "size", "MACs", "share"]
    assert any(line.split()[:3] == ["conv_in", "conv2d", "first"] for line in lines)


def test_a_bundle_has_no_sites(qdx, tmp_path):
    (tmp_path / "qdx.json").write_text("{}")
    done = qdx("inspect", tmp_path, "--sites")

    assert done.status != 0
    assert "is a bundle that qdx exported, expected a diffusers pipeline folder" in done.err


def site(key, role):
    return {"key": key, "role": role}


CONV, QUERY, OUT = site("conv_in", "first"), site("to_q", "attn.q"), site("to_out", "attn.out")
UNET = {"graph": "unet.forward", "macs": 7, "sites": [CONV, QUERY, OUT]}
VAE = {"graph": "vae.decode", "macs": 5, "sites": [CONV]}


@pytest.mark.parametrize(
    ("component", "role", "expected"),
    [
        (None, None, [UNET, VAE]),
        ("vae", None, [VAE]),
        ("*", "attn.*", [{**UNET, "sites": [QUERY, OUT]}]),
        ("unet", "first", [{**UNET, "sites": [CONV]}]),
    ],
)
def test_sites_of_a_component_and_of_a_role(component, role, expected):
    assert chosen_sites([UNET, VAE], component, role) == expected


@pytest.mark.parametrize(
    ("component", "role", "words"),
    [
        (None, "attention", "--role: `attention` is not a role of this pipeline, expected one of attn.out, attn.q, first"),
        ("text_encoder", None, "--component: `text_encoder` is not a component of this pipeline, expected one of unet, vae"),
        ("vae", "attn.q", "no operation of `vae` has the role `attn.q`"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(component, role, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        chosen_sites([UNET, VAE], component, role)


def test_roles_are_of_sites(qdx, tmp_path):
    done = qdx("inspect", tmp_path, "--role", "first")

    assert (done.status, done.err.splitlines()[0]) == (2, "error: --role is given without --sites")
