"""A group of commands of which one is meant where none is named: `qdx report DIR` is `qdx report show DIR`."""

from __future__ import annotations

from typing import Any, ClassVar

from qdx.cli.help_pages import HelpGroup

__all__ = ["GroupWithDefault"]


class GroupWithDefault(HelpGroup):
    """The group. A first argument that is no name of a command begins the arguments of the default one."""

    default: ClassVar[str] = "show"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the name of the default command in front of arguments without one, behind the group's own flags."""
        flags = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        index = next((index for index, word in enumerate(args) if word not in flags), len(args))
        if index < len(args) and args[index] not in self.commands:
            args = [*args[:index], self.default, *args[index:]]
        return super().parse_args(ctx, args)
