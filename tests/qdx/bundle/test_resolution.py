"""What a bundle records of its resolution: all of it, once, and nothing that is not one."""

from __future__ import annotations

import copy
import json

import pytest
from pydantic import ValidationError

from qdx.bundle.resolution import ResolvedRecord, record_of, restored
from qdx.exporter.errors import InvalidBundle
from qdx.exporter.plan import load_plan, resolve
from qdx.targets import list_targets, load_target
from qdx.targets.profile import TargetProfile
from tests.support.plans import KINDS, SITES, plan_of, site

COMPONENTS = ["unet", "vae"]
GROUPED = {
    "select": {"op": "linear"},
    "weights": {"dtype": "int8"},
    "inputs": {"dtype": "int4", "timestep_groups": 5},
}


def resolved(plan, target="openvino", sites=SITES):
    return resolve(plan, COMPONENTS, load_target(target), sites, KINDS)


def written(value):
    return json.loads(json.dumps(record_of(value)))


def read(data):
    return ResolvedRecord.model_validate_json(json.dumps(data))


@pytest.mark.parametrize(
    ("plan", "target"),
    [
        (load_plan("w8a8"), "openvino"),
        (load_plan("w4"), "tensorrt"),
        (load_plan("palette6"), "coreml"),
        (load_plan("float16"), "mac-gpu"),
        (plan_of(GROUPED), "onnxruntime"),
    ],
)
def test_what_is_read_is_what_was_written(plan, target):
    before = resolved(plan, target)
    after = restored(read(written(before)), plan, target, before.components, SITES)

    assert after == before
    assert [r.segments for r in after.sites["unet.forward"]] == [
        r.segments for r in before.sites["unet.forward"]
    ]


def test_a_thousand_sites_that_are_alike_take_little_room():
    many = {
        "unet.forward": tuple(site(f"blocks.{n}.attn.to_q", role="attn.q") for n in range(1000))
    }
    plan = plan_of({"select": {"op": "linear"}, "weights": {"dtype": "int8"}})
    record = written(resolved(plan, sites=many))

    assert len(record["outcomes"]) == 1
    assert len(json.dumps(record)) < 1000 * 40 + 4000


def test_a_site_that_is_not_recorded_is_an_error():
    before = resolved(load_plan("w8"))
    data = written(before)
    del data["sites"]["unet.forward"]["conv_in"]
    with pytest.raises(InvalidBundle, match=r"has no `unet\.forward\.conv_in`"):
        restored(read(data), load_plan("w8"), "openvino", before.components, SITES)


FAULTS = {
    "an index beyond the outcomes": lambda d: d["sites"]["unet.forward"].update(conv_in=999),
    "a negative index": lambda d: d["sites"]["unet.forward"].update(conv_in=-1),
    "an index beyond the choices": lambda d: d["plan"].append(999),
    "an outcome with such an index": lambda d: d["outcomes"][0].update(chosen=[999]),
    "an unknown key": lambda d: d["outcomes"][0].update(x=1),
    "a scheme with less than everything": lambda d: d["outcomes"][0].update(weights={"granularity": "channel"}),
    "an unknown form": lambda d: d["outcomes"][0].update(form="fast"),
    "text where a number belongs": lambda d: d["sites"]["unet.forward"].update(conv_in="0"),
    "a gate without a bound": lambda d: d["gates"].update(component={}),
    "very long words": lambda d: d["outcomes"][0].update(why="x" * 20_001),
    "very many outcomes": lambda d: d.update(outcomes=d["outcomes"] * 10_001),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_none_is_refused(fault):
    data = copy.deepcopy(written(resolved(load_plan("w8"))))
    read(data)
    FAULTS[fault](data)
    with pytest.raises(ValidationError):
        read(data)


@pytest.mark.parametrize("name", list_targets())
def test_a_profile_survives_the_way_through_a_manifest(name):
    profile = load_target(name)

    assert TargetProfile.model_validate_json(json.dumps(profile.to_json())) == profile
