"""Every broken or hostile model folder is refused with one message that names the place, and nothing is left."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.support.adversity import SMALL_CALL, edit, export_of_changed, run_export

INDEX, CONFIG, SCHEDULER = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"


def as_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def as_folder(path):
    path.unlink()
    path.mkdir()


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "missing": (lambda path: path.unlink(), ""),
    "empty": (lambda path: path.write_bytes(b""), ":1:1"),
    "an empty object": (lambda path: path.write_bytes(b"{}"), ""),
    "broken": (lambda path: path.write_bytes(b'{"a": 1,\n "b" 2}'), ":2:6"),
    "a key twice": (lambda path: path.write_bytes(b'{"a": 1, "a": 2}'), ":1:10"),
    "not UTF-8": (lambda path: path.write_bytes(b'{"a": "\xff"}'), ":1:8"),
    "a list": (lambda path: path.write_bytes(b"[1]"), ":1:1"),
    "a link": (as_link, ""),
    "a folder": (as_folder, ""),
    "a pipe": (as_pipe, ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [INDEX, CONFIG, SCHEDULER])
def test_a_damaged_file(smallest, tmp_path, name, damage):
    change, place = DAMAGES[damage]
    done = export_of_changed(smallest, lambda model: change(model / name), tmp_path)

    assert done.status == 2
    assert f"{name}{place}" in done.err


def test_a_bundle_or_half_a_model(smallest, tmp_path):
    """A bundle holds some components under other names, so that it looks like a model that lost a folder."""
    done = export_of_changed(smallest, lambda model: shutil.rmtree(model / "unet"), tmp_path)

    assert done.status == 2
    assert "component `unet`: folder" in done.err
    assert "in a bundle's place give what it was exported from" in done.err


@pytest.mark.parametrize(
    "entry",
    [
        ["os", "system"],
        ["torch", "load"],
        ["subprocess", "Popen"],
        ["my_unet", "MyUNet"],
        ["..", "X"],
        [".relative", "X"],
        ["diffusers.pipelines", "X"],
        ["diffusers", "DiffusionPipeline"],
        ["diffusers", "DDPMPipeline"],
        ["diffusers", "AutoModel"],
        ["diffusers", "loaders"],
        ["diffusers", "NoSuch"],
        ["diffusers", "ModelMixin"],
        ["diffusers", "DDPMScheduler"],
        ["stable_diffusion", "torch"],
        ["transformers", "Trainer"],
        ["transformers", "pipeline"],
        ["transformers", "CLIPTokenizer"],
        ["diffusers", "UNet2DModel", "x"],
        ["diffusers", None],
        [],
        [None, None],
        "UNet2DModel",
        {"a": 1},
        5,
        None,
    ],
    ids=str,
)
def test_an_entry_that_names_no_component(smallest, tmp_path, entry):
    def change(model):
        (model / "unet" / "my_unet.py").write_text("raise SystemExit('code of the model ran')")
        edit(model / INDEX, unet=entry)

    done = export_of_changed(smallest, change, tmp_path)

    assert done.status == 2
    assert "unet" in done.err or INDEX in done.err


@pytest.mark.parametrize(
    "name",
    [["pipeline.py", "X"], "os", "DiffusionPipeline", "NoSuchPipeline", "UNet2DModel", "logging", "ModularPipeline", 5],
    ids=str,
)  # fmt: skip
def test_a_class_that_is_no_pipeline(smallest, tmp_path, name):
    done = export_of_changed(
        smallest, lambda model: edit(model / INDEX, _class_name=name), tmp_path
    )

    assert done.status == 2
    assert INDEX in done.err


@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": "3"},
        {"in_channels": -1},
        {"in_channels": 0},
        {"in_channels": 10**18},
        {"in_channels": 10**30},
        {"block_out_channels": 8},
        {"block_out_channels": []},
        {"norm_num_groups": 0},
        {"norm_eps": float("inf")},
        {"act_fn": "os.system"},
        {"down_block_types": ["os"]},
        {"sample_size": 10**9},
        {"sample_size": 40_000},
        {"sample_size": -1},
        {"num_class_embeds": 10**12},
        {"auto_map": {"AutoModel": "code.py"}},
        {"_attn_implementation_internal": "somebody/kernel"},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
    ],
    ids=str,
)
def test_a_configuration_of_a_model(smallest, tmp_path, changes):
    began = time.process_time()
    done = export_of_changed(smallest, lambda model: edit(model / CONFIG, **changes), tmp_path)

    assert done.status == 2
    assert str(tmp_path) in done.err
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train_timesteps": "x"},
        {"num_train_timesteps": 10**9},
        {"num_train_timesteps": 10**9, "beta_schedule": "squaredcos_cap_v2"},
        {"num_train_timesteps": 0},
        {"beta_schedule": "os"},
        {"trained_betas": "x"},
    ],
    ids=str,
)
def test_a_configuration_of_a_scheduler(smallest, tmp_path, changes):
    done = export_of_changed(smallest, lambda model: edit(model / SCHEDULER, **changes), tmp_path)

    assert done.status == 2
    assert "scheduler" in done.err


@pytest.mark.slow
def test_layers_without_end(smallest, tmp_path):
    done = export_of_changed(
        smallest, lambda model: edit(model / CONFIG, layers_per_block=10**9), tmp_path
    )

    assert done.status == 2
    assert "more than 20000 parameters" in done.err


def test_a_secret_behind_a_link_is_not_copied(smallest, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    done = export_of_changed(
        smallest, lambda model: (model / "scheduler" / "x.json").symlink_to(secret), tmp_path
    )

    assert done.status == 2
    assert "scheduler/x.json" in done.err


def test_a_component_that_the_pipeline_does_not_have(smallest, tmp_path):
    def change(model):
        shutil.copytree(model / "scheduler", model / "Scheduler")
        edit(model / INDEX, Scheduler=["diffusers", "DDPMScheduler"])

    assert export_of_changed(smallest, change, tmp_path).status == 2


# Tokenizers


def drop(*names):
    def change(model):
        for name in names:
            (model / "tokenizer" / name).unlink()

    return change


TOKENIZERS = {
    "no vocabulary": drop("tokenizer.json", "vocab.json", "merges.txt"),
    "no merges": drop("tokenizer.json", "merges.txt"),
    "truncated": lambda model: os.truncate(model / "tokenizer/tokenizer.json", 100),
    "padded without end": lambda model: edit(model / "tokenizer/tokenizer_config.json", model_max_length=10**9),
    "a link": lambda model: as_link(model / "tokenizer/vocab.json"),
    "broken": lambda model: (model / "tokenizer/tokenizer_config.json").write_text('{"a":'),
}  # fmt: skip


@pytest.mark.parametrize("damage", TOKENIZERS)
def test_a_tokenizer(tiny_sd, tmp_path, damage):
    done = export_of_changed(tiny_sd, TOKENIZERS[damage], tmp_path)

    assert done.status == 2
    assert "tokenizer" in done.err


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": -1},
        {"hidden_size": "x"},
        {"hidden_act": "os.system"},
        {"max_position_embeddings": 0},
    ],
    ids=str,
)
def test_a_configuration_of_a_text_encoder(tiny_sd, tmp_path, changes):
    done = export_of_changed(
        tiny_sd, lambda model: edit(model / "text_encoder/config.json", **changes), tmp_path
    )

    assert done.status == 2
    assert "text_encoder" in done.err


# The command


@pytest.mark.parametrize(
    ("extra", "status", "words"),
    [
        (["--plan", "int3"], 2, "int3"),
        (["--components", "nope"], 2, "nope"),
        (["--call", '{"nonsense": 1}'], 2, "nonsense"),
        (["--call", '{"batch_size": 1000000000, "num_inference_steps": 1}'], 2, "bytes"),
    ],
)
def test_arguments(smallest, tmp_path, extra, status, words):
    done = export_of_changed(smallest, lambda _model: None, tmp_path, *extra)

    assert done.status == status
    assert words in done.err
    assert "hint: " in done.err


def test_an_output_that_exists(smallest, tmp_path):
    (tmp_path / "bundle").mkdir()
    done = run_export(smallest, tmp_path / "bundle", *SMALL_CALL)

    assert (done.status, "exists" in done.err) == (2, True)


def test_a_missing_parent(smallest, tmp_path):
    done = run_export(smallest, tmp_path / "a" / "b", *SMALL_CALL)

    assert (done.status, "mkdir -p" in done.err) == (5, True)


def test_an_unwritable_parent(smallest):
    done = run_export(smallest, "/proc/bundle", *SMALL_CALL)

    assert done.status == 5
    assert "/proc" in done.err
