"""Wrong paths are told for what they are by every command, before PyTorch is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.qdx.cli.conftest import write
from tests.support.quantizing import WEIGHTS, plan, write_plan

HUB = "runwayml/stable-diffusion-v1-5"
TAKE_A_MODEL = {
    "export": ("export", "MODEL", "--target", "openvino", "-o", "out"),
    "calibrate": ("calibrate", "MODEL", "--plan", "w8a8", "-o", "ranges"),
    "verify": ("verify", "bundle", "--model", "MODEL"),
    "run": ("run", "bundle", "--model", "MODEL", "-o", "a.png"),
    "inspect": ("inspect", "MODEL"),
    "inspect --sites": ("inspect", "MODEL", "--sites"),
    "plan show": ("plan", "show", "w8", "--target", "openvino", "--model", "MODEL"),
    "plan check": ("plan", "check", "w8", "--target", "openvino", "--model", "MODEL"),
}
TAKE_A_BUNDLE = {
    "verify": ("verify", "BUNDLE", "--model", "model"),
    "run": ("run", "BUNDLE", "-o", "a.png"),
    "build": ("build", "BUNDLE"),
}
NO_MODELS = {
    HUB: f"hf download {HUB} --local-dir stable-diffusion-v1-5, then give stable-diffusion-v1-5",
    "one.safetensors": 'from_single_file("one.safetensors").save_pretrained("FOLDER")',
    "one.ckpt": 'from_single_file("one.ckpt").save_pretrained("FOLDER")',
    "one.gguf": "take the original model",
    "model/unet": "hint: give model\n",
    "modle": "did you mean model?",
    "empty": "pipeline.save_pretrained(folder)",
    "nothing at all": "give the folder that holds model_index.json",
    "bundle": "give the folder that it was exported from",
}
NO_BUNDLES = {
    HUB: f"hf download {HUB} --local-dir stable-diffusion-v1-5, then qdx export",
    "one.safetensors": "a bundle is the folder that `qdx export",
    "model": "hint: qdx export model --target TARGET -o BUNDLE, then give BUNDLE",
    "bundle/unet": "hint: give bundle\n",
    "bundle/qdx.json": "hint: give bundle\n",
    "empty": "a bundle is the folder that `qdx export",
    "nothing": "a bundle is the folder that `qdx export",
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a pipeline and a bundle, as far as names of files tell, and what is neither."""
    monkeypatch.chdir(tmp_path)
    for file in ("model/model_index.json", "model/unet/config.json", "bundle/qdx.json", "bundle/model_index.json"):  # fmt: skip
        write(tmp_path / file, {})
    (tmp_path / "bundle" / "unet").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("one.safetensors", "one.ckpt", "one.gguf"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize("path", NO_MODELS)
@pytest.mark.parametrize("command", TAKE_A_MODEL)
def test_what_is_no_pipeline_folder_is_told_for_what_it_is(qdx, place, command, path):
    if (command, path) == ("inspect", "bundle"):
        pytest.skip("inspect takes bundles too")
    done = qdx(*(path if word == "MODEL" else word for word in TAKE_A_MODEL[command]))

    assert (done.status, done.out) == (2, "")
    assert NO_MODELS[path] in done.err
    assert not (place / "out").exists()


@pytest.mark.parametrize("path", NO_BUNDLES)
@pytest.mark.parametrize("command", TAKE_A_BUNDLE)
def test_what_is_no_bundle_is_told_for_what_it_is(qdx, place, command, path):
    done = qdx(*(path if word == "BUNDLE" else word for word in TAKE_A_BUNDLE[command]))

    assert (done.status, done.out) == (2, "")
    assert NO_BUNDLES[path] in done.err


def test_a_bundle_and_a_model_in_each_others_place_are_noticed(qdx, place):
    done = qdx("verify", "model", "--model", "bundle")

    assert done.status == 2
    assert "hint: the two are in each other's place: BUNDLE is bundle, --model model\n" in done.err


def test_outputs_are_looked_at_first(qdx, place):
    taken = qdx("export", "model", "--target", "openvino", "-o", "bundle")
    nowhere = qdx("export", "model", "--target", "openvino", "-o", "no/where/out")

    assert (taken.status, "exists, expected a free name" in taken.err) == (2, True)
    assert (nowhere.status, "hint: make it first: mkdir -p" in nowhere.err) == (5, True)


def test_a_plan_that_needs_no_ranges_says_so_whatever_the_model(qdx, place):
    path = write_plan(place, plan(WEIGHTS))
    for name in ("w8", "float16", str(path)):
        done = qdx("calibrate", "nothing", "--plan", name, "-o", "ranges")

        assert done.status == 2
        assert "needs no ranges" in done.err
        assert "hint: leave `qdx calibrate` out, and export with the plan as it is" in done.err


WRONG_FILES = {
    ("--calib", "no.txt"): "`no.txt`: not found, expected a file\n\nhint: write the prompts to a text file, one on each line",
    ("--calib", "empty"): "`empty`: is a folder, expected a file\n\nhint: write the prompts to a text file, one on each line",
    ("--calib", "blank.txt"): "0 prompts, expected 1 to 10000\n\nhint: write one prompt on each line",
    ("--ranges", "no.ranges"): "`no.ranges`: not found, expected a file\n\nhint: give a file that qdx wrote when it calibrated",
    ("--ranges", "empty"): "`empty`: is a folder, expected a file\n\nhint: give a file that qdx wrote when it calibrated",
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG_FILES, ids=" ".join)
def test_files_of_an_export_are_told_for_what_they_are_with_the_next_step(qdx, place, words):
    (place / "blank.txt").write_text(" \n")
    done = qdx("export", "model", "--target", "openvino", "-o", "out", *words)

    assert (done.status, done.out) == (2, "")
    assert WRONG_FILES[words] in done.err


def test_prompts_in_the_place_of_their_file_are_told_where_they_go(qdx, place):
    done = qdx("verify", "bundle", "--model", "model", "--prompts", "a red circle")

    assert done.status == 2
    assert "`a red circle`: not found" in done.err
    assert "hint: write the prompts to a text file, one on each line, and give its name" in done.err


def test_a_benchmark_of_a_pipeline_folder_is_told_to_export_it(qdx, place):
    done = qdx("bench", "model")

    assert done.status == 2
    assert "hint: qdx export model --target TARGET -o BUNDLE, then give BUNDLE" in done.err


LIGHT = [
    ("export", HUB, "--target", "openvino", "-o", "out"),
    ("export", "model", "--target", "openvino", "-o", "bundle"),
    ("export", "model", "--target", "openvino", "-o", "out", "--setup", "[{'enable_vae_tiling': {}}]"),
    ("calibrate", "model", "--plan", "w8", "-o", "ranges"),
    ("verify", "model", "--model", "bundle"),
    ("verify", "model", "--model", "bundle", "--report", "report"),
    ("verify", "bundle", "--model", "nosuch", "--report", "report"),
    ("run", "model", "-o", "a.png", "--prompt", "a cat"),
    ("run", "bundle", "-o", "a.gif", "--prompt", "a cat"),
    ("build", "model"),
    ("export", "model", "--target", "openvino", "-o", "out", "--calib", "no.txt"),
    ("export", "model", "--target", "openvino", "-o", "out", "--calib", "empty"),
    ("export", "model", "--target", "openvino", "-o", "out", "--ranges", "no.ranges"),
    ("export", "model", "--target", "openvino", "-o", "out", "--ranges", "one.ckpt"),
    ("export", "model", "--target", "openvino", "-o", "out", "--call", '{"height": -64, "width": 64}'),
    ("calibrate", "model", "--plan", "w8a8", "-o", "ranges", "--calib", "no.txt"),
    ("verify", "bundle", "--model", "model", "--prompts", "a red circle"),
    ("bench", "model"),
    ("bench", "nosuch"),
    ("plan", "show", "w8", "--target", "openvino", "--model", HUB),
]  # fmt: skip


def test_none_of_these_imports_torch(place):
    """All of them in one process: an import costs seconds."""
    script = (
        "import sys\nfrom qdx.cli.main import run_command\n"
        f"for words in {LIGHT!r}:\n"
        "    status = run_command(words)\n"
        "    heavy = {'torch', 'diffusers', 'numpy', 'openvino', 'onnxruntime'} & sys.modules.keys()\n"
        "    assert status == 2 and not heavy, (words, status, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=place,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
