"""The published JSON Schema is that of the models."""

from __future__ import annotations

from pathlib import Path

import qdx.exporter.plan
from qdx.exporter.files import dump_json
from qdx.exporter.plan.schema.plan import json_schema

PUBLISHED = Path(qdx.exporter.plan.schema.__file__).with_name("plan.schema.json")


def test_the_published_schema_is_current():
    current = dump_json(json_schema())

    assert current == PUBLISHED.read_bytes(), (
        "run `qdx plan schema > exporter/plan/schema/plan.schema.json`"
    )


def test_the_schema_forbids_unknown_keys_everywhere():
    schema = json_schema()

    assert all(
        part["additionalProperties"] is False for part in (schema, *schema["$defs"].values())
    )


def test_every_key_is_described_to_editors():
    schema = json_schema()
    parts = {"Plan": schema, **schema["$defs"]}
    bare = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, value in part["properties"].items()
        if not value.get("description", "").endswith(".")
    ]

    assert bare == []


def test_the_words_are_those_of_the_models():
    options = json_schema()["$defs"]["Options"]["properties"]

    assert options["bias_correction"]["description"] == (
        "Add the mean error of each quantized operation's output to its bias."
    )
