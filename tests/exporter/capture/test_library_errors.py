"""What a library raises is told apart: a package missing or unfit here, files that do not fit, arguments that are wrong."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.library_errors import environment_fault, library_errors
from qdx.exporter.capture.pipeline_errors import pipeline_errors
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.errors import InvalidModel, UsageError
from tests.support.tiny import build


def fault_of(action):
    """What is told of the error that an action raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever libraries raise
        action()
    return environment_fault(caught.value)


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "package"),
    [
        (ImportError("X requires the torchsde library but it was not found"), "torchsde"),
        (ImportError("T5Converter requires the protobuf2 library but it was not found."), "protobuf2"),
        (ImportError("`guard_rail` is not installed: `pip install guard_rail`."), "guard_rail"),
        (ValueError("You need to have sentencepiece9 or other installed to convert"), "sentencepiece9"),
        (ModuleNotFoundError("No module named 'ftfy9.x'", name="ftfy9.x"), "ftfy9"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_missing_package_is_named_with_its_command(error, package):
    fault = fault_of(raising(error))

    assert fault.words == f"it needs the package `{package}`, which is not installed"
    assert fault.hint == f"pip install {package}"


@pytest.mark.parametrize(
    "error",
    [
        ImportError("torch>=99.1 is required for a normal functioning of this module", name=None),
        ImportError("packaging>=99.1 is required for a normal functioning of this module"),
        ImportError("cannot import name 'x' from 'packaging.version'", name="packaging.version"),
    ],
    ids=["at work", "old", "changed"],
)
def test_an_old_package_is_told_from_a_missing_one(error):
    fault = fault_of(raising(error))
    if "torch" in str(error):
        assert fault is None
        return

    assert "the installed package `packaging " in fault.words
    assert fault.hint.startswith("pip install --upgrade packaging")


def test_a_package_that_breaks_while_it_is_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "brittle_extra.py").write_text("raise RuntimeError('built for another torch')")
    monkeypatch.syspath_prepend(tmp_path)

    def wrapped():
        try:
            importlib.import_module("brittle_extra")
        except RuntimeError as error:
            raise RuntimeError("Failed to import the models") from error

    fault = fault_of(wrapped)

    assert "the installed package `brittle_extra` does not work" in fault.words
    assert "RuntimeError: built for another torch" in fault.words


def test_a_name_that_a_module_imports_only_where_it_is_installed_is_a_missing_package(
    tmp_path, monkeypatch
):
    (tmp_path / "guarding.py").write_text(
        "if False:\n    import ftfy9\n    from bs9 import Soup\n"
        "def clean(text):\n    return ftfy9.fix_text(text)\ndef cook():\n    return Soup()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    guarding = importlib.import_module("guarding")

    assert fault_of(lambda: guarding.clean("x")).hint == "pip install ftfy9"
    assert fault_of(guarding.cook).hint == "pip install bs9"
    sys.modules.pop("guarding")


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("sizes"), NameError("x", name="x")])
def test_other_errors_are_about_the_files(error):
    assert fault_of(raising(error)) is None
    with (
        pytest.raises(InvalidModel, match=r"`model`: X cannot be built: \w+Error") as caught,
        library_errors("`model`", "X cannot be built", hint="the files are damaged"),
    ):
        raise error

    assert caught.value.hint == "the files are damaged"
    assert caught.value.__cause__ is error


def test_a_scheduler_whose_package_is_missing_is_told(tmp_path):
    folder = build("ddpm", tmp_path / "ddpm")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DPMSolverSDEScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))

    with pytest.raises(InvalidModel, match="needs the package `torchsde`") as caught:
        dry_run(build_skeleton(read_pipeline_folder(folder)), {"num_inference_steps": 1})

    assert caught.value.hint == "pip install torchsde"


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory):
    return build_skeleton(
        read_pipeline_folder(build("ddpm", tmp_path_factory.mktemp("model") / "ddpm"))
    )


def _errors(skeleton):
    return pipeline_errors(
        skeleton.folder, rejected="rejects", failed="fails", call_hint="call", model_hint="model"
    )


@pytest.mark.parametrize("call", [{"nonsense": 1}, {"num_inference_steps": 10**6}])
def test_wrong_arguments_are_about_the_call(ddpm, call):
    with pytest.raises(UsageError, match="rejects: "), _errors(ddpm):
        ddpm.pipeline(**call)


def test_an_error_deep_in_a_library_is_not_about_the_call(ddpm, monkeypatch):
    monkeypatch.setattr(ddpm.pipeline.unet, "forward", lambda *_args, **_kwargs: hash([]))
    with (
        pytest.raises(InvalidModel, match=r"fails: TypeError: unhashable type: 'list' .raised in "),
        _errors(ddpm),
    ):
        ddpm.pipeline(num_inference_steps=1)
