"""What a calibration tells of its pace, in words that come once."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from qdx.calibration import estimate
from qdx.calibration.estimate import Pace
from qdx.exporter.progress import SILENT

CALLS = (("text_encoder.forward", None), ("unet.forward", 2.0), ("unet.forward", 1.0))


@pytest.fixture
def pace(told, monkeypatch):
    monkeypatch.setattr(estimate, "worker_bytes", lambda _job: 2**30)
    monkeypatch.setattr(estimate, "macs_of_call", {"text_encoder": 1, "unet": 1000}.__getitem__)
    job = SimpleNamespace(
        rehearsal=SimpleNamespace(calls=CALLS),
        calls=lambda _sample: (True, True, False),
        graphs={"text_encoder.forward": "text_encoder", "unet.forward": "unet"},
    )
    with SILENT.task("calibrating") as task:
        yield Pace(job, range(2), 1, task, told, "calibrating")


def call(where, *, observed, replayed=False, seconds=1.0):
    return {"where": where, "observed": observed, "replayed": replayed, "seconds": seconds}


def test_the_estimate_comes_once_when_every_kind_of_call_is_measured(pace, told):
    for _ in range(2):
        pace.told(call("text_encoder.forward", observed=True))
        pace.told(call("unet.forward", observed=True, seconds=4.0))
        assert len(told.said) in {0, 1}
        pace.told(call("unet.forward", observed=False, seconds=2.0))
    (line,) = told.said
    assert line.startswith("calibrating: 2 samples, 6 calls, 4 of them observed, 1 at a time; ")
    assert "7 s" in line


def test_it_comes_also_where_calls_of_a_kind_were_all_kept(pace, told):
    pace.told(call("text_encoder.forward", observed=True, replayed=True))
    pace.told(call("unet.forward", observed=False, replayed=True))
    assert told.said == []
    pace.told(call("unet.forward", observed=True))
    assert len(told.said) == 1


def test_there_is_nothing_to_tell_where_everything_was_kept(pace, told):
    for where, observed in (
        ("text_encoder.forward", True),
        ("unet.forward", True),
        ("unet.forward", False),
    ):
        pace.told(call(where, observed=observed, replayed=True))
    assert told.said == []


def test_the_pace_of_a_small_component_says_nothing_of_a_large_one(pace, monkeypatch):
    expected = []
    monkeypatch.setattr(
        pace, "_task", SimpleNamespace(advance=lambda _n: None, expect=expected.append)
    )
    pace.told(call("text_encoder.forward", observed=True, seconds=0.01))
    assert math.isnan(expected[-1])
    pace.told(call("unet.forward", observed=True, seconds=4.0))
    assert expected[-1] == pytest.approx(0.01 + 4.0 + 2 * 4.0 / 1.3, rel=0.01)


def test_what_several_samples_say_in_the_same_words_is_said_once(pace, told):
    for text in ("a", "b", "a", "b"):
        pace.told({"say": text})
    assert told.said == ["a", "b"]


def test_memory_is_that_of_graphs_that_are_called(monkeypatch):
    peaks = {"text_encoder": 1, "unet": 10, "unet observed": 20, "vae": 1000}
    monkeypatch.setattr(estimate, "peak_activation_bytes", peaks.__getitem__)
    monkeypatch.setattr(estimate, "statistics_bytes", lambda *_: 3)
    job = SimpleNamespace(
        settings=SimpleNamespace(samples=2),
        rehearsal=SimpleNamespace(calls=(*CALLS, ("vae.decode", None))),
        calls=lambda sample: (True, sample == 0, False),
        graphs={"text_encoder.forward": "text_encoder", "unet.forward": "unet", "vae.decode": "vae"},
        observed_graphs={"text_encoder.forward": "text_encoder", "unet.forward": "unet observed"},
        sites={"text_encoder.forward": (), "unet.forward": ()},
        boundaries={"text_encoder.forward": (), "unet.forward": ()},
    )  # fmt: skip
    assert estimate.worker_bytes(job) == 20 + 2 * 2 * 3
