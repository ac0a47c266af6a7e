"""Every error seqgen raises on purpose: what happened, why, and how to fix it.

All derive from `SeqgenError`. The command line turns one into a single message and the exit code
of its class; a traceback appears only with `--debug`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class SeqgenError(Exception):
    """Base of all deliberate errors.

    Args:
        what: one sentence that names the thing (file, option, plugin) and what is wrong with it.
        why: the cause, when it is known and not obvious.
        fix: the exact command or value that puts it right.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"why: {self.why}")
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "\n  ".join(parts)


class InputError(SeqgenError):
    """One input item cannot be used; the other items go on."""


class UsageError(SeqgenError):
    """The command, an option or a name is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration value is unknown, of the wrong type or out of range."""


class PluginError(SeqgenError):
    """A plugin or a package it needs is missing or broken."""

    exit_code = 3


class CheckpointError(SeqgenError):
    """A checkpoint is missing, damaged, unsafe or does not fit the model."""

    exit_code = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt name: `did you mean 'x'? Known: a, b, c.`"""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names) if names else 'none'}."


def similar_path(path: Path) -> str:
    """What to do about a path that does not exist: the file beside it that was meant, perhaps."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return f"the folder {path.parent} does not exist either"
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"did you mean {path.parent / close[0]}?"
    return "check the path; a relative one counts from the current folder"
