"""The next step after wrong usage that the parser of the command line finds."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from qdx.cli.json_options import pasteable

__all__ = ["usage_words"]

_NAMED: Final = re.compile(r"'?(--?[a-z-]+|[A-Z|]+)'?")
_POSSIBLE: Final = re.compile(r" \(Possible options: .*\)$|\. Did you mean .*\?$")
_JSON_OPTIONS: Final = ("--call", "--setup")
_CALL_NAMES: Final = {
    "--prompt": '{"prompt": "a cat"}',
    "--negative-prompt": '{"prompt": "a cat", "negative_prompt": "blurry"}',
    "--steps": '{"prompt": "a cat", "num_inference_steps": 20}',
    "--guidance": '{"prompt": "a cat", "guidance_scale": 7.5}',
    "--height": '{"prompt": "a cat", "height": 512, "width": 512}',
    "--width": '{"prompt": "a cat", "height": 512, "width": 512}',
}
"""What `qdx run` has options for, as arguments of a pipeline call."""
_MISSING: Final = {
    "--target": "add the target, such as --target openvino; `qdx targets` lists them",
    "--plan": "add the plan, such as --plan w8a8; `qdx plan check NAME` says what a preset does",
    "--output": "add -o and the name to write",
    "--model": "add --model and the diffusers pipeline folder, such as that from which a bundle was exported",
    "MODEL": "give the diffusers pipeline folder first, the one that holds model_index.json",
    "BUNDLE": "give the folder first that `qdx export` wrote",
    "REPORT": "give two reports, the earlier one first: `qdx report diff BEFORE AFTER`",
    "SHELL": "name the shell, such as `qdx completion bash`",
    "PLAN": "give a preset, such as w8a8, or a plan file; `qdx plan new -o FILE` writes one to start from",
}
_CHOICES: Final = re.compile(r"\. Choose from:\s+")
"""How the parser begins a list of values, of which it writes one on each line."""
_STEPS_OF_PLANS: Final = ("check", "show")


def usage_words(message: str, arguments: Sequence[str], context: Any) -> tuple[str, str]:
    """Returns what is wrong with a command line, and the next step.

    Args:
        message: Of the parser.
        arguments: The command line.
        context: The parser's own of the command at fault; None where there is none.
    """
    command = context.command_path if context is not None else "qdx"
    hint = _hint(message, arguments, context, command)
    message = re.sub(r",?\s*\n\s*", ", ", _CHOICES.sub(", expected one of ", message))
    message = message.replace("Input should be", "expected").replace("Value error, ", "")
    if hint is None:
        return message, f"try `{command} --help`"
    return _POSSIBLE.sub("", message), hint


def _hint(message: str, arguments: Sequence[str], context: Any, command: str) -> str | None:
    is_missing = message.startswith("Missing ")
    behind = "" if is_missing else message.partition(":")[2]
    named = _NAMED.search(behind or message.partition(" '")[2])
    name = named[1] if named else ""
    if message.startswith("Got unexpected extra argument"):
        return _extra(arguments, command, message)
    if is_missing:
        return _with_folder(_missing(name, arguments), command)
    if message.startswith("No such command"):
        return _no_command(message, arguments, context, command)
    if message.startswith("No such option"):
        return _no_option(name, context)
    return None


def _extra(arguments: Sequence[str], command: str, message: str) -> str | None:
    for option in _JSON_OPTIONS:
        if option in arguments:
            words = _until_option(arguments[arguments.index(option) + 1 :])
            if len(words) > 1 and words[0].lstrip("'\"")[:1] in {"{", "["}:
                line = pasteable(option, " ".join(words)) or f'{option} \'{{"prompt": "a cat"}}\''
                return f"put the JSON in single quotes, so that the shell leaves it whole: {line}"
    extra = message.partition("(s) (")[2].rstrip(")")
    if command.endswith(" run") and "--prompt" not in arguments and extra:
        return f"give it with --prompt {shlex.quote(extra)}"
    if command.endswith(" verify") and not {"--model", "--reference"} & set(arguments):
        first = next((one for one in arguments if f"{extra} ".startswith(f"{one} ")), extra)
        return f"did you mean --model {shlex.quote(first)}?"
    return _place_of(extra)


def _until_option(words: Sequence[str]) -> list[str]:
    """The words before the next option."""
    found: list[str] = []
    for word in words:
        if word.startswith("--") or word == "-o":
            break
        found.append(word)
    return found


def _place_of(name: str) -> str | None:
    """The option to which the name of a target or a preset belongs."""
    from qdx.exporter.plan.schema.load import list_presets
    from qdx.targets import list_targets

    for option, names in (("--target", list_targets()), ("--plan", list_presets())):
        if name in names:
            return f"did you mean {option} {name}?"
    return None


def _missing(name: str, arguments: Sequence[str]) -> str | None:
    if name in {"--target", "--plan"}:
        bare = [_place_of(word) for word in arguments if not word.startswith("-")]
        fitting = next((hint for hint in bare if hint is not None and name in hint), None)
        if fitting is not None:
            return fitting
    return _MISSING.get(name)


def _with_folder(hint: str | None, command: str) -> str | None:
    """A hint, and how to name a folder that is called like the command of reports that was taken instead."""
    name = command.rpartition(" ")[2]
    if " report " not in command or not Path(name).is_dir():
        return hint
    place = f"the folder {name} is meant with `qdx report ./{name}`"
    return place if hint is None else f"{hint}; {place}"


def _no_command(message: str, arguments: Sequence[str], context: Any, command: str) -> str | None:
    wrong = message.partition("'")[2].partition("'")[0]
    names = sorted(getattr(getattr(context, "command", None), "commands", {}))
    if wrong == "help":
        return f"did you mean `{' '.join([command, *_named(arguments, context)])} --help`?"
    if wrong == "version" and command == "qdx":
        return "did you mean `qdx --version`?"
    near = difflib.get_close_matches(wrong, names, n=1)
    if near:
        return f"did you mean `{command} {near[0]}`?"
    if command.endswith(" plan") and _place_of(wrong) is not None:
        lines = " or ".join(f"`{command} {step} {wrong}`" for step in _STEPS_OF_PLANS)
        return f"did you mean {lines}?"
    return f"the commands are {', '.join(names)}" if names and arguments else None


def _named(arguments: Sequence[str], context: Any) -> list[str]:
    """The command that stands behind the word `help`, and the one inside it."""
    found: list[str] = []
    group = getattr(context, "command", None)
    for word in arguments[list(arguments).index("help") + 1 :]:
        group = getattr(group, "commands", {}).get(word)
        if group is None:
            break
        found.append(word)
    return found


def _no_option(name: str, context: Any) -> str | None:
    known = {option for one in getattr(getattr(context, "command", None), "params", ()) for option in one.opts}  # fmt: skip
    if name in _CALL_NAMES and "--call" in known:
        return f"arguments of the pipeline go into --call '{_CALL_NAMES[name]}'"
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {near[0]}?" if near else None
