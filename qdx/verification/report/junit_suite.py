"""A test suite in JUnit's XML: how it is written, and the one of a bundle that could not be verified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qdx.exporter.errors import QdxError
from qdx.exporter.text.clean import escaped_html

__all__ = ["MARK", "properties_xml", "refusal_xml", "suite_xml"]

MARK: Final = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="qdx verify"'
"""How every file begins that is written here."""


def refusal_xml(bundle: Path, error: QdxError) -> bytes:
    """A suite of one case that is an error: the bundle could not be verified, so that nothing is proved.

    Args:
        bundle: Its folder, absolute; the way to it is left out of what is said, other places stay.
        error: Why.
    """
    above = f"{bundle.parent}/"
    told = error.message.replace(above, "")
    hint = f"\nhint: {error.hint.replace(above, '')}" if error.hint else ""
    head, text = escaped_html(told), escaped_html(told + hint)
    kind = escaped_html(type(error).__name__)
    case = (
        f'    <testcase classname="qdx.verify" name="{escaped_html(bundle.name)}">\n'
        f'      <error message="{head}" type="{kind}">{text}</error>\n    </testcase>\n'
    )
    return suite_xml("qdx.verify", [case], errors=1, properties={"bundle": bundle.name})


def suite_xml(
    name: str,
    cases: list[str],
    *,
    failures: int = 0,
    errors: int = 0,
    properties: Mapping[str, str],
    marks: Mapping[str, str] | None = None,
) -> bytes:
    """The whole file, of one suite.

    Args:
        name: Of the suite.
        cases: Each an element.
        failures: How many cases failed.
        errors: How many could not be run.
        properties: Of the suite, by name.
        marks: More attributes of the suite.
    """
    counts = f'tests="{len(cases)}" failures="{failures}" errors="{errors}" skipped="0"'
    more = "".join(f' {key}="{escaped_html(value)}"' for key, value in (marks or {}).items())
    return (
        f"{MARK} {counts}>\n"
        f'  <testsuite name="{escaped_html(name)}" {counts}{more}>\n'
        f"{properties_xml(properties, '    ')}{''.join(cases)}  </testsuite>\n"
        "</testsuites>\n"
    ).encode()


def properties_xml(values: Mapping[str, str], indent: str) -> str:
    """Properties of a suite or a case, each line behind an indent."""
    lines = "".join(
        f'{indent}  <property name="{escaped_html(name)}" value="{escaped_html(value)}"/>\n'
        for name, value in values.items()
    )
    return f"{indent}<properties>\n{lines}{indent}</properties>\n"
