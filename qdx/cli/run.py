"""`qdx run`: generate an image with an exported pipeline."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from qdx.cli.options import (
    SEED_LIMIT,
    AsJson,
    Bundle,
    Call,
    Device,
    Force,
    NoCache,
    read_call,
    user_cache,
)
from qdx.cli.output import emit, say
from qdx.cli.pictures import (
    check_names,
    check_output,
    expected_count,
    free_names,
    write_picture,
)
from qdx.cli.progress import progress_bars
from qdx.cli.verbosity import Verbosity, current
from qdx.exporter.capture.call_kinds import check_kinds, unknown_hint
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.capture.size_hints import size_hint
from qdx.exporter.errors import UsageError, first_line, quoted

__all__ = ["command"]

# What Python code raises when it is given values of a wrong kind; RuntimeError is torch's.
_WRONG_ARGUMENTS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_SIZE: Final = frozenset({"height", "width"})
"""Given together, or not at all."""
_OUTPUTS: Final = frozenset({"return_dict"})


def command(
    bundle: Bundle,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="IMAGE", help="Image to write: .png, .jpg, .webp."),
    ],
    prompt: Annotated[str | None, typer.Option("--prompt", help="What to draw.")] = None,
    negative_prompt: Annotated[
        str | None, typer.Option("--negative-prompt", help="What not to.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps.")] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=SEED_LIMIT, help="Seed of the noise.")
    ] = 0,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance scale.")] = None,
    height: Annotated[int | None, typer.Option("--height", min=1, help="In pixels.")] = None,
    width: Annotated[int | None, typer.Option("--width", min=1, help="In pixels.")] = None,
    call: Call = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The diffusers pipeline folder, for components that the bundle leaves out.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Processor threads of the runtime.")
    ] = None,
    device: Device = "cpu",
    no_cache: NoCache = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Generate an image with a bundle.

    Options not given default to the values used at export: steps, guidance, sizes and the like.
    """
    check_output(output)
    given = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "height": height,
        "width": width,
    }
    options = {name: value for name, value in given.items() if value is not None}
    arguments = (read_call(call) or {}) | options
    _check_size(arguments, options)
    check_names(output, expected_count(arguments), force=force)
    # The bundle is looked at before anything heavy is imported.
    from qdx.cli.early import check_bundle_and_model, check_call

    check_bundle_and_model(bundle, model)
    check_call(bundle, arguments)
    from qdx.backends.device_kernels import keeping_kernels
    from qdx.bundle.reader import read_bundle
    from qdx.cache.kernels import StoredKernels
    from qdx.exporter.capture.call_files import load_files
    from qdx.exporter.capture.media import call_parameters
    from qdx.exporter.devices import choose_device
    from qdx.runtime.pipeline import open_pipeline

    asked = arguments
    with progress_bars() as progress:
        computing = choose_device(device, progress.say)
        opened = read_bundle(bundle)
        with keeping_kernels(None if no_cache else StoredKernels(user_cache)):
            pipeline = open_pipeline(
                opened,
                model=model,
                threads=threads,
                device=computing,
                progress=progress,
            )
    _check_arguments(pipeline, arguments)
    arguments = load_files(arguments, call_parameters(pipeline))
    check_kinds(arguments, call_parameters(pipeline))
    exported = _as_exported(pipeline, opened.manifest.call, arguments)
    arguments |= exported
    check_names(output, expected_count(arguments), force=force)
    with _drawing(pipeline):
        images = _draw(pipeline, arguments, seed)
    _check_drawn(images, asked)
    paths = free_names(output, len(images), force=force)
    for image, path in zip(images, paths, strict=True):
        write_picture(image, path)
        say(f"wrote {path}")
    data = {"images": paths, "seed": seed, "call": asked | exported}
    emit(data, as_json=as_json, text="\n".join(map(str, paths)))


def _check_size(arguments: Mapping[str, Any], options: Collection[str]) -> None:
    """Refuses half a size: the other half would be the pipeline's own, which few would expect."""
    given = [name for name in ("height", "width") if arguments.get(name) is not None]
    if len(given) == 1:
        other = "width" if given == ["height"] else "height"
        words = (
            f"--{given[0]} is given without --{other}"
            if given[0] in options
            else f"--call: `{given[0]}` is given without `{other}`"
        )
        raise UsageError(words, hint="give both, in pixels")


def _as_exported(pipeline: Any, call: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The numbers of the export's call that are not given, which it says; what to draw is always given.

    A bundle of static shapes takes no others, and few pipelines' own defaults are those of the model.
    """
    taken = call_parameters(pipeline).keys() - given - _OUTPUTS
    if not taken & call.keys() >= _SIZE:
        taken -= _SIZE
    kept = {name: value for name, value in call.items() if name in taken and _is_numeric(value)}
    if kept:
        say("as exported: " + ", ".join(f"{name} {value}" for name, value in kept.items()))
    return kept


def _is_numeric(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return isinstance(value, bool | int | float)


def _check_arguments(pipeline: Any, arguments: dict[str, Any]) -> None:
    parameters = call_parameters(pipeline)
    unknown = sorted(arguments.keys() - parameters.keys())
    if unknown:
        name = type(pipeline).__name__
        raise UsageError(
            f"{name} has no argument {quoted(unknown[0])}",
            hint=unknown_hint(unknown[0], parameters),
        )
    if "generator" in arguments:
        raise UsageError("--call: `generator` cannot be written as JSON", hint="give --seed")
    if "prompt" not in parameters:
        return
    # Pipelines declare the prompt as optional only because its embedding may stand for it.
    needed = (
        parameters["prompt"].default is inspect.Parameter.empty or "prompt_embeds" in parameters
    )
    if needed and arguments.get("prompt") is None and arguments.get("prompt_embeds") is None:
        raise UsageError(
            f"{type(pipeline).__name__} needs --prompt", hint="add --prompt 'a red circle'"
        )


@contextmanager
def _drawing(pipeline: Any) -> Iterator[None]:
    """Shows the pipeline's own bar of steps on a terminal, and lines elsewhere."""
    if hasattr(pipeline, "set_progress_bar_config"):
        if sys.stderr.isatty() and current() is not Verbosity.QUIET:
            yield
            return
        pipeline.set_progress_bar_config(disable=True)
    with progress_bars() as progress, progress.task("drawing"):
        yield


def _draw(pipeline: Any, arguments: dict[str, Any], seed: int) -> list[Any]:
    """Calls the pipeline and returns its pictures."""
    from qdx.runtime.generate import call_pipeline

    try:
        result = call_pipeline(pipeline, arguments, seed=seed)
    except _WRONG_ARGUMENTS as error:
        reason = first_line(error)
        raise UsageError(
            f"{type(pipeline).__name__} rejects the call: {type(error).__name__}: {reason}",
            hint=size_hint(reason)
            or "check the types and the values of the arguments, also those of --call",
        ) from error
    images = getattr(result, "images", None)
    if not isinstance(images, list) or not all(hasattr(image, "save") for image in images):
        raise UsageError(
            f"{type(pipeline).__name__} returned no images with these arguments",
            hint="open the bundle in Python, `qdx.open(bundle)`, and call it there",
        )
    return images


def _check_drawn(images: list[Any], arguments: dict[str, Any]) -> None:
    """Refuses a picture of another size than was asked for: an artifact of static shapes may ignore it."""
    if arguments.get("height") is None:
        return
    asked = (arguments["width"], arguments["height"])
    for image in images:
        if image.size != asked:
            raise UsageError(
                f"{asked[0]}x{asked[1]} pixels were requested, "
                f"and the bundle generates {image.width}x{image.height}",
                hint="leave out --width and --height, or export for this size, or with --shapes dynamic where the target "
                "takes open sizes",
            )
