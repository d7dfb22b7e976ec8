"""A bundle refuses sizes that it does not generate before it computes, in pixels."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from qdx.bundle.manifest import Manifest, SizesRecord
from qdx.exporter.errors import UsageError
from qdx.runtime.call_check import check_size
from qdx.runtime.methods import WrongShape
from qdx.runtime.sizes import refuse_other_calls
from tests.support.bundles import MANIFEST


def manifest(shapes: str = "static", call: dict[str, Any] | None = None, **sizes: int) -> Manifest:
    return Manifest.model_construct(
        **{
            **MANIFEST,
            "components": {},
            "shapes": shapes,
            "call": call or {},
            "sizes": SizesRecord(**sizes),
        }
    )


@pytest.mark.parametrize(
    "call",
    [{}, {"height": 64}, {"width": 96, "height": None}, {"height": 64, "width": 96}, {"height": 100, "width": 70},
     {"height": [64, 72]}],
    ids=str,
)  # fmt: skip
def test_the_size_of_the_export_is_taken(call: dict[str, Any]) -> None:
    check_size(manifest(height=64, width=96, call={"height": 100, "width": 70}), call)


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        ({"height": 128, "width": 128}, "128x128"),
        ({"width": 64}, "64x64"),
        ({"height": 96}, "96x96"),
    ],
)
def test_another_size_is_refused_in_pixels(call: dict[str, Any], asked: str) -> None:
    with pytest.raises(UsageError, match=f"generates 96x64 pixels, {asked} was requested"):
        check_size(manifest(height=64, width=96), call)


def test_open_sizes_are_multiples_where_graphs_are_right_for_those_alone() -> None:
    opened = manifest("dynamic", height=64, width=64, unit=64)
    check_size(opened, {"height": 128, "width": 192})
    check_size(manifest("dynamic", height=64, width=64), {"height": 72, "width": 72})

    with pytest.raises(UsageError, match="multiples of 64 pixels: 64, 128, 192 and so on; 72x72"):
        check_size(opened, {"height": 72, "width": 72})


class Pipeline:
    """What draws nothing, or fails where its artifact would."""

    def __call__(self, prompt: str, height: int | None = None, width: int | None = None) -> str:
        if prompt == "large":
            raise WrongShape("`unet.forward`: shape [1]", hint="export again", is_size=True)
        return f"{prompt} {height} {width}"


def test_a_pipeline_refuses_before_it_computes_and_stays_what_it_is() -> None:
    pipeline = Pipeline()
    refuse_other_calls(pipeline, manifest(height=64, width=96))  # type: ignore[arg-type]

    assert pipeline("fox", 64, width=96) == "fox 64 96"
    assert isinstance(pipeline, Pipeline)
    assert type(pipeline).__name__ == "Pipeline"
    assert list(inspect.signature(pipeline.__call__).parameters) == ["prompt", "height", "width"]
    with pytest.raises(UsageError, match="96x128 was requested"):
        pipeline("fox", 128)


def test_a_size_that_an_artifact_does_not_take_is_said_in_pixels() -> None:
    pipeline = Pipeline()
    refuse_other_calls(pipeline, manifest(height=64, width=96))  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="generates 96x64 pixels: `unet") as raised:
        pipeline("large")

    assert "height=64 and width=96" in (raised.value.hint or "")
