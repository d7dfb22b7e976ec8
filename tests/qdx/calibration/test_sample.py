"""A sample computes what is observed and what leads there, once, and nothing behind it."""

from __future__ import annotations

import errno
import gc
import random
import shutil
import weakref
from collections import Counter
from dataclasses import replace

import pytest
import torch

from qdx.calibration.checkpoint import SampleCheckpoint
from qdx.calibration.sample import Recorder
from qdx.exporter.calibrate.coverage import coverage
from qdx.exporter.calibrate.ranges_file import dump_ranges
from qdx.exporter.errors import StorageError
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.transforms.smoothing import choose_factors, smoothed
from tests.support.calibrating import Ended, Told, calibrated, prepared, sample_files

HALF = {"samples": 4, "steps": 6, "observed": 0.5, "timestep_groups": 3}
SD_CALL = {"prompt": "a red circle", "height": 16, "width": 16}


@pytest.fixture(scope="module")
def half(ddpm):
    return dump_ranges(calibrated(ddpm, HALF))


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return prepared(tiny_sd, SD_CALL)


def test_every_step_is_observed_in_some_sample_and_every_group_has_values(ddpm, told, monkeypatch):
    ranges = calibrated(ddpm, HALF, progress=told.hear(monkeypatch))
    assert sum(call["observed"] for call in told.calls) == 12  # half of 4 samples of 6 steps
    assert coverage(ranges)["unet.forward"] == {
        "timestep_groups": 3,
        "timestep_groups_seen": 3,
    }
    # Two steps of two samples in every group.
    counts = ranges.statistics("unet.forward", "conv_in", "input").count
    assert len(set(counts.tolist())) == 1


def test_the_last_observed_call_ends_a_sample(ddpm, told, monkeypatch):
    calibrated(ddpm, {**HALF, "samples": 2}, progress=told.hear(monkeypatch))
    # The longer one, which is first, observes steps 1, 3 and 5; the other one 0, 2 and 4, and leaves out 5.
    long, short = [False, True] * 3, [True, False] * 2 + [True]
    assert [call["observed"] for call in told.calls] == long + short


def test_no_autoencoder_is_computed_where_the_denoiser_alone_is_observed(sd, told, monkeypatch):
    unet = {"unet.forward": sd.sites["unet.forward"]}
    ran = Counter()
    original = Executor.run

    def run(self, inputs, **rest):
        ran[self._graph.where] += 1
        return original(self, inputs, **rest)

    monkeypatch.setattr(Executor, "run", run)
    calibrated(sd, sites=unet, progress=told.hear(monkeypatch))
    told_of = Counter(call["where"] for call in told.calls)
    # This scheduler, PNDM, comes to its second timestep twice: five calls in four steps.
    assert told_of == {"text_encoder.forward": 4, "unet.forward": 10}
    assert ran == told_of
    assert told.calls[-1]["observed"]


def test_repeated_timesteps_are_observed_together(sd, told, monkeypatch):
    unet = {"unet.forward": sd.sites["unet.forward"]}
    ranges = calibrated(sd, {"observed": 0.5}, sites=unet, progress=told.hear(monkeypatch))
    calls = [call["observed"] for call in told.calls if call["where"] == "unet.forward"]
    long, short = [False, True, True, False, True], [True, False, False, True]
    assert calls == long + short
    assert coverage(ranges)["unet.forward"]["timestep_groups_seen"] == 2


def test_interrupted_at_any_call_it_goes_on_there_and_ends_with_the_same_bits(
    ddpm, often, half, tmp_path
):
    generator, computed, lives = random.Random(7), Counter(), 0
    while True:
        told, end_after = Told(), generator.randrange(1, 6)
        with pytest.MonkeyPatch.context() as patch:
            told.hear(patch, end_after=end_after)
            try:
                ranges = calibrated(ddpm, HALF, work=tmp_path, progress=told)
            except Ended:
                ranges = None
        computed.update(call["observed"] for call in told.computed)
        lives += 1
        if ranges is not None:
            break
    assert dump_ranges(ranges) == half
    assert lives > 4
    # An unobserved call is never computed twice; an observed one where it was told of, and its statistics not kept yet.
    whole = Told()
    with pytest.MonkeyPatch.context() as patch:
        calibrated(ddpm, HALF, progress=whole.hear(patch))
    once = Counter(call["observed"] for call in whole.computed)
    assert computed[False] == once[False]
    assert once[True] <= computed[True] <= once[True] + lives - 1


def test_what_is_finished_is_not_computed_again(ddpm, half, told, monkeypatch, tmp_path):
    calibrated(ddpm, HALF, work=tmp_path)
    monkeypatch.setattr(Executor, "run", None)
    assert (
        dump_ranges(calibrated(ddpm, HALF, work=tmp_path, progress=told.hear(monkeypatch))) == half
    )
    assert told.computed == []


def test_other_settings_use_nothing_of_what_is_kept(ddpm, told, tmp_path):
    calibrated(ddpm, {"seed": 5}, work=tmp_path)
    found = calibrated(ddpm, work=tmp_path, progress=told)
    assert dump_ranges(found) == dump_ranges(calibrated(ddpm))
    assert told.says("is damaged and is made again")


@pytest.fixture(scope="module")
def smooth(ddpm):
    """The graphs of the smallest pipeline with activations divided by factors that are no powers of two."""
    graph = ddpm.graphs["unet.forward"]
    taking = [site for site in ddpm.sites["unet.forward"] if not site.is_attention_product]
    found = calibrated(ddpm)
    maxima = {
        site.key: found.statistics("unet.forward", site.key, "input").channel_absmax
        for site in taking
        if "input" in found.graphs["unet.forward"].ports[site.key] and not site.is_residual
    }
    chosen = [site for site in taking if site.key in maxima]
    return {"unet.forward": smoothed(graph, chosen, choose_factors(graph, chosen, maxima, 0.5))}


@pytest.fixture(scope="module")
def led(ddpm, smooth, tmp_path_factory):
    """What a first pass left, how a second pass is asked for, and what it records."""
    observed = {where: sites(graph) for where, graph in smooth.items()}
    first = tmp_path_factory.mktemp("led") / "first"
    calibrated(ddpm, HALF, work=first)
    second = {"observed_graphs": smooth, "sites": observed}
    whole = dump_ranges(calibrated(ddpm, HALF, **second, trajectories=first))
    alone = dump_ranges(calibrated(ddpm, HALF, **second))
    assert whole != alone  # so it matters what leads
    return first, second, whole


@pytest.mark.parametrize("left", ["all", "some", "none"])
def test_the_first_pass_leads_the_second_also_where_its_answers_are_gone(
    ddpm, led, tmp_path, told, monkeypatch, left
):
    first, second, whole = led
    second = {**second, "trajectories": shutil.copytree(first, tmp_path / "first")}
    kept = sample_files(tmp_path, "0*")
    for number, path in enumerate(kept):
        if left == "none" or (left == "some" and number % 3 == 1):
            path.unlink()
    assert dump_ranges(calibrated(ddpm, HALF, **second, progress=told.hear(monkeypatch))) == whole
    assert not told.says("damaged")
    unobserved = [call for call in told.calls if not call["observed"]]
    assert all(call["replayed"] for call in unobserved) == (left == "all")


def full_after(patch, writes: int) -> None:
    """A disk that takes so many files of each sample, and no more."""
    original = SampleCheckpoint._write
    done = Counter()

    def write(self, part, data, ending):
        done[self._folder] += 1
        if done[self._folder] > writes and "spare" not in self._folder.parent.name:
            full = OSError(errno.ENOSPC, "No space left on device")
            raise StorageError("`x`: No space left on device") from full
        original(self, part, data, ending)

    patch.setattr(SampleCheckpoint, "_write", write)


@pytest.mark.parametrize("writes", [0, 3])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_up_ends_the_checkpoints_and_not_the_calibration(
    ddpm, half, told, monkeypatch, tmp_path, writes, workers
):
    monkeypatch.setattr(
        "qdx.calibration.run.secrets.token_hex", lambda _n: f"spare-{tmp_path.name}"
    )
    full_after(monkeypatch, writes)
    found = calibrated(ddpm, HALF, work=tmp_path, progress=told, workers=workers)
    assert dump_ranges(found) == half
    assert (
        told.said.count("calibration: continues without checkpoints: No space left on device") == 1
    )
    assert not list(tmp_path.parent.parent.parent.glob(f"qdx-calibration-spare-{tmp_path.name}"))


def test_a_defect_within_a_graph_is_not_called_a_fault_of_the_model(ddpm, monkeypatch):
    def run(*_args, **_kwargs):
        raise KeyError("conv_in")

    monkeypatch.setattr(Recorder, "run", run)
    with pytest.raises(KeyError, match="conv_in"):
        calibrated(ddpm)


def test_memory_that_runs_out_in_pytorch_is_told_as_such(ddpm, monkeypatch):
    def run(*_args, **_kwargs):
        torch.empty(2**60)

    monkeypatch.setattr(Recorder, "run", run)
    with pytest.raises(MemoryError):
        calibrated(ddpm)
    with pytest.raises(StorageError, match="memory ran out"):
        calibrated(ddpm, workers=2)


def test_a_nan_is_named_in_the_same_words_by_a_worker(ddpm, monkeypatch):
    weights = ddpm.graphs["unet.forward"].weights
    broken = replace(
        ddpm.graphs["unet.forward"],
        weights=type(weights)({
            name: replace(weight, load=lambda w=weight: w.read() * float("nan"))
            for name, weight in weights.items()
        }, aliases=weights.aliases),
    )  # fmt: skip
    monkeypatch.setattr(ddpm, "graphs", {"unet.forward": broken})
    said = []
    for workers in (1, 2):
        with pytest.raises(
            Exception, match="holds NaN or infinity at timestep 36 of sample"
        ) as found:
            calibrated(ddpm, workers=workers)
        said.append((type(found.value), found.value.hint))
    assert said[0] == said[1]


def test_a_finished_sample_leaves_memory_at_once(ddpm, monkeypatch):
    """Statistics in a cycle would live until somebody collects it, beside those of the next sample."""
    recorders = []
    original = Recorder.__init__

    def init(self, *arguments):
        original(self, *arguments)
        recorders.append(weakref.ref(self))
        alive.append(sum(one() is not None for one in recorders))

    alive = []
    monkeypatch.setattr(Recorder, "__init__", init)
    gc.collect()
    gc.disable()
    try:
        calibrated(ddpm, {"samples": 5, "steps": 2})
    finally:
        gc.enable()
    assert alive == [1] * 5
