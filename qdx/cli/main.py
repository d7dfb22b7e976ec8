"""The entry point: commands, and every failure as one readable message with its exit status.

0    done
1    a gate failed
2    wrong usage, invalid plan, model or bundle
3    the target cannot do what the plan asks
4    a runtime is not installed
5    reading or writing failed, or memory will not do
70   a defect of qdx
130  interrupted (143: terminated)
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Final, NoReturn

import typer
from typer.main import get_command

from qdx._version import __version__
from qdx.backends.registry import is_any_loaded
from qdx.cli import (
    analyze,
    bench,
    build,
    cache,
    calibrate,
    cautions,
    completion,
    doctor,
    export,
    inspect,
    interruption,
    plan,
    report,
    run,
    targets,
    verbosity,
    verify,
)
from qdx.cli.complete import ASKED, answer
from qdx.cli.help_pages import HelpGroup, with_sections
from qdx.cli.output import alert
from qdx.cli.usage import usage_words
from qdx.cli.verbosity import Quiet, Verbose, everywhere
from qdx.exporter.errors import QdxError, quoted

__all__ = ["app", "main", "run_command"]

_STORAGE: Final = 5
_DEFECT: Final = 70
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141
_TERMINATED: Final = 143

# No command uses the network or runs code that a model brings along; the libraries are told so too.
_ENVIRONMENT: Final = {
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
# PyTorch takes large tensors from pages of 2 MiB where Linux offers them: a fault for each of 4 KiB costs a tenth of
# the time of a large model.
_PAGES: Final = {"THP_MEM_ALLOC_ENABLE": "1"}
# Their words are about themselves, not about the pipeline at hand.
_QUIET: Final = {"DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}

app: Final = typer.Typer(
    name="qdx",
    cls=HelpGroup,
    help="Turns any diffusers pipeline, one precision plan and a target into verified artifacts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: readable without colour, and no time spent on drawing.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("export")(export.command)
app.command("analyze")(analyze.command)
app.command("calibrate")(calibrate.command)
app.command("build")(build.command)
app.command("verify")(verify.command)
app.command("run")(run.command)
app.command("bench")(bench.command)
app.command("inspect")(inspect.command)
app.command("targets")(targets.command)
app.command("doctor")(doctor.command)
app.command("completion")(completion.command)
app.add_typer(report.app, name="report")
app.add_typer(plan.app, name="plan")
app.add_typer(cache.app, name="cache")
with_sections(app)
for _command in (
    *app.registered_commands,
    *report.app.registered_commands,
    *plan.app.registered_commands,
    *cache.app.registered_commands,
):
    if _command.callback is not None:
        _command.callback = everywhere(_command.callback)
cache.app.callback()(everywhere(cache.show))
plan.app.callback()(everywhere(plan.begin))
report.app.callback()(everywhere(report.begin))


def _show_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"qdx {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001  # its callback has answered
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[  # noqa: ARG001  # read before anything is parsed
        bool,
        typer.Option("--debug", envvar="QDX_DEBUG", help="Show tracebacks and library warnings."),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    verbosity.choose(quiet=quiet, verbose=verbose)


def main() -> NoReturn:
    """Runs the command line of this process and leaves with its exit status."""
    interruption.install()
    status = run_command(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = _BROKEN_PIPE
    if status == _BROKEN_PIPE:
        # The interpreter flushes again on its way out, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not is_any_loaded():
        # Python would look for cycles among all that PyTorch has made, for more than a second.
        gc.freeze()
    sys.exit(status)


def run_command(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit status; raises nothing."""
    debug = "--debug" in arguments or os.environ.get("QDX_DEBUG", "") not in {"", "0"}
    os.environ.update(_ENVIRONMENT)  # no setting of the user's weakens it
    for name, value in (_PAGES if debug else _PAGES | _QUIET).items():
        os.environ.setdefault(name, value)
    verbosity.reset()
    if arguments[:1] == [ASKED]:
        return _complete(arguments[1:], debug=debug)
    try:
        with interruption.interruptible(), warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            cautions.show()
            status = app(list(arguments), prog_name="qdx", standalone_mode=False)
    except BaseException as failure:  # noqa: BLE001 - the last line of defence
        if debug and not isinstance(failure, typer.TyperException):
            traceback.print_exception(failure)
        return _report(failure, arguments)
    if status == _INTERRUPTED:  # the parser catches the exception and returns its status
        alert("interrupted")
    return status if isinstance(status, int) else 0


def _complete(words: Sequence[str], *, debug: bool) -> int:
    """Tells a shell what fits; says nothing else, for it would stand in the middle of what is being typed."""
    try:
        root = get_command(app)
        assert isinstance(root, HelpGroup)
        sys.stdout.write(answer(root, words))
        sys.stdout.flush()
    except BaseException as failure:  # noqa: BLE001 - whatever it is, nobody can read it there
        if debug:
            traceback.print_exception(failure)
        return _DEFECT
    return 0


def _report(failure: BaseException, arguments: Sequence[str]) -> int:
    """Says what went wrong and returns the exit status."""
    match failure:
        case QdxError():
            _say_error(str(failure))
            return failure.exit_code
        case typer.TyperException():
            return _report_usage(failure, arguments)
        case KeyboardInterrupt():
            alert("interrupted")
            return _INTERRUPTED
        case interruption.Terminated():
            alert("terminated")
            return _TERMINATED
        case SystemExit() if isinstance(failure.__context__, BrokenPipeError):
            return _BROKEN_PIPE  # the parser catches the exception and leaves with 1
        case SystemExit():
            return failure.code if isinstance(failure.code, int) else _DEFECT
        case BrokenPipeError():
            return _BROKEN_PIPE
        case OSError():
            where = quoted(failure.filename) if failure.filename else "input or output"
            _say_error(f"{where}: {failure.strerror or failure}")
            return _STORAGE
        case MemoryError():
            _say_error("memory ran out", "free memory, or work on fewer components at a time")
            return _STORAGE
        case _:
            kind, words = type(failure).__name__, str(failure).strip()
            first = quoted(words.splitlines()[0]) if words else "no message"
            _say_error(
                f"a defect of qdx: {kind}: {first}",
                "please report it with what `qdx --debug ...` prints for the same command",
            )
            return _DEFECT


def _report_usage(failure: typer.TyperException, arguments: Sequence[str]) -> int:
    """Wrong usage, found by the parser."""
    message = failure.format_message()
    if message.startswith("Usage:"):  # no command given: the message is the help
        alert(message)
        return failure.exit_code
    context = getattr(failure, "ctx", None)
    _say_error(*usage_words(message.rstrip("."), arguments, context))
    return 2


def _say_error(message: str, hint: str | None = None) -> None:
    alert(f"error: {message}" if hint is None else f"error: {message}\n\nhint: {hint}")
