"""A script that runs `qdx verify` with a function of a test's own behind it."""

from __future__ import annotations

__all__ = ["verify_script"]


def verify_script(work: str) -> str:
    """The script; when the function ends, however it does, it prints `clean`.

    Args:
        work: Python that defines `work`, the function; `signal`, `sys` and `time` are there.
    """
    # A shell's background job ignores the interrupt from the start, and so would this process.
    return f"""
import signal, sys, time
from types import ModuleType
signal.signal(signal.SIGINT, signal.default_int_handler)
{work}
def verify(*given, **options):
    try:
        work()
    finally:
        print("clean", flush=True)
module = ModuleType("qdx.verification.verify")
module.verify = verify
sys.modules["qdx.verification.verify"] = module
from qdx.cli.main import main
sys.argv = ["qdx", "verify", "b", "--model", "m"]
main()
"""
