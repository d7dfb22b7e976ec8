"""Bundles that the Swift package of ml-stable-diffusion loads: its names, shapes and types, and PyTorch's numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.reader import read_package
from qdx.bench.contenders import read_contenders
from qdx.bundle import read_bundle
from qdx.cli.inspect import describe_bundle
from qdx.compile.export import export
from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.rewrites.forms import apply, to_artifact
from qdx.runtime.pipeline import _all_fields, open_methods
from qdx.source.pipeline import trace_pipeline
from qdx.targets import load_target
from qdx.verification.verify import verify
from tests.support import tiny
from tests.support.tracing import sqnr_db

IDS = {"input_ids": ("float32", (1, 77))}
UNET_XL = {"text_embeds": ("float16", (2, 24)), "time_ids": ("float16", (2, 6))}


def unet(channels: int) -> dict[str, Any]:
    return {
        "sample": ("float16", (2, 4, 8, 8)),
        "timestep": ("float16", (2,)),
        "encoder_hidden_states": ("float16", (2, channels, 1, 77)),
    }


def text(name: str, channels: int) -> dict[str, Any]:
    return {name: ("float32", (1, 77, channels)), "pooled_outputs": ("float32", (1, channels))}


NOISE = {"noise_pred": ("float32", (2, 4, 8, 8))}
IMAGE = {"image": ("float32", (1, 3, 64, 64))}
# What the package reads, at the widths of the tiny pipelines, whose autoencoders are float32 by their configuration.
EXPECTED = {
    "sd-img2img": {
        "TextEncoder": (IDS, text("last_hidden_state", 32)),
        "Unet": (unet(32), NOISE),
        "VAEDecoder": ({"z": ("float32", (1, 4, 8, 8))}, IMAGE),
        "VAEEncoder": (
            {"x": ("float32", (1, 3, 64, 64))},
            {"latent": ("float32", (1, 8, 8, 8))},
        ),
    },
    "sdxl": {
        "TextEncoder": (IDS, text("hidden_embeds", 32)),
        "TextEncoder2": (IDS, text("hidden_embeds", 24)),
        "Unet": ({**unet(56), **UNET_XL}, NOISE),
        "VAEDecoder": ({"z": ("float32", (1, 4, 8, 8))}, IMAGE),
    },
    "sd3": {
        "TextEncoder": (IDS, text("hidden_embeds", 32)),
        "TextEncoder2": (IDS, text("hidden_embeds", 24)),
        "MultiModalDiffusionTransformer": (
            {
                "latent_image_embeddings": ("float32", (2, 8, 8, 8)),
                "timestep": ("float32", (2,)),
                "token_level_text_embeddings": ("float32", (2, 64, 1, 154)),
                "pooled_text_embeddings": ("float32", (2, 56, 1, 1)),
            },
            {"noise_pred": ("float32", (2, 8, 8, 8))},
        ),
        "VAEDecoder": ({"z": ("float32", (1, 8, 8, 8))}, IMAGE),
    },
}
CHOSEN = {"sd3": ["text_encoder", "text_encoder_2", "transformer", "vae"]}
LONG = {"sd3": {"max_sequence_length": 77}}


def arguments(family: str) -> dict[str, Any]:
    return {**tiny.FAMILIES[family].arguments(), **LONG.get(family, {})}


def exported(family: str, model: Path, output: Path, **options: Any) -> Path:
    export(
        model,
        target="coreml",
        plan="float16",
        output=output,
        call=arguments(family),
        components=CHOSEN.get(family),
        layout="swift",
        **options,
    )
    return output


@pytest.fixture(
    scope="module",
    params=[
        "sd-img2img",
        pytest.param("sdxl", marks=pytest.mark.slow),
        pytest.param("sd3", marks=pytest.mark.slow),
    ],
)
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """The family, its model and its bundle."""
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny.build(request.param, folder / "model")
    return request.param, model, exported(request.param, model, folder / "bundle")


def test_packages_have_the_names_shapes_and_types_of_the_contract(
    made: tuple[str, Path, Path],
) -> None:
    family, _, bundle = made
    found = {}
    for path in (bundle / "Resources").glob("*.mlpackage"):
        program = read_package(path)
        found[path.stem] = tuple(
            {spec.name: (spec.dtype, spec.shape) for spec in specs}
            for specs in (program.inputs, program.outputs)
        )

    assert found == EXPECTED[family]


def test_packages_compute_what_the_unadapted_components_compute(
    made: tuple[str, Path, Path],
) -> None:
    family, model, bundle = made
    source = trace_pipeline(model, arguments(family), components=CHOSEN.get(family))
    manifest = read_bundle(bundle).manifest

    for where, record in source.chosen.items():
        entry = manifest.components[record.component].methods[record.key]
        graph = source.graph(where, load_target("coreml"))
        inputs = inputs_of(graph)
        program = read_package(bundle / str(entry.artifact))
        specs = {spec.name: spec for spec in graph.inputs}
        fed = {}
        for port in entry.inputs:
            tensor = inputs[port.argument]
            if port.form is not None:
                tensor = apply(to_artifact(port.form, specs[port.argument].shape, 2), tensor)
            fed[port.name] = tensor.to(getattr(torch, port.dtype)).numpy()
        results = Interpreter(program).run(fed)
        expected = run(graph, inputs)
        for port in entry.outputs:
            # Tiny random weights round to 52 to 63 dB in float16, in either layout alike.
            assert sqnr_db(expected[port.field], results[port.name]) > 50, (where, port.name)


def inputs_of(graph: Any) -> dict[str, torch.Tensor]:
    """Seeded inputs that float16 holds exactly."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for spec in graph.inputs:
        dtype = getattr(torch, spec.dtype)
        if spec.name == "timestep":
            found[spec.name] = torch.full(spec.shape, 981, dtype=dtype)
        elif not dtype.is_floating_point:
            found[spec.name] = torch.randint(3, 400, spec.shape, generator=generator, dtype=dtype)
        else:
            found[spec.name] = torch.randn(spec.shape, generator=generator).half().to(dtype)
    return found


def test_the_vocabulary_is_the_tokenizer_s(made: tuple[str, Path, Path]) -> None:
    from transformers import CLIPTokenizer

    _, model, bundle = made
    resources = bundle / "Resources"
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")

    assert json.loads((resources / "vocab.json").read_text()) == tokenizer.get_vocab()
    assert (resources / "merges.txt").read_bytes() == (bundle / "tokenizer/merges.txt").read_bytes()
    assert len((resources / "merges.txt").read_text().splitlines()) > 2


def test_the_manifest_lists_everything_and_inspect_shows_it(
    made: tuple[str, Path, Path],
) -> None:
    family, _, path = made
    bundle = read_bundle(path)
    described = describe_bundle(bundle)

    assert bundle.manifest.layout == described["layout"] == "swift"
    assert {Path(folder).stem for one in described["components"] for folder in one["folders"]} == (
        set(EXPECTED[family])
    )
    assert all(one["size_bytes"] > 20_000 for one in described["components"])


def test_it_is_verified_here_as_the_application_calls_it(made: tuple[str, Path, Path]) -> None:
    _, model, bundle = made
    report = verify(bundle, model=model)
    least = {result.where: min(call.sqnr_db for call in result.calls) for result in report.methods}

    # Tiny random weights round to 52 to 63 dB in float16, in either layout alike.
    assert {where for where, found in least.items() if not found > 50} == set()
    assert report.pipeline.psnr_db > 35


@pytest.mark.slow  # by default, halves are tested where they are made
def test_the_unet_in_two_halves_computes_what_it_does_whole(
    made: tuple[str, Path, Path], tmp_path: Path
) -> None:
    family, model, whole = made
    if family == "sd3":
        with pytest.raises(UsageError, match="takes every package of StableDiffusion3Pipeline"):
            exported(family, model, tmp_path / "halves", halves=True)
        return
    bundle = exported(family, model, tmp_path / "halves", halves=True)
    names = {path.stem for path in (bundle / "Resources").glob("*.mlpackage")}
    generator = torch.Generator().manual_seed(0)
    methods = [open_methods(read_bundle(path))["unet.forward"] for path in (whole, bundle)]
    inputs = {
        port.argument: torch.randn(spec.shape, generator=generator)
        for port, spec in zip(methods[0].inputs, plain_unet(model, family), strict=True)
    }
    one, other = (method(inputs)["sample"] for method in methods)

    assert names == set(EXPECTED[family]) - {"Unet"} | {"UnetChunk1", "UnetChunk2"}
    assert one.equal(other)

    described = {
        one["component"]: one for one in describe_bundle(read_bundle(bundle))["components"]
    }
    assert {Path(folder).stem for folder in described["unet"]["folders"]} == {
        "UnetChunk1",
        "UnetChunk2",
    }


def plain_unet(model: Path, family: str) -> Any:
    """The inputs of the UNet as it was traced."""
    source = trace_pipeline(model, arguments(family), components=["unet"])
    return source.graph("unet.forward", load_target("coreml")).inputs


def test_halves_are_of_a_layout(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--halves"):
        export(tmp_path, target="coreml", plan="float16", output=tmp_path / "out", halves=True)


def test_what_the_application_does_not_read_is_no_number() -> None:
    template = {"first": torch.zeros(2), "second": torch.zeros(3)}
    made = _all_fields(template, {"second": torch.ones(3)})

    assert made[0].isnan().all()
    assert made[1].equal(torch.ones(3))


def test_timing_it_here_is_refused(made: tuple[str, Path, Path]) -> None:
    with pytest.raises(UsageError, match="layout `swift`") as refused:
        read_contenders([str(made[2])])

    assert "without --layout" in str(refused.value)


@pytest.mark.slow
def test_same_pipeline_same_bytes(tmp_path: Path, made: tuple[str, Path, Path]) -> None:
    family, model, first = made
    again = exported(family, model, tmp_path / "again")

    assert (again / "qdx.json").read_bytes() == (first / "qdx.json").read_bytes()


def test_the_script_is_executable_and_nothing_else(made: tuple[str, Path, Path]) -> None:
    files = [path for path in made[2].rglob("*") if path.is_file() and os.access(path, os.X_OK)]

    assert [path.name for path in files] == ["compile.sh"]


def test_other_pipelines_are_refused_before_anything_is_traced(tmp_path: Path) -> None:
    model = tiny.build("ddpm", tmp_path / "model")

    with pytest.raises(TargetRefusal, match=r"`DDPMPipeline`.*StableDiffusion3Pipeline"):
        export(model, target="coreml", plan="float16", output=tmp_path / "out", layout="swift")


@pytest.mark.parametrize(
    ("family", "changed", "words"),
    [
        ("sd", {"guidance_scale": 1.0}, r"sample: has shape \[1, 4, 8, 8\], expected \[2, 4"),
        pytest.param("sd3", {}, "third encoder", marks=pytest.mark.slow),
    ],
)
def test_calls_that_the_package_does_not_make_are_refused(
    tmp_path: Path, family: str, changed: dict[str, Any], words: str
) -> None:
    model = tiny.build(family, tmp_path / "model")

    with pytest.raises(TargetRefusal, match=words) as refused:
        export(
            model,
            target="coreml",
            plan="float16",
            output=tmp_path / "out",
            call={**arguments(family), **changed},
            layout="swift",
        )

    assert refused.value.hint is not None
    assert not (tmp_path / "out").exists()


def test_open_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fixed sizes"):
        export(
            tmp_path,
            target="coreml",
            plan="float16",
            output=tmp_path / "out",
            shapes="dynamic",
            layout="swift",
        )
