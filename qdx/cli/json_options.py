"""Options that take JSON or a file of it: read strictly, and where that fails, the line to paste instead."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

from qdx.exporter.capture.call_kinds import check_kinds
from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import load_json, near_path, parse_json, read_text
from qdx.exporter.limits import JSON_LIMIT_BYTES
from qdx.exporter.meant_json import meant_json
from qdx.exporter.strict_json import one_line_json, parse_json_list

__all__ = ["pasteable", "read_call", "read_setup"]

_CALL: Final[str] = "--call"
_SETUP: Final[str] = "--setup"
_EXAMPLES: Final = {
    _CALL: {"prompt": "a cat", "num_inference_steps": 20},
    _SETUP: [{"enable_vae_tiling": {}}],
}
_KINDS: Final[dict[str, type]] = {_CALL: dict, _SETUP: list}
_NOUNS: Final = {_CALL: "a JSON object", _SETUP: "a JSON list"}
_FILE_NAME: Final = re.compile(r"\S*[/\\]\S*|\S+\.[A-Za-z0-9]{1,5}")
_ASSIGNMENT: Final = re.compile(r"([a-z_]{1,64})\s*=\s*(.+)", re.DOTALL)
_SHELL: Final = "put the JSON in single quotes; a shell that drops the double quotes inside, such as PowerShell, is given a file instead: "


def read_call(text: str | None) -> dict[str, Any] | None:
    """Returns the arguments given with `--call`, or None.

    Raises:
        InvalidInput: Neither a JSON object nor a file that holds one.
        UsageError: An argument is of a kind that no pipeline takes.
    """
    if text is None:
        return None
    call = _call(text)
    check_kinds(call)
    return call


def _call(text: str) -> dict[str, Any]:
    if _is_file(text, _CALL):
        return load_json(Path(text), error=InvalidInput)
    try:
        return parse_json(text, source=_CALL, error=InvalidInput)
    except InvalidInput as bad:
        raise _with_line(bad, _CALL, text) from None


def read_setup(text: str | None) -> list[dict[str, Any]]:
    """Returns the methods given with `--setup`.

    Raises:
        InvalidInput: Neither a JSON list nor a file that holds one.
        UsageError: It is no list of methods.
    """
    from qdx.exporter.capture.setup import check_setup

    if text is None:
        return []
    if _is_file(text, _SETUP):
        found = parse_json_list(
            read_text(Path(text), JSON_LIMIT_BYTES, error=InvalidInput),
            source=text,
            error=InvalidInput,
        )
    else:
        try:
            found = parse_json_list(text, source=_SETUP, error=InvalidInput)
        except InvalidInput as bad:
            raise _with_line(bad, _SETUP, text) from None
    return [dict(step) for step in check_setup(found)]


def pasteable(option: str, text: str) -> str | None:
    r"""Returns an option with its value as a shell takes it, from a value that is nearly right; None where unknown.

    >>> pasteable("--call", "{'prompt': 'a cat',}")
    '--call \'{"prompt": "a cat"}\''
    """
    if option not in _KINDS:
        return None
    meant = meant_json(text)
    if option == _SETUP and isinstance(meant, dict):
        meant = [{name: given} for name, given in meant.items()]
    return f"{option} {_shell(meant)}" if isinstance(meant, _KINDS[option]) else None


def _is_file(text: str, option: str) -> bool:
    """Whether a value names a file that is there, rather than holding JSON.

    Raises:
        InvalidInput: It is neither.
    """
    bare = text.strip()
    if bare[:1] in {"{", "["} or (bare[:1] in set("'\"") and bare[1:].lstrip()[:1] in {"{", "["}):
        return False
    if not bare:
        raise InvalidInput(
            f"{option}: is empty, expected {_NOUNS[option]} or a file",
            hint=f"for example {option} {_shell(_EXAMPLES[option])}; or leave it out",
        )
    if _exists(text):
        if Path(text).is_dir():
            raise InvalidInput(
                f"{option}: {quoted(text)} is a folder, expected {_NOUNS[option]} or a file",
                hint=f"give a file in it, or for example {option} {_shell(_EXAMPLES[option])}",
            )
        return True
    if _FILE_NAME.fullmatch(bare):
        raise InvalidInput(
            f"{quoted(text)}: not found, expected a file", hint=_near_file(Path(text), option)
        )
    raise InvalidInput(
        f"{option}: {quoted(text)} is neither {_NOUNS[option]} nor a file that is there",
        hint=f"give {option} {_shell(_guessed(bare, option))}",
    )


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a name, or with NUL
        return False


def _near_file(path: Path, option: str) -> str:
    """What a name of a file may have meant, or what to do without one."""
    near = near_path(path)
    if near is not None:
        return f"did you mean {shlex.quote(str(near))}?"
    return f"JSON text goes here too: {option} {_shell(_EXAMPLES[option])}"


def _guessed(text: str, option: str) -> Any:
    """What words that are no JSON may have meant."""
    if option == _SETUP:
        return [{text: {}}] if text.isidentifier() else _EXAMPLES[_SETUP]
    assigned = _ASSIGNMENT.fullmatch(text)
    name, value = (assigned[1], assigned[2]) if assigned else ("prompt", text)
    if assigned and (number := meant_json(f"[{value}]")) is not None and len(number) == 1:
        return {name: number[0]}
    return {name: value.strip("'\"")} if value.strip("'\"") else _EXAMPLES[_CALL]


def _with_line(bad: InvalidInput, option: str, text: str) -> InvalidInput:
    """The error of a value of JSON, its hint the line to paste."""
    line = pasteable(option, text)
    if line is None and option == _CALL and isinstance(listed := meant_json(text), list) and listed:
        line = f"{option} {_shell({'prompt': listed})}"
    if line is None:
        example = f"for example {option} {_shell(_EXAMPLES[option])}"
        return InvalidInput(bad.message, hint=f"{bad.hint}; {example}" if bad.hint else example)
    if not {'"', "'"} & set(text):  # a shell has taken the quotes
        line = f"{line}\n{_SHELL}{option} FILE"
    return InvalidInput(bad.message, hint=f"give {line}")


def _shell(value: Any) -> str:
    return shlex.quote(one_line_json(value))
