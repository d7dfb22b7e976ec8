"""What a name that is not known may have meant: another spelling, a usual name for the same, or a name nearby."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

__all__ = ["meant"]


def meant(
    name: str, known: Sequence[str], aliases: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Returns the known names that a name may have meant, the likeliest first; none where there is no telling.

    >>> meant("W8_A8", ["w8", "w8a8"], {"int8": ("w8", "w8a8")})
    ('w8a8',)

    Args:
        name: As the user wrote it.
        known: The names that there are.
        aliases: Usual names for some of them, in small letters without marks.
    """
    bare = _bare(name)
    spelled = {_bare(one): one for one in known}
    if bare in spelled:
        return (spelled[bare],)
    usual = tuple(one for one in aliases.get(bare, ()) if one in known)
    return usual or tuple(spelled[one] for one in difflib.get_close_matches(bare, spelled, n=1))


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
