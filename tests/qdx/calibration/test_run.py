"""Calibration observes the real pipeline over its whole schedule."""

from __future__ import annotations

import gc
import math
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMPipeline
from safetensors.torch import load_file, save_file

from qdx.calibration import run
from qdx.calibration.workers import run_samples
from qdx.exporter.calibrate.coverage import coverage
from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.calibrate.ranges_file import dump_ranges, load_ranges, save_ranges
from qdx.exporter.capture.materialize import load_pipeline
from qdx.exporter.errors import InvalidModel, UsageError
from qdx.exporter.plan.schema.settings import CALIBRATION_STEPS_MOST
from samples.scenes import held_out_captions
from tests.support import tiny
from tests.support.calibrating import calibrated, calibrated_run, prepared
from tests.support.layers import ROOT

SHAPES = ROOT / "samples" / "shapes"
CALL = {"prompt": "a red circle", "height": 16, "width": 16}
PROMPTS = ("a red circle on the left", "a blue square above a green triangle")


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return prepared(tiny_sd, CALL)


@pytest.fixture(scope="module")
def recorded(sd):
    return calibrated_run(sd, PROMPTS)


def test_every_site_of_every_component_is_recorded(sd, recorded):
    assert set(recorded.graphs) == {"text_encoder.forward", "unet.forward", "vae.decode"}
    recorded.check(sd.digests, sd.sites)
    for where, found in sd.sites.items():
        for site in found:
            for port in site.ports if site.op not in {"qk", "pv"} else ():
                low, high = recorded.statistics(where, site.key, port).range("minmax")
                assert low <= high


def test_groups_cover_all_steps(sd, recorded):
    timesteps = recorded.timesteps("unet.forward")
    assert len(timesteps) == 4
    assert list(timesteps) == sorted(timesteps, reverse=True)
    statistics = recorded.statistics("unet.forward", "conv_in", "input")
    counts = statistics.count.tolist()
    assert len(counts) == 2
    assert counts[0] > 0
    # Of two samples; this scheduler comes to its second timestep twice.
    values = math.prod(sd.graphs["unet.forward"].inputs[0].shape)
    assert counts == [2 * 3 * values, 2 * 2 * values]
    assert recorded.groups("vae.decode") == ()
    assert recorded.timestep_input("unet.forward") == "timestep"
    assert recorded.timestep_input("vae.decode") is None
    assert recorded.statistics("vae.decode", "decoder.conv_in", "input").groups == 1


def test_ranges_are_those_of_the_pipeline_in_pytorch(sd, recorded):
    skeleton = load_pipeline(sd.folder)
    seen = []
    hook = skeleton.modules["unet"].conv_in.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0].clone(), output.clone()))
    )
    for number, prompt in enumerate(PROMPTS):
        generator = torch.Generator("cpu").manual_seed(number)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            skeleton.pipeline(
                **{**CALL, "prompt": prompt}, num_inference_steps=4, generator=generator
            )
    hook.remove()
    for place, port in enumerate(("input", "output")):
        values = torch.cat([one[place] for one in seen])
        low, high = recorded.statistics("unet.forward", "conv_in", port).range("minmax")
        assert (low, high) == pytest.approx((float(values.min()), float(values.max())), rel=1e-4)


def test_calibrating_again_gives_the_same_bytes(sd, recorded):
    assert dump_ranges(calibrated_run(sd, PROMPTS)) == dump_ranges(recorded)


def test_prompts_and_seeds_change_the_ranges(sd, recorded):
    assert dump_ranges(calibrated_run(sd, PROMPTS[:1])) != dump_ranges(recorded)
    assert dump_ranges(calibrated_run(sd, PROMPTS, seed=1)) != dump_ranges(recorded)


def test_provenance_tells_what_ran_and_no_prompt(recorded):
    provenance = recorded.provenance
    assert provenance.prompts is not None
    assert provenance.prompts.count == 2
    assert provenance.guidance["unet.forward"].copies == 2
    assert (provenance.samples, provenance.steps, provenance.threads) == (2, 4, 1)
    assert PROMPTS[1].encode() not in dump_ranges(recorded)


def test_one_branch_counts_half_the_values(sd, recorded):
    both = recorded.statistics("unet.forward", "conv_in", "input")
    ranges = [
        calibrated_run(sd, PROMPTS, branches=branch) for branch in ("conditional", "unconditional")
    ]
    halves = [one.statistics("unet.forward", "conv_in", "output") for one in ranges]
    assert all(int(half.count.sum()) < int(both.count.sum() * 8) for half in halves)
    whole = recorded.statistics("unet.forward", "conv_in", "output")
    assert torch.equal(halves[0].count + halves[1].count, whole.count)
    # Both branches see the same latents, and later other texts.
    assert torch.equal(halves[0].maximum, halves[1].maximum)
    text = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    found = [one.statistics("unet.forward", text, "input") for one in ranges]
    assert not torch.equal(found[0].histogram, found[1].histogram)


def test_a_pipeline_without_text_differs_in_noise_alone(ddpm):
    ranges = calibrated_run(ddpm, steps=3, timestep_groups=3, samples=2)
    assert len(ranges.groups("unet.forward")) == 2
    assert ranges.provenance.prompts is None
    assert ranges.provenance.guidance["unet.forward"].copies == 1


def test_prompts_for_a_pipeline_without_text_are_refused(ddpm):
    with pytest.raises(UsageError, match="without a prompt"):
        calibrated_run(ddpm, PROMPTS)
    with pytest.raises(UsageError, match="no prompts are given"):
        calibrated_run(ddpm, [])


def test_a_batch_of_prompts_takes_as_many_for_each_sample(tiny_sd):
    call = {**CALL, "prompt": ["a", "b"]}
    ranges = calibrated_run(prepared(tiny_sd, call), ["one", "two", "three"], samples=2)
    assert ranges.provenance.prompts is not None
    assert ranges.provenance.prompts.count == 3
    assert ranges.provenance.guidance["unet.forward"].copies == 2


def test_steps_come_from_the_settings_then_the_call_then_the_pipeline(ddpm):
    assert _steps(ddpm, steps=3) == 3
    assert _steps(ddpm, call={"num_inference_steps": 5}, steps=None) == 5
    # DDPMPipeline's own default is 1,000 steps.
    assert _steps(ddpm, steps=None) == CALIBRATION_STEPS_MOST


def test_long_schedules_become_shorter_unless_the_plan_asks_for_them(ddpm):
    call = {"num_inference_steps": 50}
    assert _steps(ddpm, call=call, steps=None) == CALIBRATION_STEPS_MOST
    assert _steps(ddpm, call=call, steps=40) == 40
    assert _steps(ddpm, call=call, steps=None, timestep_groups=30) == 30
    assert _steps(ddpm, call=call, steps=None, own={"num_inference_steps": 30}) == 30


def test_fewer_steps_than_groups_of_timesteps_are_a_group_each(ddpm):
    ranges = calibrated_run(ddpm, call={"num_inference_steps": 2}, steps=None, timestep_groups=10)
    assert len(ranges.groups("unet.forward")) == 1


def test_a_pipeline_without_a_number_of_steps_takes_the_defaults(ddpm, monkeypatch):
    pipeline = DDPMPipeline.__call__

    def without_steps(self, batch_size=1, generator=None, output_type="pil", return_dict=True):
        return pipeline(self, batch_size, generator, 3, output_type, return_dict)

    monkeypatch.setattr(DDPMPipeline, "__call__", without_steps)
    ranges = calibrated_run(ddpm, steps=None)
    assert len(ranges.timesteps("unet.forward")) == 3
    assert ranges.provenance.steps is None
    with pytest.raises(UsageError, match="4 steps, but DDPMPipeline takes no number of steps"):
        calibrated_run(ddpm)


def _steps(ready, *, own=None, **settings):
    call = {**settings.pop("call", {}), **(own or {})}
    ranges = calibrated_run(ready, samples=1, call=call, own=own, **settings)
    found = len(ranges.timesteps("unet.forward"))
    assert ranges.provenance.steps == found
    return found


def test_components_without_graphs_compute_in_pytorch(sd, recorded, tiny_sd):
    unet = prepared(tiny_sd, CALL, components=["unet"])
    ranges = calibrated_run(unet, PROMPTS)
    assert set(ranges.graphs) == {"unet.forward"}
    one, other = (
        r.statistics("unet.forward", "conv_in", "input").range("minmax") for r in (ranges, recorded)
    )
    assert one == pytest.approx(other, rel=1e-4)


def test_the_pipeline_is_left_as_it_was(ddpm):
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    calibrated_run(ddpm, samples=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_overflow_name_the_site_the_timestep_and_the_sample(ddpm, smallest, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(smallest, broken)
    path = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["conv_in.weight"] *= 1e38
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InvalidModel, match=r"`unet.forward`: .* of `.*` holds NaN or infinity at timestep \d+ of sample 1"):  # fmt: skip
        calibrated_run(prepared(broken, {}))


_PROCESS = """
import sys, hashlib
from tests.support.calibrating import calibrated_run, prepared
CALL = {"prompt": "a red circle", "height": 16, "width": 16}
PROMPTS = ("a red circle on the left", "a blue square above a green triangle")
print(hashlib.sha256(dump_ranges(calibrated_run(prepared(sys.argv[1], CALL), PROMPTS))).hexdigest())
"""


@pytest.mark.slow
def test_processes_with_other_hash_seeds_and_threads_give_the_same_bytes(tiny_sd):
    found = set()
    for seed, threads in (("1", "1"), ("2", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", _PROCESS, str(tiny_sd)],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.add(done.stdout.strip())
    assert len(found) == 1


@pytest.mark.slow
def test_the_last_step_alone_tells_other_ranges_than_the_whole_schedule(tmp_path):
    call = {"prompt": str(held_out_captions()[0]), "guidance_scale": 4.0}
    ready = prepared(SHAPES, call)
    prompts = [str(caption) for caption in held_out_captions()[:2]]
    ranges = calibrated_run(ready, prompts, steps=10, timestep_groups=10)
    save_ranges(ranges, tmp_path / "ranges.safetensors")
    ranges = load_ranges(tmp_path / "ranges.safetensors")
    assert len(ranges.groups("unet.forward")) == 9
    output = ranges.statistics("unet.forward", "conv_out", "output")
    whole, last, first = (output.range("minmax", groups=g) for g in (None, [9], [0]))
    # What the denoiser says shrinks towards the end; calibrating there would clip the beginning.
    assert max(map(abs, last)) < 0.75 * max(map(abs, first)) <= max(map(abs, whole))
    for key, ports in ranges.graphs["unet.forward"].ports.items():
        for port in ports:
            statistics = ranges.statistics("unet.forward", key, port)
            low, high = statistics.range("minmax")
            ends = statistics.range("minmax", groups=[9])
            assert low <= ends[0] <= ends[1] <= high


SHARE = {"samples": 4, "steps": 5, "observed": 0.5}


def test_any_number_of_workers_gives_the_same_bytes(ddpm):
    one, two, four = (dump_ranges(calibrated_run(ddpm, workers=n, **SHARE)) for n in (1, 2, 4))
    assert one == two == four


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_any_number_of_workers_gives_the_same_bytes_of_every_family(tmp_path, family):
    """What a call leaves behind in the pipeline's own Python must not reach the next one."""
    model = tiny.build(family, tmp_path / "model")
    ready = prepared(model, {"prompt": "a red circle", "height": 16, "width": 16})
    one, two = (dump_ranges(calibrated_run(ready, PROMPTS, workers=n, **SHARE)) for n in (1, 2))
    assert one == two


def test_a_sample_that_observes_nothing_computes_nothing(ddpm, told, monkeypatch):
    """One step is observed in half of the samples; what the others would lead to, nobody asks for."""
    found = calibrated(
        ddpm, {"samples": 4, "steps": 1, "observed": 0.5}, progress=told.hear(monkeypatch)
    )
    assert [call["observed"] for call in told.calls] == [True, True]
    assert found.provenance.samples == 4


def test_the_longest_samples_begin_first(ddpm, monkeypatch):
    """What follows the last observed call is left out, so that samples differ; one that is alone at the end costs most."""
    begun = []

    def heard(samples, *arguments, **options):
        begun.extend(samples)
        return run_samples(samples, *arguments, **options)

    monkeypatch.setattr(run, "run_samples", heard)
    found = calibrated(ddpm, {"samples": 4, "steps": 2, "observed": 0.5})
    assert begun == [1, 3, 0, 2]

    def backwards(samples, *arguments, **options):
        return run_samples(samples[::-1], *arguments, **options)

    monkeypatch.setattr(run, "run_samples", backwards)
    assert dump_ranges(found) == dump_ranges(
        calibrated(ddpm, {"samples": 4, "steps": 2, "observed": 0.5})
    )


def test_a_call_that_comes_to_nothing_observed_is_refused(ddpm):
    """As picture to picture may, with a strength that leaves no step."""
    job = SimpleNamespace(
        skeleton=SimpleNamespace(folder=ddpm.folder),
        observed_graphs=ddpm.graphs,
        calls=lambda _sample: (),
    )
    with pytest.raises(UsageError, match=r"does not call `unet\.forward` here: nothing"):
        run.computing_samples(job, 2)


def test_statistics_of_many_samples_are_not_in_memory_together(ddpm, monkeypatch):
    most = []
    merge = run.merged_ranges

    def merging(one, other):
        gc.collect()
        most.append(sum(isinstance(found, Ranges) for found in gc.get_objects()))
        return merge(one, other)

    monkeypatch.setattr(run, "merged_ranges", merging)
    gc.collect()
    gc.freeze()  # what is there already is neither looked through again nor counted
    try:
        calibrated_run(ddpm, samples=6, steps=2)
    finally:
        gc.unfreeze()
    assert max(most) <= 2


@pytest.mark.slow
def test_calls_of_one_step_are_observed_together_where_guidance_calls_twice(
    tmp_path, told, monkeypatch
):
    call = {**tiny.FAMILIES["wan"].call, "num_inference_steps": 4}
    ready = prepared(tiny.build("wan", tmp_path / "model"), call, components=["transformer"])
    settings = {"samples": 2, "steps": 4, "observed": 0.5, "timestep_groups": 2}
    found = {
        branch: calibrated(ready, {**settings, "branches": branch})
        for branch in ("conditional", "unconditional")
    }
    both = calibrated(ready, settings, progress=told.hear(monkeypatch))
    made = [one["observed"] for one in told.calls if one["where"] == "transformer.forward"]
    assert made[0::2] == made[1::2]
    assert both.provenance.guidance["transformer.forward"].calls == 2
    assert coverage(both)["transformer.forward"]["timestep_groups_seen"] == 2
    counts = [
        one.statistics("transformer.forward", "proj_out", "output").count
        for one in (both, *found.values())
    ]
    assert torch.equal(counts[0], counts[1] + counts[2])
    assert torch.equal(counts[1], counts[2])
