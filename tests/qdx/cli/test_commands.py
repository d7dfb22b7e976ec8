"""What commands print, and what they hand to the functions behind them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image

from qdx.bundle.resolution import ResolvedRecord, record_of
from qdx.cli.options import SEED_LIMIT
from qdx.cli.progress_lines import Lines
from qdx.exporter.devices import CPU
from qdx.exporter.plan import resolve
from qdx.exporter.plan.schema.load import preset_text
from qdx.targets import list_targets, load_target
from tests.support.engine_records import PLAN, record
from tests.support.plans import SITES, plan_of
from tests.support.rtx_folders import FUSED, rtx_folder
from tests.support.rtx_planted import attention


class Recorded(dict):
    """A stand-in for a manifest, with what became of the sites of a plan that quantizes the UNet."""

    def __init__(self, data):
        super().__init__(data)
        plan = plan_of({"select": {"component": "unet", "op": ["conv2d", "linear"]},
                        "weights": {"dtype": "int8"}, "inputs": {"dtype": "int8"}})  # fmt: skip
        resolved = resolve(plan, ["unet", "vae"], load_target("openvino"), SITES)
        self.resolved = ResolvedRecord.model_validate_json(json.dumps(record_of(resolved)))


def read(manifest):
    return lambda _: SimpleNamespace(manifest=Recorded(manifest))


pytestmark = pytest.mark.usefixtures("facades")


class _ToStandardError:
    """Equal to the progress that a command hands on where standard error is no terminal."""

    __hash__ = None

    def __eq__(self, other):
        return isinstance(other, Lines)


PROGRESS = _ToStandardError()


def stand_in(monkeypatch, module_name, **functions):
    module = ModuleType(module_name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, module_name, module)


MANIFEST = {
    "target": {"name": "openvino", "runtime": "openvino", "options": {}},
    "plan": {"name": "float16"},
    "resolution": [{"component": "unet", "becomes": "float16", "computes": "float32"},
                   {"component": "vae", "becomes": "float16", "computes": "float32"}],
    "source": {"pipeline_class": "StableDiffusionPipeline", "files": {}},
    "shapes": "dynamic",
    "layout": None,
    "components": {
        "unet": {"class": "UNet2DConditionModel", "library": "diffusers", "methods": {"forward": {"folder": "unet", "artifact": None}}},
        "vae": {"class": "AutoencoderKL", "library": "diffusers",
                "methods": {"encode": {"folder": "vae_encoder", "artifact": None},
                            "decode": {"folder": "vae_decoder", "artifact": None}}},
    },
    "versions": {"qdx": "0.1.0"},
    "files": [
        {"path": "unet/openvino_model.bin", "size_bytes": 2048, "sha256": "0"},
        {"path": "vae_encoder/openvino_model.bin", "size_bytes": 100, "sha256": "0"},
        {"path": "vae_decoder/openvino_model.bin", "size_bytes": 200, "sha256": "0"},
        {"path": "model_index.json", "size_bytes": 7, "sha256": "0"},
    ],
}  # fmt: skip


def test_targets_as_a_table(qdx):
    lines = qdx("targets").out.splitlines()

    assert lines[0].split() == ["target", "installed", "description", "float", "weights"]
    assert [line.split()[0] for line in lines[1:]] == list(list_targets())


def test_targets_as_json(qdx):
    found = {one["name"]: one for one in json.loads(qdx("targets", "--json").out)}

    assert list(found) == list(list_targets())
    assert found["openvino"]["install"] == 'pip install "qdx[openvino]"'


def test_a_target_for_gpus_says_what_it_is_for_and_what_builds_its_engines(qdx):
    described = qdx("targets", "tensorrt-ada").out.split("\n\n")[0]
    rows = dict(line.split("  ", 1) for line in described.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}

    assert rows["versions"] == ">=10.12,<12"
    assert rows["compute capability"] == "8.9"
    assert rows["engines"].startswith("built by `qdx build` on the machine that runs them;")


def test_a_target_whose_engines_any_machine_builds_says_so(qdx):
    described = qdx("targets", "rtx-ada").out.splitlines()

    assert (
        "engines             built by `qdx export`, or by `qdx build`, on any machine; verify needs no device"
        in described
    )


def test_one_target(qdx):
    done = qdx("targets", "openvino")

    assert "option           INFERENCE_PRECISION_HINT = f32" in done.out.splitlines()


def test_a_runtime_that_is_not_installed_is_said_to_be_so(qdx, monkeypatch):
    import importlib.metadata

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)

    assert (
        'installed        no: pip install "qdx[openvino]"'
        in qdx("targets", "openvino").out.splitlines()
    )
    assert "not installed" in qdx("targets").out


def test_a_plan_alone(qdx):
    done = qdx("plan", "check", "float16")

    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "rules[0]\n"
        "  components  *\n"
        "  weights     float16\n"
        "\n"
        "gate               expected\n"
        "component sqnr_db  as the target has it\n"
        "pipeline psnr_db   at least 40\n"
        "pipeline ssim      at least 0.98\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mixed_precision": True}, "options       mixed_precision"),
        ({"mixed_precision": False}, "options       no mixed_precision"),
        ({"time_embedding": "precompute"}, "options       time_embedding (precompute)"),
        ({"smoothing": {"alpha": 0.5}}, "options       smoothing (alpha 0.5)"),
    ],
)
def test_options_of_a_plan_are_told(qdx, tmp_path, options, words):
    plan = tmp_path / "plan.json"
    value = json.loads(preset_text("w8a8"))
    plan.write_text(json.dumps({**value, "options": options}))

    assert words in qdx("plan", "check", plan).out.splitlines()


def test_a_plan_for_a_model_and_a_target(qdx, model):
    done = qdx("plan", "check", "float16", "--target", "openvino", "--model", model)

    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1].split()[:4] == ["unet", "float16", "rules[0]", "float16"]


def test_a_plan_as_json(qdx, model):
    done = qdx("plan", "check", "float16", "--target", "openvino", "--model", model, "--json")
    data = json.loads(done.out)

    assert data["plan"]["schema"] == "qdx.plan/1"
    assert data["target"] == "openvino"
    assert [row["component"] for row in data["resolution"]] == ["unet", "vae"]


def test_a_plan_for_components_that_are_not_there(qdx, model, tmp_path):
    plan = tmp_path / "p.json"
    plan.write_text(json.dumps({
        "schema": "qdx.plan/1",
        "rules": [{"select": {"component": "transformer"}, "weights": {"dtype": "float16"}}],
        "gates": {"component": {"sqnr_db_min": 50}, "pipeline": {"psnr_db_min": 40, "ssim_min": 0.9}},
    }))  # fmt: skip
    done = qdx("plan", "check", plan, "--target", "openvino", "--model", model)

    assert done.status == 2
    assert "`transformer` matches no component of the pipeline" in done.err


def test_the_schema_of_plans(qdx):
    assert json.loads(qdx("plan", "schema").out)["title"] == "qdx.plan/1"


def test_inspecting_a_model(qdx, model):
    done = qdx("inspect", model)

    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "StableDiffusionPipeline\n"
        "\n"
        "component  class                           parameters  weights  size\n"
        "unet       diffusers.UNet2DConditionModel  296         float16  592 B\n"
        "vae        diffusers.AutoencoderKL         296         float32  1.2 KiB\n"
        "scheduler  diffusers.DDIMScheduler         -           -        -\n"
        "\n"
        "absent: safety_checker\n"
    )


def test_inspecting_a_model_as_json(qdx, model):
    unet = json.loads(qdx("inspect", model, "--json").out)["components"][0]

    assert {k: unet[k] for k in ("parameters", "dtypes", "size_bytes")} == {
        "parameters": 296,
        "dtypes": ["float16"],
        "size_bytes": 592,
    }


def test_inspecting_a_bundle(qdx, tmp_path, monkeypatch):
    monkeypatch.setattr("qdx.bundle.read_bundle", read(MANIFEST))
    (tmp_path / "qdx.json").write_text("{}")
    done = qdx("inspect", tmp_path)

    assert done.out == (
        "StableDiffusionPipeline for openvino, plan float16, dynamic shapes, 2.3 KiB\n"
        "\n"
        "component  class                 folders                  size     precision\n"
        "unet       UNet2DConditionModel  unet                     2.0 KiB  int8 weights x int8 inputs in 6 "
        "of 8 operations, else float16, computed in float32\n"
        "vae        AutoencoderKL         vae_encoder vae_decoder  300 B    float16, computed in float32\n"
    )
    unet = json.loads(qdx("inspect", tmp_path, "--json").out)["components"][0]
    precision = {"weights": "int8", "stored": None, "inputs": ["int8"], "form": "native"}
    assert unet["operations"] == {"total": 8, "quantized": [[precision, 6]]}


def test_inspecting_what_nncf_quantized_says_so(qdx, tmp_path, monkeypatch):
    plan = {"name": "n", "quantizer": "nncf", "nncf": {"mode": "ptq", "components": "u*"}}
    manifest = {**MANIFEST, "plan": plan}
    monkeypatch.setattr("qdx.bundle.read_bundle", read(manifest))
    (tmp_path / "qdx.json").write_text("{}")
    unet, vae = qdx("inspect", tmp_path).out.splitlines()[3:5]

    assert unet.endswith(", then quantized by NNCF")
    assert "NNCF" not in vae


def test_inspecting_a_bundle_tells_the_options_of_its_plan(qdx, tmp_path, monkeypatch):
    plan = {"name": "mine", "options": {"mixed_precision": True, "smoothing": None}}
    monkeypatch.setattr("qdx.bundle.read_bundle", read({**MANIFEST, "plan": plan}))
    (tmp_path / "qdx.json").write_text("{}")

    assert ", plan mine with mixed_precision, dynamic" in qdx("inspect", tmp_path).out


def test_inspecting_a_bundle_for_tensorrt_shows_its_engines(qdx, tmp_path, monkeypatch):
    manifest = {
        **MANIFEST,
        "target": {"name": "tensorrt-ada", "runtime": "tensorrt", "options": {}},
    }
    monkeypatch.setattr("qdx.bundle.read_bundle", read(manifest))
    (tmp_path / "qdx.json").write_text("{}")
    for folder in ("unet", "vae_encoder", "vae_decoder"):
        (tmp_path / folder).mkdir()

    assert "no engines yet: `qdx build`" in qdx("inspect", tmp_path).out

    (tmp_path / "unet" / "model.engine").write_bytes(PLAN)
    (tmp_path / "unet" / "engine.json").write_bytes(record().to_json())
    rows = [line.split() for line in qdx("inspect", tmp_path).out.splitlines()[-3:]]
    assert rows[0] == ["unet", "11.4.0.106", "8.9", "NVIDIA", "L40S", "9", "B"]
    assert rows[1][0] == "vae_encoder"
    assert set(rows[1][1:]) == {"-"}

    (tmp_path / "unet" / "engine.json").unlink()
    assert qdx("inspect", tmp_path).status == 2


def test_inspecting_a_bundle_for_rtx_tells_what_each_engine_was_compiled_for(
    qdx, tmp_path, monkeypatch
):
    manifest = {
        **MANIFEST,
        "target": {"name": "rtx-ada", "runtime": "tensorrt-rtx", "options": {}},
    }
    monkeypatch.setattr("qdx.bundle.read_bundle", read(manifest))
    (tmp_path / "qdx.json").write_text("{}")
    for folder in ("unet", "vae_encoder", "vae_decoder"):
        (tmp_path / folder).mkdir()
    rtx_folder(tmp_path / "unet", attention(64), FUSED)
    text = qdx("inspect", tmp_path).out

    assert "unet: 1 native low precision" in text
    assert "unet: attention fused 1 of 1" in text
    assert "unet: memory on the device: 1000 B of weights, 2.0 KiB between layers" in text
    engines = json.loads(qdx("inspect", tmp_path, "--json").out)["engines"]
    assert engines[0]["compiled"]["ways"]["native"] == 1
    assert engines[1]["compiled"] is None

    (tmp_path / "unet" / "engine.layers.txt").write_text(FUSED.replace("Int8", "Half"))
    assert qdx("inspect", tmp_path).status == 2


EVIL = "x\x1b]0;title\x07\n\x9b2J"


def test_names_in_a_bundle_reach_the_terminal_without_control_characters(
    qdx, tmp_path, monkeypatch
):
    manifest = {
        **MANIFEST,
        "plan": {"name": EVIL},
        "source": {"pipeline_class": EVIL},
        "target": {"name": EVIL, "runtime": EVIL},
        "resolution": [{"component": EVIL, "becomes": EVIL, "computes": EVIL}],
        "components": {EVIL: {"class": EVIL, "library": EVIL, "methods": {}}},
    }
    monkeypatch.setattr("qdx.bundle.read_bundle", read(manifest))
    (tmp_path / "qdx.json").write_text("{}")
    done = qdx("inspect", tmp_path)

    assert done.status == 0
    assert len(done.out.splitlines()) == 4
    assert done.out.replace("\n", "").isprintable()


@pytest.mark.parametrize("key", ["unet", "_class_name", EVIL])
def test_names_in_a_model_reach_the_terminal_without_control_characters(qdx, model, key):
    index = json.loads((model / "model_index.json").read_text())
    value = EVIL if key == "_class_name" else [EVIL, EVIL]
    (model / "model_index.json").write_text(json.dumps({**index, key: value}))
    (model / EVIL.replace("/", "")).mkdir()
    done = qdx("inspect", model)

    assert (done.out + done.err).replace("\n", "").isprintable()


@dataclass(frozen=True)
class Exported:
    bundle: Path = Path("out")
    methods: tuple[str, ...] = ("unet.forward", "vae.decode")
    size_bytes: int = 2048
    omitted: dict[str, str] = field(default_factory=lambda: {"safety_checker": "runs on pictures"})
    left_out: tuple[str, ...] = ("text_encoder",)
    notes: tuple = ("no openvino_tokenizer.xml",)
    engines: dict[str, object] = field(default_factory=dict)


@pytest.fixture
def exported(monkeypatch):
    """Stands in for the exporter and keeps what it was called with."""
    calls = []

    def export(*given, **options):
        calls.append((given, options))
        return Exported()

    stand_in(monkeypatch, "qdx.compile.export", export=export)
    return calls


def test_export_hands_everything_on(qdx, exported, tmp_path):
    call = tmp_path / "call.json"
    call.write_text('{"prompt": "a cat", "height": 64}')
    done = qdx("export", "model", "--target", "openvino", "--plan", "float16", "-o", "out", "--call", call,
               "--components", "unet, vae", "--shapes", "static", "--force", "--no-cache")  # fmt: skip

    assert done.status == 0
    assert [
        (
            (Path("model"),),
            {
                "target": "openvino",
                "plan": "float16",
                "output": Path("out"),
                "call": {"prompt": "a cat", "height": 64},
                "components": ["unet", "vae"],
                "shapes": "static",
                "setup": [],
                "variant": None,
                "ranges": None,
                "weights": None,
                "prompts": None,
                "layout": None,
                "halves": False,
                "lora": [],
                "lora_ready": None,
                "force": True,
                "build": None,
                "progress": PROGRESS,
                "cache": None,
                "fresh": False,
                "workers": None,
                "device": "cpu",
            },
        )
    ] == exported


def test_export_takes_the_users_cache(qdx, exported, monkeypatch, tmp_path):
    monkeypatch.setenv("QDX_CACHE", str(tmp_path))
    qdx("export", "model", "--target", "openvino", "-o", "out")

    assert exported[0][1]["cache"].root == tmp_path / "v1"


def test_export_refuses_a_wrong_limit_of_the_cache_unless_it_has_none(qdx, exported, monkeypatch):
    monkeypatch.setenv("QDX_CACHE_LIMIT", "much")
    done = qdx("export", "model", "--target", "openvino", "-o", "out")

    assert done.status == 2
    assert "QDX_CACHE_LIMIT: `much` is not a size" in done.err
    assert exported == []
    assert qdx("export", "model", "--target", "openvino", "-o", "out", "--no-cache").status == 0


def test_export_prints_the_graphs_and_says_where_they_lie(qdx, exported):
    done = qdx("export", "model", "--target", "openvino", "-o", "out")

    assert done.out == "unet.forward\nvae.decode\n"
    assert done.err == (
        "omitted safety_checker: runs on pictures\nleft out text_encoder\n"
        "note: no openvino_tokenizer.xml\nwrote out, 2.0 KiB\n"
    )
    options = exported[0][1]
    assert (options["call"], options["components"], options["plan"]) == (None, None, "float32")
    assert options["shapes"] == "static"


def test_export_as_json(qdx, exported):
    data = json.loads(qdx("export", "model", "--target", "openvino", "-o", "out", "--json").out)

    assert data["bundle"] == "out"
    assert data["methods"] == ["unet.forward", "vae.decode"]


@pytest.mark.parametrize(
    ("ok", "status", "words"),
    [(True, 0, "every gate holds"), (False, 1, "a gate failed"), (None, 1, "a gate failed")],
)
def test_verify_says_whether_the_gates_hold(qdx, monkeypatch, tmp_path, ok, status, words):
    monkeypatch.setenv("QDX_CACHE", str(tmp_path))
    calls = []

    def verify(*given, **options):
        calls.append((given, options))
        return {"ok": ok, "sqnr_db": float("inf")}

    stand_in(monkeypatch, "qdx.verification.verify", verify=verify)
    done = qdx(
        "verify",
        "b",
        "--model",
        "m",
        "--report",
        "r",
        "--seed",
        "3",
        "--call",
        '{"eta": 1}',
        "--json",
    )

    assert status == done.status
    assert {"ok": ok, "sqnr_db": "inf"} == json.loads(done.out)
    assert f"wrote r\n{words}\n" == done.err
    assert (Path("b"),) == calls[0][0]
    assert calls[0][1].pop("cache").root.is_relative_to(tmp_path)
    assert calls[0][1] == {
        "model": Path("m"),
        "variant": None,
        "lora": [],
        "report": Path("r"),
        "seed": 3,
        "seeds": 1,
        "prompts": None,
        "score": None,
        "localize": False,
        "steps": None,
        "budget_s": None,
        "device": "cpu",
        "call": {"eta": 1},
        "plan": None,
        "gates": None,
        "baseline": None,
        "baseline_drop_db": None,
        "reference": None,
        "save_reference": None,
        "progress": PROGRESS,
    }


def test_a_failed_gate_of_a_quantized_bundle_points_to_the_localization(qdx, monkeypatch):
    stand_in(
        monkeypatch,
        "qdx.verification.verify",
        verify=lambda *_, **__: {"ok": False, "lockstep": [{}]},
    )

    hint = "a gate failed\n\nhint: --localize names the operations at which the error enters\n"
    assert qdx("verify", "b", "--model", "m").err == hint
    assert qdx("verify", "b", "--model", "m", "--localize").err == "a gate failed\n"


@pytest.mark.parametrize(
    "command", [("verify", "b", "--model", "m"), ("run", "b", "-o", "o"), ("bench", "b")]
)
def test_a_seed_beyond_what_generators_take_is_wrong_usage(qdx, command):
    done = qdx(*command, "--seed", str(SEED_LIMIT + 1))

    assert done.status == 2
    assert "--seed" in done.err


class Painter:
    """A pipeline that paints one colour."""

    def __init__(self, count=1):
        self.count = count
        self.size = None
        self.exported = {}
        self.calls = []

    def __call__(self, prompt=None, negative_prompt=None, num_inference_steps=50, guidance_scale=7.5,
                 height=None, width=None, num_images_per_prompt=1, generator=None):  # fmt: skip
        self.calls.append({"prompt": prompt, "steps": num_inference_steps, "guidance": guidance_scale,
                               "size": (height, width), "seed": generator.initial_seed()})  # fmt: skip
        size = self.size or (width or 8, height or 8)
        return SimpleNamespace(images=[Image.new("RGB", size, "red")] * self.count)


@pytest.fixture
def painter(monkeypatch):
    painter = Painter()

    def open_pipeline(bundle, **options):
        painter.opened = (bundle.path, options)
        return painter

    def read_bundle(path):
        return SimpleNamespace(path=path, manifest=SimpleNamespace(call=painter.exported))

    monkeypatch.setattr("qdx.runtime.pipeline.open_pipeline", open_pipeline)
    stand_in(monkeypatch, "qdx.bundle.reader", read_bundle=read_bundle)
    return painter


def test_run_draws_a_picture(qdx, painter, tmp_path):
    path = tmp_path / "new" / "cat.png"
    done = qdx("run", "b", "--prompt", "a cat", "-o", path, "--steps", 4, "--seed", 7, "--guidance", "2.5",
               "--height", 64, "--width", 32)  # fmt: skip

    assert (0, f"{path}\n", f"wrote {path}\n") == (done.status, done.out, done.err)
    assert painter.calls == [
        {"prompt": "a cat", "steps": 4, "guidance": 2.5, "size": (64, 32), "seed": 7}
    ]
    assert Image.open(path).getpixel((0, 0)) == (255, 0, 0)
    assert [path] == list(path.parent.iterdir())


def test_a_seed_holds_for_pipelines_that_take_no_generator(qdx, painter, tmp_path, monkeypatch):
    """They draw from the global state, which is afterwards as it was."""
    drawn = []

    def draw(self):
        drawn.append(float(torch.rand(())))
        return SimpleNamespace(images=[Image.new("RGB", (8, 8))])

    monkeypatch.setattr(Painter, "__call__", draw)
    before = torch.random.get_rng_state()
    done = [
        qdx("run", "b", "-o", tmp_path / f"{n}.png", "--seed", s) for n, s in enumerate([7, 7, 8])
    ]

    assert [one.status for one in done] == [0, 0, 0]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_run_hands_on_how_to_open_the_bundle(qdx, painter, tmp_path):
    qdx("run", "b", "-o", tmp_path / "x.png", "--model", "m", "--threads", 2)

    options = {"model": Path("m"), "threads": 2, "device": CPU, "progress": PROGRESS}
    assert painter.opened == (Path("b"), options)


def test_numbers_of_the_export_s_call_hold_where_none_are_given(qdx, painter, tmp_path):
    painter.exported = {"prompt": "a fox", "num_inference_steps": 3, "guidance_scale": 2.0}
    done = qdx("run", "b", "--prompt", "a cat", "--guidance", "4", "-o", tmp_path / "x.png")
    nothing = qdx("run", "b", "-o", tmp_path / "y.png", "--steps", "5", "--guidance", "4")

    assert [(c["prompt"], c["steps"], c["guidance"]) for c in painter.calls] == [
        ("a cat", 3, 4.0),
        (None, 5, 4.0),
    ]
    assert done.err.startswith("as exported: num_inference_steps 3\n")
    assert "as exported" not in nothing.err


@pytest.mark.parametrize(
    ("exported", "given", "size"),
    [
        ({"height": 64, "width": 32}, (), (64, 32)),
        ({"height": 64, "width": 32}, ("--height", "16", "--width", "8"), (16, 8)),
        ({"height": 64}, (), (None, None)),
        ({"height": 64, "width": 32}, ("--call", '{"height": null}'), (None, None)),
    ],
)
def test_sizes_of_the_export_s_call_hold_together(qdx, painter, tmp_path, exported, given, size):
    painter.exported = exported
    done = qdx("run", "b", "--prompt", "a cat", "-o", tmp_path / "x.png", *given)

    assert done.status == 0, done.err
    assert painter.calls[0]["size"] == size


def test_what_the_pipeline_does_not_take_and_how_it_answers_is_not_kept(qdx, painter, tmp_path):
    painter.exported = {"return_dict": False, "of_another": 3}

    assert "as exported" not in qdx("run", "b", "--prompt", "a", "-o", tmp_path / "x.png").err


def test_options_win_over_the_call(qdx, painter, tmp_path):
    qdx(
        "run",
        "b",
        "--prompt",
        "a dog",
        "--call",
        '{"prompt": "a cat", "num_inference_steps": 3}',
        "-o",
        tmp_path / "x.png",
    )

    assert (painter.calls[0]["prompt"], painter.calls[0]["steps"]) == ("a dog", 3)


def test_an_existing_picture_is_kept_without_force(qdx, painter, tmp_path):
    path = tmp_path / "x.png"
    path.write_text("mine")
    done = qdx("run", "b", "-o", path)

    assert done.status == 2
    assert done.err == f"error: --output: `{path}` exists\n\nhint: give --force to replace it\n"
    assert path.read_text() == "mine"
    assert painter.calls == []
    assert qdx("run", "b", "-o", path, "--force").status == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_folder_is_no_picture(qdx, painter, tmp_path):
    (tmp_path / "x.png").mkdir()

    assert qdx("run", "b", "-o", tmp_path / "x.png", "--force").status == 2


def test_several_pictures_are_numbered(qdx, painter, tmp_path):
    painter.count = 2
    done = qdx("run", "b", "-o", tmp_path / "x.png", "--json")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-0.png", "x-1.png"]
    assert [str(tmp_path / "x-0.png"), str(tmp_path / "x-1.png")] == json.loads(done.out)["images"]


@pytest.mark.parametrize("source", ["call", "export", "prompts"])
def test_numbered_names_that_are_taken_are_refused_before_anything_is_drawn(
    qdx, painter, tmp_path, source
):
    (tmp_path / "x-1.png").write_text("mine")
    given = {
        "call": ("--call", '{"num_images_per_prompt": 2}'),
        "export": (),
        "prompts": ("--call", '{"prompt": ["a", "b"]}'),
    }
    painter.exported = {"num_images_per_prompt": 2} if source == "export" else {}
    done = qdx("run", "b", "-o", tmp_path / "x.png", *given[source])

    assert (done.status, painter.calls) == (2, [])
    assert "x-1.png` exists" in done.err


@pytest.mark.parametrize("force", [True, False])
def test_more_pictures_than_the_call_told_are_written_beside_what_is_there(
    qdx, painter, tmp_path, force
):
    painter.count = 2
    (tmp_path / "x-0.png").write_text("mine")
    (tmp_path / "x-2.png").mkdir()
    done = qdx("run", "b", "-o", tmp_path / "x.png", *(["--force"] if force else []))

    assert done.status == 0
    written = [
        tmp_path / name for name in (("x-0.png", "x-1.png") if force else ("x-3.png", "x-4.png"))
    ]
    assert done.out == "".join(f"{path}\n" for path in written)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert force or (tmp_path / "x-0.png").read_text() == "mine"


def test_an_unknown_argument_is_refused(qdx, painter, tmp_path):
    done = qdx("run", "b", "--call", '{"colour": 1}', "-o", tmp_path / "x.png")

    assert done.status == 2
    assert "Painter has no argument `colour`" in done.err


def test_what_makes_no_pictures_is_refused(qdx, painter, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Painter, "__call__", lambda self, generator=None: SimpleNamespace(audios=[])
    )
    done = qdx("run", "b", "-o", tmp_path / "x.png")

    assert done.status == 2
    assert "returned no images" in done.err


def test_a_missing_prompt_is_named(qdx, painter, tmp_path, monkeypatch):
    monkeypatch.setattr(Painter, "__call__", lambda self, prompt, generator=None: None)

    assert (
        qdx("run", "b", "-o", tmp_path / "x.png").err
        == "error: Painter needs --prompt\n\nhint: add --prompt 'a red circle'\n"
    )


@pytest.mark.parametrize("given", [(), ("--call", '{"prompt": null}')], ids=["nothing", "null"])
def test_a_prompt_is_needed_where_an_embedding_could_stand_for_it(
    qdx, painter, tmp_path, monkeypatch, given
):
    monkeypatch.setattr(
        Painter, "__call__", lambda self, prompt=None, prompt_embeds=None, generator=None: None
    )
    done = qdx("run", "b", "-o", tmp_path / "x.png", *given)

    assert (done.status, done.err) == (
        2,
        "error: Painter needs --prompt\n\nhint: add --prompt 'a red circle'\n",
    )


@pytest.mark.parametrize(
    "error",
    [
        TypeError("5 is no text"),
        ValueError("5 is no text"),
        KeyError("5 is no text"),
        AttributeError("5 is no text"),
        RuntimeError("5 is no text"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_call_that_the_pipeline_rejects_is_wrong_usage(
    qdx, painter, tmp_path, monkeypatch, error
):
    def reject(self, prompt=None, generator=None):
        raise error

    monkeypatch.setattr(Painter, "__call__", reject)
    done = qdx("run", "b", "-o", tmp_path / "x.png", "--call", '{"prompt": 5}')

    assert done.status == 2
    assert f"Painter rejects the call: {type(error).__name__}: " in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_generator_is_no_plain_value(qdx, painter, tmp_path):
    done = qdx("run", "b", "-o", tmp_path / "x.png", "--call", '{"generator": 1}')

    assert done.status == 2
    assert "hint: give --seed" in done.err


@pytest.mark.parametrize(("seed", "status"), [(SEED_LIMIT, 0), (2**64, 2), (2**70, 2)])
def test_a_seed_has_64_bits(qdx, painter, tmp_path, seed, status):
    assert qdx("run", "b", "-o", tmp_path / "x.png", "--seed", seed).status == status


def test_images_of_the_call_are_opened(qdx, painter, tmp_path, monkeypatch):
    Image.new("RGB", (6, 4), "blue").save(tmp_path / "blue.png")
    monkeypatch.setattr(
        Painter, "__call__", lambda self, image, generator=None: SimpleNamespace(images=[image])
    )
    call = json.dumps({"image": str(tmp_path / "blue.png")})
    done = qdx("run", "b", "-o", tmp_path / "x.png", "--call", call)

    assert done.status == 0
    assert Image.open(tmp_path / "x.png").getpixel((0, 0)) == (0, 0, 255)
    call = json.dumps({"image": str(tmp_path / "no.png")})
    assert qdx("run", "b", "-o", tmp_path / "y.png", "--call", call).status == 2


@pytest.mark.parametrize(
    "half", [("--height", 64), ("--width", 64), ("--call", '{"width": 64}')], ids=str
)
def test_half_a_size_is_refused(qdx, painter, tmp_path, half):
    done = qdx("run", "b", "-o", tmp_path / "x.png", *half)

    assert done.status == 2
    assert "is given without " in done.err
    assert painter.calls == []


def test_a_picture_of_another_size_than_asked_is_refused(qdx, painter, tmp_path):
    painter.size = (8, 8)
    done = qdx("run", "b", "-o", tmp_path / "x.png", "--height", 64, "--width", 32)

    assert done.status == 2
    assert "32x64 pixels were requested, and the bundle generates 8x8" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_is_a_storage_failure(qdx, painter, tmp_path, monkeypatch):
    def full(*_given, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    done = qdx("run", "b", "-o", tmp_path / "x.png")

    assert done.status == 5
    assert "cannot be written, No space left on device" in done.err
    assert list(tmp_path.iterdir()) == []


def test_the_environment_forbids_the_network(qdx, monkeypatch):
    import os

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    qdx("targets")

    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_targets_on_the_command_line_are_those_of_the_profiles(qdx):
    data = json.loads(qdx("targets", "onnxruntime", "--json").out)

    assert load_target("onnxruntime").options == data["options"]


def test_verify_without_the_cache_keeps_nothing(qdx, monkeypatch):
    given = {}
    stand_in(
        monkeypatch,
        "qdx.verification.verify",
        verify=lambda *_, **options: given.update(options) or {},
    )
    qdx("verify", "b", "--model", "m", "--no-cache")

    assert given["cache"] is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30min", 1800), ("2h", 7200), ("1.5 h", 5400)]
)
def test_a_budget_is_a_number_with_its_unit(qdx, monkeypatch, text, seconds):
    given = {}
    stand_in(
        monkeypatch,
        "qdx.verification.verify",
        verify=lambda *_, **options: given.update(options) or {},
    )
    qdx("verify", "b", "--model", "m", "--budget", text)

    assert given["budget_s"] == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "min", "0s", "-1h", "1d", "1h30min", "1e9s", "nan s", "٣s"]
)
def test_any_other_budget_is_refused_before_anything_is_read(qdx, text):
    done = qdx("verify", "b", "--model", "m", f"--budget={text}")

    assert done.status == 2
    assert "expected a time such as 90s, 30min or 2h" in done.err
