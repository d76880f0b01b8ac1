"""Options that come in pairs, `--hold/--release`: a command that is given both is refused, where click goes by the last."""

from __future__ import annotations

from typing import Any

import typer.core

from schemas.errors import InputError


class Commands(typer.core.TyperGroup):
    """The commands of `overnight`; raises InputError for both names of a pair."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments begin with, and the rest of them."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            require_one_way(command, rest)
        return name, command, rest


def require_one_way(command: Any, arguments: list[str]) -> None:
    """Raise InputError where arguments hold both names of an option, such as --hold and --release."""
    given = set(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    for option in command.params:
        on, off = given.intersection(option.opts), given.intersection(option.secondary_opts)
        if on and off:
            raise InputError(f"{min(on)} and {min(off)} are given together: leave one of them out.")
