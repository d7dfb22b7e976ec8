"""What a verification is about to take, before it has taken it."""

from __future__ import annotations

from collections import Counter

import pytest

from qdx.backends.lockstep_chunks import CHUNK_LIMIT_BYTES
from qdx.exporter.calibrate.weight_cache import CACHE_BYTES
from qdx.exporter.cost.memory import anonymous_bytes
from qdx.exporter.errors import InsufficientMemory, InvalidModel
from qdx.exporter.progress import SILENT
from qdx.verification import forecast
from qdx.verification.measure import outlook as outlooks
from qdx.verification.measure import reference_runs, selection
from qdx.verification.measure.outlook import (
    LOCKSTEP,
    REFERENCE,
    UNKNOWN,
    MethodWork,
    Outlook,
    is_large,
    memory_bytes,
)
from qdx.verification.measure.rungs import ARTIFACT, QUANTIZED, UNOPTIMIZED
from qdx.verification.verify import verify
from tests.support.calibrating import Told
from tests.support.quantizing import STATIC, export, plan
from tests.support.tracing import Block, block_inputs, graph_of

UNET, VAE = "unet.forward", "vae.decode"
MACS = 2 * 10**12


def work(**changes):
    fields = {
        "macs": MACS,
        "steps": (1,) * 21,
        "runs": 1,
        "recorded": 21,
        "quantized": True,
        "unoptimized": True,
    }
    return MethodWork(**{**fields, **changes})


def test_calls_of_a_large_quantized_method_are_compared_in_part():
    assert work().calls() == {
        REFERENCE: 21,
        LOCKSTEP: 3,
        QUANTIZED: 0,  # lockstep has answered the few that are asked
        UNOPTIMIZED: 1,
        ARTIFACT: 21 + 5 + 1,  # the pipeline, those compared, the audit
    }


def test_a_small_method_is_compared_in_every_call_of_every_run():
    found = work(macs=10**9, runs=3, recorded=0).calls()

    assert found[REFERENCE] == 0
    assert found[ARTIFACT] == 63 + 63 + 1
    assert found[QUANTIZED] == 18


def test_steps_of_two_calls_are_compared_whole_and_fewer_of_them():
    """As Stable Diffusion's own schedule has one, whose second step is computed twice."""
    found = work(macs=8 * 10**11, steps=(1, 2) + (1,) * 18)

    assert (found.called, found.compared) == (21, 6)
    assert work(macs=8 * 10**11).compared == 12
    assert work(steps=(2,) * 10).compared == 6


def test_a_method_in_floating_point_has_no_rungs_between():
    assert work(steps=(1,), recorded=1, quantized=False, unoptimized=False).calls() == {
        REFERENCE: 1,
        ARTIFACT: 2,
    }


def test_the_time_is_told_when_pytorch_and_the_runtime_are_measured_and_again_when_asked():
    heard = Told()
    outlook = Outlook({UNET: work()}, 5 * 10**9, heard)
    outlook.begin()
    outlook.measured(ARTIFACT, UNET, 4.0)
    assert heard.said == [
        "verifying: 21 calls of the reference, 5 calls compared, a pipeline of 21 calls; 5.0 GB of memory"
    ]
    outlook.measured(REFERENCE, UNET, 10.0)  # which also read its weights
    assert len(heard.said) == 1
    outlook.measured(REFERENCE, UNET, 10.0)
    # 19 of the reference, 3 in lockstep, 1 unoptimized; 26 of the artifact.
    left_s = 10 * (19 + 3 * 2.3 + 1) + 26 * 4
    assert heard.said[1:] == [f"verifying: about {round(left_s / 60)} min left"]
    for _ in range(19):
        outlook.measured(REFERENCE, UNET, 10.0)
    outlook.measured(LOCKSTEP, UNET, 90.0, 3)
    assert len(heard.said) == 2
    outlook.tell()
    assert heard.said[2:] == [f"verifying: about {round((10 * 1 + 26 * 4) / 60)} min left"]


def test_with_the_reference_kept_the_time_is_told_after_the_first_calls_quantizer_by_quantizer():
    heard = Told()
    outlook = Outlook(
        {UNET: work(recorded=0), VAE: work(macs=MACS // 2, steps=(1,), recorded=0)}, 1, heard
    )
    outlook.begin()
    outlook.measured(ARTIFACT, UNET, 4.0)
    outlook.measured(ARTIFACT, VAE, 2.0)
    outlook.tell()
    assert heard.said == [
        "verifying: the reference comes from the cache, 6 calls compared, a pipeline of 22 calls; 1 MB of memory"
    ]
    outlook.measured(LOCKSTEP, UNET, 69.0, 3)
    assert "left" in heard.said[1]


def test_more_memory_than_there_is_is_refused_with_the_way_out():
    with pytest.raises(InsufficientMemory, match=r"verifying needs about 1000000 GB of memory"):
        Outlook({UNET: work()}, 10**15, SILENT).begin()


def test_nobody_is_told_of_what_is_not_counted():
    UNKNOWN.begin()
    UNKNOWN.measured(REFERENCE, UNET, 1.0)
    UNKNOWN.tell()
    assert UNKNOWN.calls_of_a_run is None


def test_models_of_some_million_multiply_accumulates_have_no_outlook():
    assert not is_large({UNET: 10**9})
    assert is_large({VAE: 10**9, UNET: outlooks._LARGE_MACS})


def test_memory_is_that_of_what_is_compiled_or_of_the_references_own_weights():
    graphs = {"block.forward": graph_of(Block, block_inputs())[0]}
    files_bytes = {"block.forward": 10**9}

    def gigabytes(**options):
        found = memory_bytes(graphs, graphs, files_bytes, **options)
        return (found - anonymous_bytes() - CACHE_BYTES - outlooks._HEAPS_BYTES) / 1e9

    one_chunk = 3 * CHUNK_LIMIT_BYTES / 1e9
    assert gigabytes() == pytest.approx(1 + one_chunk, abs=0.05)
    assert gigabytes(compiled_ratio=3.0) == pytest.approx(3, abs=0.05)
    assert gigabytes(compiled_ratio=3.0, shapes=2) == pytest.approx(6, abs=0.05)
    assert gigabytes(compiled_ratio=3.0, weights_bytes=10**10) == pytest.approx(10, abs=0.05)


@pytest.mark.parametrize(
    ("runtime", "large"),
    [
        ("onnxruntime", True),
        ("openvino", False),
        pytest.param("onnxruntime", False, marks=pytest.mark.slow),
        pytest.param("openvino", True, marks=pytest.mark.slow),
    ],
)
def test_what_is_told_of_is_what_is_done(smallest, tmp_path, monkeypatch, runtime, large):
    if large:
        monkeypatch.setattr(selection, "COMPARED_MACS", 1)
        monkeypatch.setattr(selection, "_STEPS_AT_LEAST", 5)
    export(smallest, tmp_path, plan(STATIC), runtime)
    done: Counter[str] = Counter()
    outlooks_made = []

    class Watched(Outlook):
        def __init__(self, *args):
            super().__init__(*args)
            outlooks_made.append(self)

        def measured(self, kind, where, seconds, calls=1):
            done[f"{kind} {where}"] += calls
            super().measured(kind, where, seconds, calls)

    monkeypatch.setattr(outlooks, "_LARGE_MACS", 0)
    monkeypatch.setattr(forecast, "Outlook", Watched)
    heard = Told()
    verify(tmp_path / runtime, model=smallest, seeds=2, steps=6, progress=heard)

    (made,) = outlooks_made
    totals = {name: n for one in made._forecasts.values() for name, n in one.totals.items()}
    totals[f"{ARTIFACT} {UNET}"] -= 2 * made.calls_of_a_run  # the pipeline's
    assert totals[f"{QUANTIZED} {UNET}"] == (0 if large else 3)
    totals[f"{QUANTIZED} {UNET}"] += 3  # which lockstep has answered
    assert done == totals
    assert heard.says("calls of the reference") == 1
    assert heard.says(" left") >= 2


def test_a_rehearsal_that_fails_ends_no_verification(smallest, tmp_path, monkeypatch):
    def fail(*_):
        raise InvalidModel("the rehearsal failed", hint="-")

    export(smallest, tmp_path, plan(STATIC), "onnxruntime")
    monkeypatch.setattr(outlooks, "_LARGE_MACS", 0)
    monkeypatch.setattr(reference_runs.Reference, "steps_of", fail)
    heard = Told()

    assert verify(tmp_path / "onnxruntime", model=smallest, progress=heard).methods
    assert heard.says("cannot be estimated: the rehearsal failed") == 1
