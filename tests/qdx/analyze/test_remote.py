"""What is sent to other machines makes there, from the same files, the very measurements of here."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load, load_file, save_file

from qdx.analyze.remote import open_parcel, parcel_of, probe_of
from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.exporter.errors import UsageError
from qdx.sweep.results import packed

OPTIONS = ["int8", "int8/int8", "int4~rank2~gptq"]
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


class Machine:
    """A machine that asks itself: keeps the requests, and answers them from the parcel."""

    workers = 2

    def __init__(self, parcel, probe):
        self.parcel = parcel
        self.probe = probe
        self.answer = open_parcel(parcel)
        self.requests = []

    def run(self, requests, take, *, words):
        for request in requests:
            body = json.loads(json.dumps(dict(request.body)))
            self.requests.append(body)
            take(request, self.answer(body), 1.0)


@pytest.fixture(scope="module")
def model(smallest):
    return smallest


@pytest.fixture(scope="module")
def opened(model):
    """A session, and a machine that has the model too."""
    settings = AnalysisSettings(
        parts=("noise",),
        plan="w8a8",
        call={"num_inference_steps": 2},
        options=OPTIONS,
        calls=2,
        workers=1,
    )
    with open_session(model, target="openvino", settings=settings) as found:
        parcel = parcel_of(found.ground, found.survey, found.ranges, 1, found.learned)
        yield found, Machine(parcel, probe_of(found.survey))


def test_the_probe_is_computed_alike(opened):
    _, machine = opened
    request, expected = machine.probe

    assert packed(machine.answer(request.body)) == packed(expected)
    assert expected


def test_single_options_are_measured_to_the_bit(opened, tmp_path):
    session, machine = opened
    survey = session.survey
    here = survey.run(tmp_path / "here", workers=1, progress=session.progress)
    there = survey.run(tmp_path / "there", workers=1, progress=session.progress, elsewhere=machine)

    assert packed(there) == packed(here)
    assert all(len(one["keys"]) <= 40 for one in machine.requests)
    assert sorted(key for one in machine.requests for key in one["keys"]) == sorted(here)


def test_assignments_are_measured_to_the_bit(opened, tmp_path):
    session, machine = opened
    groups = [one for bound in session.survey.bound.values() for one in bound]
    wanted = [
        [one.options[-1] if (place + shift) % 3 else 0 for place, one in enumerate(groups)]
        for shift in range(2)
    ]
    whole = type(session.whole)
    found = [
        whole.of(
            session.survey, tmp_path / name, workers=1, progress=session.progress, elsewhere=where
        ).measure(wanted)
        for name, where in (("here", None), ("there", machine))
    ]

    assert [one.noise for one in found[0]] == [one.noise for one in found[1]]
    assert all(
        (one.errors[name] == other.errors[name]).all()
        for one, other in zip(*found, strict=True)
        for name in one.errors
    )


def test_what_this_machine_would_not_measure_is_not_answered(opened):
    _, machine = opened
    with pytest.raises(UsageError, match="another measurement"):
        machine.answer({"kind": "single", "keys": ["0" * 64]})
    with pytest.raises(UsageError, match="another measurement"):
        machine.answer({"kind": "whole", "place": 0, "options": [[0] * 99], "keys": ["0" * 64]})


def test_a_machine_with_another_model_is_refused(opened, model, tmp_path):
    _, machine = opened
    shutil.copytree(model, tmp_path / "model")
    weights = load_file(model / WEIGHTS)
    name = next(iter(weights))
    weights[name] = weights[name] * 1.001
    save_file(weights, tmp_path / "model" / WEIGHTS)
    asked = json.loads(machine.parcel["asked.json"])
    asked["model"] = str(tmp_path / "model")

    with pytest.raises(UsageError, match=r"diffusion_pytorch_model\.safetensors"):
        open_parcel({**machine.parcel, "asked.json": json.dumps(asked).encode()})


def test_a_machine_that_would_learn_other_rounding_is_refused(opened):
    session, machine = opened
    learned = "learned.safetensors"

    assert set(load(machine.parcel[learned])) == set(session.learned.codes)
    without = {name: data for name, data in machine.parcel.items() if name != learned}
    with pytest.raises(UsageError, match="learn from something else"):
        open_parcel(without)


def test_a_machine_with_other_versions_is_refused(opened):
    _, machine = opened
    asked = json.loads(machine.parcel["asked.json"])
    asked["facts"]["versions"]["torch"] = "1.0"

    with pytest.raises(UsageError, match=r"torch here is .* and `1\.0` where"):
        open_parcel({**machine.parcel, "asked.json": json.dumps(asked).encode()})
