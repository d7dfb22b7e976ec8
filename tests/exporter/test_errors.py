from __future__ import annotations

import pytest

from qdx.exporter import errors
from qdx.exporter.errors import QdxError, Refusal, TargetRefusal, quoted

EXIT_CODES = {
    "QdxError": 70,
    "UsageError": 2,
    "InvalidInput": 2,
    "InvalidPlan": 2,
    "InvalidTarget": 2,
    "InvalidModel": 2,
    "InvalidBundle": 2,
    "TargetRefusal": 3,
    "RuntimeMissing": 4,
    "StorageError": 5,
    "InsufficientMemory": 5,
    "InternalError": 70,
}


def test_exit_codes_are_the_documented_ones():
    classes = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, QdxError)
    }
    assert classes == EXIT_CODES


def test_tree_at_the_top_of_the_module_names_every_class_and_code():
    for name, code in EXIT_CODES.items():
        line = next(line for line in errors.__doc__.splitlines() if f" {name}" in line)
        if name not in {"InvalidPlan", "InvalidTarget", "InvalidModel", "InvalidBundle"}:
            assert f" {code}" in line


def test_message_without_hint():
    assert str(QdxError("`a`: got 1, expected 2")) == "`a`: got 1, expected 2"


def test_message_with_hint():
    error = QdxError("`a`: got 1, expected 2", hint="use 2")
    assert str(error) == "`a`: got 1, expected 2\n\nhint: use 2"
    assert (error.message, error.hint) == ("`a`: got 1, expected 2", "use 2")


def test_refusals_are_listed_in_order():
    refusals = (Refusal("unet.conv_in", "no int4"), Refusal("vae", "no float8", hint="float16"))
    error = TargetRefusal("2 sites refused", refusals=refusals, hint="another target")
    assert error.refusals == refusals
    assert str(error) == (
        "2 sites refused\n  `unet.conv_in`: no int4\n  `vae`: no float8\n\nhint: another target"
    )


def test_refusals_with_the_same_reason_share_a_line():
    refusals = tuple(Refusal(f"unet.{name}", "no int4") for name in "abcde")
    refusals = (*refusals[:2], Refusal("vae", "no float8"), *refusals[2:])
    error = TargetRefusal("6 refused", refusals=refusals)
    assert error.refusals == refusals
    assert str(error) == (
        "6 refused\n  `unet.a`, `unet.b`, `unet.c` and 2 more: no int4\n  `vae`: no float8"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain/Pfad/é.json", "`plain/Pfad/é.json`"),
        ("a\x1b[2Jb", r"`a\x1b[2Jb`"),
        ("a\nb", r"`a\nb`"),
        ("a\u202eb", r"`a\u202eb`"),
        ("a\ud800b", r"`a\ud800b`"),
        ("a`b", "`a'b`"),
        ("\x00", r"`\x00`"),
    ],
)
def test_foreign_text_is_made_safe_for_a_terminal(text, shown):
    assert quoted(text) == shown
    quoted(text).encode("utf-8")


def test_long_foreign_text_keeps_both_ends():
    shown = quoted("a" * 10_000 + "/weights.json")
    assert len(shown) < 300
    assert shown.startswith("`aaa")
    assert shown.endswith("/weights.json`")
