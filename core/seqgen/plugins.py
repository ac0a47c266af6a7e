"""Finding plugins, and loading one of them without trusting the others.

Plugins are entry points of the group `seqgen.plugins`. Listing them reads installed metadata and
imports nothing. A plugin is imported only when it is named, in a try of its own: one that is
broken stops the command that named it and no other. Two distributions that offer the same name
are never resolved silently; `dist:name` chooses.

    plugins = Plugins()
    plugins.installed()                # what is installed, nothing imported
    plugins.domain("speech")        # its Domain, imported now
    plugins.registry("speech")      # the model cards, its own included
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions
from typing import TYPE_CHECKING, Any

import pluggy

from seqgen.domain import API_VERSION, Domain, DomainInfo
from seqgen.errors import PluginError, SeqgenError, UsageError, did_you_mean
from seqgen.hookspecs import PROJECT, DecoderInfo, SeqgenHooks
from seqgen.registry import Registry

if TYPE_CHECKING:
    import click

GROUP = "seqgen.plugins"
OWN_DISTRIBUTION = "seqgen-kit"


@dataclass(frozen=True)
class PluginRef:
    """An installed plugin, not imported.

    Attributes:
        name: the entry point's name.
        value: `module:object`.
        distribution, version: who installed it.
        summary: the distribution's own one-line description.
        disabled: named in `$SEQGEN_DISABLE_PLUGINS`.
    """

    name: str
    value: str
    distribution: str
    version: str
    summary: str = ""
    disabled: bool = False

    @property
    def full_name(self) -> str:
        """`dist:name`, which is unique where `name` is not."""
        return f"{self.distribution}:{self.name}"


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin that was imported; what its hooks registered."""

    ref: PluginRef
    domains: tuple[DomainInfo, ...]
    manager: pluggy.PluginManager

    def decoders(self) -> tuple[DecoderInfo, ...]:
        return tuple(_flat(self.manager.hook.seqgen_decoders()))

    def cards(self) -> tuple[Any, ...]:
        return tuple(_flat(self.manager.hook.seqgen_cards()))


class Plugins:
    """The plugins installed in this environment.

    Args:
        disabled: names, or `dist:name`s, that must not be loaded; by default those in
            `$SEQGEN_DISABLE_PLUGINS`, separated by commas.
    """

    def __init__(self, *, disabled: Iterable[str] | None = None) -> None:
        if disabled is None:
            disabled = os.environ.get("SEQGEN_DISABLE_PLUGINS", "").split(",")
        blocked = {name.strip() for name in disabled} - {""}
        self._refs = [
            PluginRef(name, value, dist, version, summary, bool(blocked & {name, f"{dist}:{name}"}))
            for name, value, dist, version, summary in _entry_points()
        ]
        self._loaded: dict[str, LoadedPlugin] = {}

    def installed(self) -> list[PluginRef]:
        """All installed plugins by name, disabled ones and duplicates included."""
        return sorted(self._refs, key=lambda ref: (ref.name, ref.distribution))

    def find(self, name: str) -> PluginRef:
        """The installed plugin of a name, or of `dist:name`. Imports nothing.

        Raises:
            UsageError: no such plugin exists, or it is disabled.
            PluginError: it exists but is not installed, or two distributions offer it.
        """
        matches = [ref for ref in self._refs if name in (ref.name, ref.full_name)]
        enabled = [ref for ref in matches if not ref.disabled]
        if len(enabled) == 1:
            return enabled[0]
        if enabled:
            raise PluginError(
                f"{len(enabled)} installed distributions offer a plugin {name!r}",
                why=" and ".join(f"{r.distribution} {r.version} ({r.value})" for r in enabled),
                fix=f"--plugin {' or --plugin '.join(r.full_name for r in enabled)}; "
                "or pip uninstall one of them",
            )
        if matches:
            raise UsageError(
                f"the plugin {name!r} is disabled",
                why="it is named in $SEQGEN_DISABLE_PLUGINS",
                fix="unset SEQGEN_DISABLE_PLUGINS",
            )
        raise self._unknown(name)

    def load(self, name: str) -> LoadedPlugin:
        """Import one plugin, check its interface and ask what it registers.

        Raises:
            PluginError: it fails to import, speaks another interface or registers nonsense;
                names distribution, version, cause and the command that fixes it.
        """
        ref = self.find(name)
        if ref.full_name not in self._loaded:
            try:
                with redirect_stdout(sys.stderr):  # stdout is for results
                    self._loaded[ref.full_name] = _load(ref)
            except SeqgenError:
                raise
            except (Exception, SystemExit) as error:
                raise broken(ref, error) from error
        return self._loaded[ref.full_name]

    def load_each(self) -> tuple[list[LoadedPlugin], dict[str, SeqgenError]]:
        """Load all that can be loaded; the others' errors by `dist:name`."""
        loaded, errors = [], {}
        for ref in self.installed():
            if ref.disabled:
                continue
            try:
                loaded.append(self.load(ref.full_name))
            except SeqgenError as error:
                errors[ref.full_name] = error
        return loaded, errors

    def info(self, name: str) -> DomainInfo:
        """What a domain says of itself: that of `PLUGIN`, or of `PLUGIN/DOMAIN`.

        A plugin alone stands for its domain of the same name, or for its only one.
        """
        return self._info(name)[1]

    def domain(self, name: str) -> Domain[Any]:
        """Import a domain's class and make one.

        Raises:
            PluginError: a package it needs is missing (with the pip command), or it is broken.
        """
        ref, info = self._info(name)
        module_name, _, attribute = info.factory.partition(":")
        try:
            with redirect_stdout(sys.stderr):
                domain: Domain[Any] = getattr(importlib.import_module(module_name), attribute)()
        except SeqgenError:
            raise
        except ModuleNotFoundError as error:
            raise missing_package(error, ref, info) from error
        except (Exception, SystemExit) as error:
            raise broken(ref, error) from error
        return domain

    def registry(self, name: str | None = None) -> Registry:
        """The model cards, with those of one plugin, or of every plugin that loads.

        Raises:
            ConfigError: a registry file is wrong.
        """
        if name is not None:
            return Registry.load(self.load(_plugin_part(name)).cards())
        loaded, _ = self.load_each()
        return Registry.load([file for plugin in loaded for file in plugin.cards()])

    def add_commands(self, name: str, group: click.Group) -> None:
        """Let one plugin add its commands to a click group (`seqgen PLUGIN COMMAND`)."""
        plugin = self.load(name)
        try:
            plugin.manager.hook.seqgen_commands(cli=group)
        except SeqgenError:
            raise
        except (Exception, SystemExit) as error:
            raise broken(plugin.ref, error) from error

    def _info(self, name: str) -> tuple[PluginRef, DomainInfo]:
        plugin_name, _, wanted = name.partition("/")
        plugin = self.load(plugin_name)
        wanted = wanted or plugin.ref.name
        for info in plugin.domains:
            if info.name == wanted:
                return plugin.ref, info
        if "/" not in name and len(plugin.domains) == 1:
            return plugin.ref, plugin.domains[0]
        known = [f"{plugin_name}/{info.name}" for info in plugin.domains]
        raise UsageError(
            f"the plugin {plugin_name!r} has no domain {wanted!r}", fix=did_you_mean(name, known)
        )

    def _unknown(self, name: str) -> SeqgenError:
        installed = {ref.name for ref in self._refs}
        catalogue = Registry.load().plugins
        entry = catalogue.get(name)
        if entry is None:
            hint = did_you_mean(name, installed | set(catalogue))
            return UsageError(f"unknown plugin {name!r}", fix=f"{hint} `seqgen plugins` lists them")
        if entry.distribution == OWN_DISTRIBUTION and any(
            ref.distribution == OWN_DISTRIBUTION for ref in self._refs
        ):
            why = f"this installation of {OWN_DISTRIBUTION} is older than the plugin"
            return PluginError(
                f"the plugin {name!r} is not installed",
                why=why,
                fix=f"{entry.install_command} --upgrade, or in a checkout: pip install -e .",
            )
        return PluginError(f"the plugin {name!r} is not installed", fix=entry.install_command)


def broken(ref: PluginRef, error: BaseException) -> PluginError:
    """The error for a plugin that cannot be used: who, which version, why, and what to do."""
    if isinstance(error, SystemExit):
        cause = f"it called sys.exit({error.code!r}) while loading"
    else:
        cause = f"{type(error).__name__}: {error}"
    if ref.distribution == OWN_DISTRIBUTION:
        fix = f"pip install --force-reinstall --no-deps {OWN_DISTRIBUTION}"
    else:
        fix = f"pip install --upgrade {ref.distribution}, or pip uninstall {ref.distribution}"
    return PluginError(
        f"the plugin {ref.name!r} of {ref.distribution} {ref.version} is broken",
        why=cause,
        fix=f"{fix}; SEQGEN_DISABLE_PLUGINS={ref.name} hides it",
    )


def missing_package(error: ModuleNotFoundError, ref: PluginRef, info: DomainInfo) -> PluginError:
    """The error for a package that a domain needs: the pip line that installs it.

    A module of the plugin's own that is not there is not a missing package but a broken plugin.
    """
    missing = (error.name or "").partition(".")[0]
    if missing in ("", info.factory.partition(".")[0].partition(":")[0], "seqgen"):
        return broken(ref, error)
    if info.extra:
        fix = f"pip install '{ref.distribution}[{info.extra}]'"
    else:
        fix = f"pip install {missing}"
    return PluginError(
        f"the plugin {ref.name!r} needs the package {missing!r}",
        why="it is not installed in this environment",
        fix=fix,
    )


def _entry_points() -> list[tuple[str, str, str, str, str]]:
    found: dict[tuple[str, str], tuple[str, str, str, str, str]] = {}
    # Not entry_points(): it drops the distribution's metadata, and we want both of a duplicate.
    # The same distribution met again further down sys.path is shadowed by the first, as in import.
    for distribution in distributions():
        points = [p for p in distribution.entry_points if p.group == GROUP]
        for point in points:
            metadata = distribution.metadata
            dist = str(metadata["Name"])
            row = (point.name, point.value, dist, distribution.version, metadata["Summary"] or "")
            found.setdefault((dist.lower(), point.name), row)
    return list(found.values())


def _load(ref: PluginRef) -> LoadedPlugin:
    target = EntryPoint(ref.name, ref.value, GROUP).load()
    api = getattr(target, "api", None)
    if api != API_VERSION:
        newer = isinstance(api, int) and api > API_VERSION
        raise PluginError(
            f"the plugin {ref.name!r} of {ref.distribution} {ref.version} has api = {api!r}",
            why=f"this seqgen speaks api {API_VERSION}",
            fix=f"pip install --upgrade {OWN_DISTRIBUTION if newer else ref.distribution}",
        )
    # One manager for each plugin: a hook of one can then never run, or fail, for another.
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(SeqgenHooks)
    manager.register(target, name=ref.full_name)
    manager.check_pending()  # a hook whose name is misspelt would otherwise never be called
    domains = tuple(_flat(manager.hook.seqgen_domains()))
    for info in domains:
        if not isinstance(info, DomainInfo):
            raise TypeError(f"seqgen_domains must return DomainInfo objects, not {info!r}")
    return LoadedPlugin(ref, domains, manager)


def _flat(results: Sequence[Sequence[Any]]) -> Iterable[Any]:
    return (item for result in results for item in result)


def _plugin_part(name: str) -> str:
    return name.partition("/")[0]
