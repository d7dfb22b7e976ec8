"""The published JSON Schema is that of the models."""

from __future__ import annotations

from pathlib import Path

import qdx.exporter.plan
from qdx.exporter.files import dump_json
from qdx.exporter.plan.schema import json_schema

PUBLISHED = Path(qdx.exporter.plan.__file__).with_name("plan.schema.json")


def test_the_published_schema_is_current():
    current = dump_json(json_schema())

    assert current == PUBLISHED.read_bytes(), (
        "run `qdx plan schema > exporter/plan/plan.schema.json`"
    )


def test_the_schema_forbids_unknown_keys_everywhere():
    schema = json_schema()

    assert all(
        part["additionalProperties"] is False for part in (schema, *schema["$defs"].values())
    )
