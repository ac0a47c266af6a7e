"""The four hooks of a plugin. A hook only registers; the work sits in the plugin's `Domain`.

A plugin's entry point (group `seqgen.plugins`) is an object in a module that imports nothing heavy:

    class MinePlugin:
        api = 1

        @hookimpl
        def seqgen_domains(self):
            return [DomainInfo(name="mine", factory="my_package.domain:MineDomain", ...)]

    plugin = MinePlugin()

All hooks are optional. Start a plugin with `seqgen plugins new NAME`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Protocol

import pluggy

from seqgen.domain import DomainInfo

if TYPE_CHECKING:
    import click

PROJECT = "seqgen"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a method of the plugin object as the implementation of the hook of the same name."""


@dataclass(frozen=True)
class DecoderInfo:
    """A decoder for `seqgen decoders`: one of the core, or one that a plugin brings.

    Attributes:
        name: as in papers and in `--decoder`.
        summary: one sentence.
        factory: `module:Class` of the recipe; imported only when it is used.
        paper: where it comes from, for example an arXiv id.
    """

    name: str
    summary: str
    factory: str
    paper: str = ""


class SeqgenHooks(Protocol):
    """What a plugin may register. Each hook returns plain data; none may do work."""

    @hookspec
    def seqgen_domains(self) -> Sequence[DomainInfo]:
        """The domains it brings: what `--plugin` can name."""

    @hookspec
    def seqgen_decoders(self) -> Sequence[DecoderInfo]:
        """Decoders of its own, beyond those of the core, for any domain to use."""

    @hookspec
    def seqgen_cards(self) -> Sequence[Traversable]:
        """Files of model cards, in the form of `registry.yaml`."""

    @hookspec
    def seqgen_commands(self, cli: click.Group) -> None:
        """Add click commands to `cli`; they are called as `seqgen PLUGIN COMMAND`."""
