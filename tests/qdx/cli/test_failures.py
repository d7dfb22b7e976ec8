"""Every failure is one readable message with a hint and its exit status; nothing goes to standard output."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from qdx.exporter.errors import (
    InternalError,
    InvalidBundle,
    InvalidModel,
    InvalidPlan,
    Refusal,
    RuntimeMissing,
    StorageError,
    TargetRefusal,
    UsageError,
)
from qdx.exporter.plan.schema.load import list_presets
from qdx.targets import list_targets

_NAMES = [f"`{name}`" for name in list_presets()]
PRESETS = f"the presets are {', '.join(_NAMES[:-1])} or {_NAMES[-1]}"
TARGETS = f"there are {', '.join(list_targets())}"

TRANSCRIPTS = [
    (["exprot"], "error: No such command 'exprot'\n\nhint: did you mean `qdx export`?\n"),
    (["frob"], "error: No such command 'frob'\n\nhint: the commands are analyze, bench, build, cache"),
    (["version"], "error: No such command 'version'\n\nhint: did you mean `qdx --version`?\n"),
    (["help"], "error: No such command 'help'\n\nhint: did you mean `qdx --help`?\n"),
    (["help", "export"], "error: No such command 'help'\n\nhint: did you mean `qdx export --help`?\n"),
    (["help", "plan", "check", "w8"], "error: No such command 'help'\n\nhint: did you mean `qdx plan check --help`?\n"),
    (["plan", "help", "show"], "error: No such command 'help'\n\nhint: did you mean `qdx plan show --help`?\n"),
    (["completion"],
     "error: Missing argument 'SHELL', expected one of bash, zsh, fish\n\nhint: name the shell, such as `qdx completion bash`\n"),
    (["report", "diff"], "error: Missing argument 'REPORT'\n\nhint: give two reports, the earlier one first: `qdx report diff BEFORE AFTER`\n"),
    (["verify", "bundle", "my shapes"], "error: Got unexpected extra argument(s) (my shapes)\n\nhint: did you mean --model 'my shapes'?\n"),
    (["verify", "bundle", "shapes", "more"], "error: Got unexpected extra argument(s) (shapes more)\n\nhint: did you mean --model shapes?\n"),
    (["run", "b", "-o", "picture.png", "--call", '{"height": 64}'],
     "error: --call: `height` is given without `width`\n\nhint: give both, in pixels\n"),
    (["run", "b", "-o", "picture.png", "--height", "64"], "error: --height is given without --width\n\nhint: give both, in pixels\n"),
    (["plan", "w8"], "error: No such command 'w8'\n\nhint: did you mean `qdx plan check w8` or `qdx plan show w8`?\n"),
    (["targets", "openvion"],
     f"error: --target: `openvion` is not a target; {TARGETS}\n\nhint: did you mean `openvino`?\n"),
    (["targets", "--no-such"], "error: No such option: --no-such\n\nhint: try `qdx targets --help`\n"),
    (["plan", "check"], "error: Missing argument 'PLAN'\n\nhint: give a preset, such as w8a8, or a plan file; `qdx plan new -o FILE` writes one to start from\n"),
    (["plan", "check", "W8A8"], f"error: `W8A8`: neither a preset nor a file; {PRESETS}\n\nhint: did you mean `w8a8`?\n"),
    (["plan", "check", "int8"],
     f"error: `int8`: neither a preset nor a file; {PRESETS}\n\nhint: did you mean `w8` (weights in 8 bits) or `w8a8` (weights and activations)?\n"),
    (["plan", "check", "fp16"], f"error: `fp16`: neither a preset nor a file; {PRESETS}\n\nhint: did you mean `float16`?\n"),
    (["targets", "OpenVino"],
     f"error: --target: `OpenVino` is not a target; {TARGETS}\n\nhint: did you mean `openvino`?\n"),
    (["targets", "trt"], f"error: --target: `trt` is not a target; {TARGETS}\n\nhint: did you mean `tensorrt`?\n"),
    (["targets", "cpu"],
     f"error: --target: `cpu` is not a target; {TARGETS}\n\nhint: did you mean `onnxruntime` or `openvino`?\n"),
    (["plan", "check", "float61"], f"error: `float61`: neither a preset nor a file; {PRESETS}\n\nhint: did you mean `float16`?\n"),
    (["plan", "new", "w8a4"], "error: `w8a4`: not a preset; the presets are"),
    (["plan", "new", "-o", "."], "error: --output: `.` exists\n\nhint: choose another name; nothing is overwritten\n"),
    (["plan", "show", "w8", "--model", "m"], "error: Missing option '--target'\n\nhint: add the target, such as --target openvino; `qdx targets` lists them\n"),
    (["plan", "show", "w8", "--target", "openvino", "--model", "none"],
     "error: `none` is not a folder\n\nhint: give the folder that holds model_index.json\n"),
    (["plan", "check", "./none.json"], "error: `none.json`: not found, expected a file\n"),
    (["plan", "check", "float16", "--target", "openvino"],
     ("error: --target without --model: a plan is resolved for a pipeline on a target\n\n"
     "hint: add --model, or leave --target out to check the plan alone\n")),
    (["plan", "check", "float16", "--model", "m"],
     ("error: --model without --target: a plan is resolved for a pipeline on a target\n\n"
     "hint: add --target, or leave --model out to check the plan alone\n")),
    (["export"], "error: Missing argument 'MODEL'\n\nhint: give the diffusers pipeline folder first, the one that holds model_index.json\n"),
    (["export", "m", "-o", "o"], "error: Missing option '--target'\n\nhint: add the target, such as --target openvino; `qdx targets` lists them\n"),
    (["export", "m", "openvino", "-o", "o"], "error: Missing option '--target'\n\nhint: did you mean --target openvino?\n"),
    (["export", "m", "w8", "--target", "openvino", "-o", "o"],
     "error: Got unexpected extra argument(s) (w8)\n\nhint: did you mean --plan w8?\n"),
    (["export", "m", "--target", "openvino", "-o", "o", "--prompt", "a cat"],
     "error: No such option: --prompt\n\nhint: arguments of the pipeline go into --call '{\"prompt\": \"a cat\"}'\n"),
    (["export", "m", "--target", "openvino", "-o", "o", "--call", "{prompt:", "a cat}"],
     ("error: Got unexpected extra argument(s) (a cat})\n\nhint: put the JSON in single quotes, so that the shell leaves it whole: "
     "--call '{\"prompt\": \"a cat\"}'\n")),
    (["export", "m", "--target", "toaster", "-o", "o"],
     f"error: --target: `toaster` is not a target; {TARGETS}\n\nhint: `qdx targets` describes them; a target of your own is a file whose name ends in .toml\n"),
    (["export", "m", "--target", "openvino", "--plan", "int3", "-o", "o"],
     f"error: `int3`: neither a preset nor a file; {PRESETS}\n\nhint: "),
    (["export", "m", "--target", "openvino", "-o", "o", "--shapes", "odd"], "error: Invalid value for '--shapes'"),
    (["export", "m", "--target", "openvino", "-o", "o", "--call", "{"], "error: `--call:1:2`: "),
    (["export", "m", "--target", "openvino", "-o", "o", "--call", '{"a": 1, "a": 2}'],
     "error: `--call:1:10`: key `a` appears twice, expected once\n\nhint: for example --call '{\"prompt\": \"a cat\", \"num_inference_steps\": 20}'\n"),
    (["export", "m", "--target", "openvino", "-o", "o", "--call", "none.json"],
     "error: `none.json`: not found, expected a file\n\nhint: JSON text goes here too: --call '{\"prompt\": \"a cat\", \"num_inference_steps\": 20}'\n"),
    *((["export", "m", "--target", "openvino", "-o", "o", "--components", nothing],
       (f"error: --components: `{nothing}` names nothing, expected names with commas between\n\n"
        "hint: leave the option out for what is usual\n")) for nothing in ("", ",", " , ,")),
    (["inspect", "none"], "error: `none` is not a folder\n\nhint: give the folder that holds model_index.json\n"),
    (["run", "b", "-o", "picture.gif"],
     "error: --output: `picture.gif` does not end in one of .png, .jpg, .jpeg, .webp\n\nhint: give -o picture.png\n"),
    (["run", "b", "-o", "picture"],
     "error: --output: `picture` does not end in one of .png, .jpg, .jpeg, .webp\n\nhint: give -o picture.png\n"),
    (["run", "b", "-o", "picture.png", "a cat"],
     "error: Got unexpected extra argument(s) (a cat)\n\nhint: give it with --prompt 'a cat'\n"),
    (["run", "b", "-o", "picture.png", "--step", "4"], "error: No such option: --step\n\nhint: did you mean --steps?\n"),
    (["run", "b", "-o", "picture.png", "--steps", "0"], "error: Invalid value for '--steps'"),
    (["run", "b", "-o", "picture.png", "--seed", "x"], "error: Invalid value for '--seed'"),
    (["verify", "b"], "error: neither --model nor --reference is given, expected what the bundle is compared with\n\nhint: add --model and the diffusers pipeline folder"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    TRANSCRIPTS,
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(qdx, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = qdx(*arguments)

    assert (done.status, done.out) == (2, "")
    assert message == done.err if message.endswith("\n") else done.err.startswith(message)
    assert "Traceback" not in done.err


@pytest.mark.parametrize("folder", ["", "."])
def test_the_working_folder_is_told_for_what_it_is(qdx, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    done = qdx("export", folder, "--target", "openvino", "-o", "bundle")

    assert done.status == 2
    assert "hint: an empty name and `.` are the working folder" in done.err


def test_a_folder_called_like_a_command_of_reports_is_told_how_to_be_named(
    qdx, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "diff").mkdir()
    done = qdx("report", "diff")

    assert done.status == 2
    assert "; the folder diff is meant with `qdx report ./diff`\n" in done.err


@pytest.fixture
def verify(qdx, facades):
    """Runs `qdx verify` on folders that look like a bundle and a pipeline from afar."""
    return lambda *before: qdx(*before, "verify", "b", "--model", "m")


def failing(monkeypatch, failure):
    """Makes the late-imported function of `qdx verify` fail."""

    def verify(*_arguments, **_options):
        raise failure

    module = ModuleType("qdx.verification.verify")
    module.verify = verify
    monkeypatch.setitem(sys.modules, "qdx.verification.verify", module)


FAILURES = [
    (UsageError("`x`: bad", hint="do y"), 2, "error: `x`: bad\n\nhint: do y\n"),
    (InvalidPlan("`p.json:1:1`: bad"), 2, "error: `p.json:1:1`: bad\n"),
    (InvalidModel("bad"), 2, "error: bad\n"),
    (InvalidModel("a\x1b[2Jb\x9b", hint="c\rd"), 2, "error: a\\x1b[2Jb\\x9b\n\nhint: c\\rd\n"),
    (InvalidBundle("bad"), 2, "error: bad\n"),
    (TargetRefusal("two things", refusals=(Refusal("unet.a", "no"), Refusal("unet.b", "no"))), 3,
     "error: two things\n  `unet.a`, `unet.b`: no\n"),
    (RuntimeMissing("openvino is not installed", hint='pip install "qdx[openvino]"'), 4,
     'error: openvino is not installed\n\nhint: pip install "qdx[openvino]"\n'),
    (StorageError("disk full"), 5, "error: disk full\n"),
    (OSError(28, "No space left on device", "out/x"), 5, "error: `out/x`: No space left on device\n"),
    (OSError("odd"), 5, "error: input or output: odd\n"),
    (MemoryError(), 5, "error: memory ran out\n\nhint: free memory, or work on fewer components at a time\n"),
    (InternalError("impossible"), 70, "error: impossible\n"),
    (KeyboardInterrupt(), 130, "interrupted\n"),
    (BrokenPipeError(), 141, ""),
    (SystemExit(3), 3, ""),
    (ZeroDivisionError("division by zero"), 70,
     ("error: a defect of qdx: ZeroDivisionError: `division by zero`\n\n"
     "hint: please report it with what `qdx --debug ...` prints for the same command\n")),
    (ValueError("bad \x1b[2J\nsecond line"), 70,
     ("error: a defect of qdx: ValueError: `bad \\x1b[2J`\n\n"
     "hint: please report it with what `qdx --debug ...` prints for the same command\n")),
    (AssertionError(), 70,
     ("error: a defect of qdx: AssertionError: no message\n\n"
     "hint: please report it with what `qdx --debug ...` prints for the same command\n")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("failure", "status", "message"), FAILURES, ids=lambda value: type(value).__name__
)
def test_each_failure_has_its_status_and_message(verify, monkeypatch, failure, status, message):
    failing(monkeypatch, failure)
    done = verify()

    assert (status, "", message) == (done.status, done.out, done.err)


def test_with_debug_the_traceback_is_shown(verify, monkeypatch):
    failing(monkeypatch, ZeroDivisionError("here"))
    done = verify("--debug")

    assert done.status == 70
    assert done.err.startswith("Traceback (most recent call last):")
    assert "in verify" in done.err


def test_the_variable_does_the_same(verify, monkeypatch):
    failing(monkeypatch, ZeroDivisionError("here"))
    monkeypatch.setenv("QDX_DEBUG", "1")

    assert "Traceback" in verify().err


def test_a_missing_library_is_a_defect_with_its_name(verify, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdx.verification.verify", None)
    done = verify()

    assert done.status == 70
    assert "qdx.verification.verify" in done.err
