"""The commands of the command line."""

from __future__ import annotations

COMMANDS = [
    (),
    ("export",),
    ("calibrate",),
    ("analyze",),
    ("build",),
    ("verify",),
    ("report",),
    ("report", "show"),
    ("report", "diff"),
    ("report", "index"),
    ("run",),
    ("bench",),
    ("inspect",),
    ("targets",),
    ("plan",),
    ("plan", "new"),
    ("plan", "check"),
    ("plan", "show"),
    ("plan", "search"),
    ("plan", "import"),
    ("plan", "schema"),
    ("cache",),
    ("cache", "clear"),
    ("completion",),
    ("doctor",),
]
