"""The catalogue `registry.yaml`: which plugins exist, and a card for every model.

It is data, never code: what is *installed* is known from entry points (`seqgen.plugins`); the
registry knows what *exists*, so that naming a plugin that is not installed can be answered with
the command that installs it. A card says what a model is, where its files lie, whose work it is,
under which licence, and how far it has been tested.

    schema: 1
    plugins:
      speech: {summary: ..., distribution: seqgen-kit, extra: speech, default_model: speech-tiny}
    models:
      speech-tiny:
        plugin: speech
        files: [{package: seqgen_speech, path: assets/speech-tiny.safetensors, sha256: ...}]
        status: verified

Cards come from three places, later ones adding to earlier ones: `registry.yaml`, the files named
by `$SEQGEN_REGISTRY` (separated as in $PATH), and the plugins' hook `seqgen_cards`. Where the
files of a card lie on this machine is the business of `seqgen.weights`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files as package_files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from seqgen.errors import CheckpointError, ConfigError, UsageError, did_you_mean
from seqgen.located_yaml import LocatedDict, build, parse_yaml

SCHEMA = 1
Status = Literal["verified", "converter-tested", "untested"]
"""`verified`: its published or measured numbers were reproduced with these very files.
`converter-tested`: loading was checked against the original code on other weights of the same
layout. `untested`: neither."""


@dataclass(frozen=True, kw_only=True)
class CardFile:
    """One file of a model: shipped inside a package, or downloaded when asked.

    Attributes:
        package, path: a resource of an installed package.
        name, urls: the name in the cache and where it can be fetched, tried in order.
        sha256: 64 hexadecimal digits.
        size: bytes; 0 if not known.
    """

    sha256: str
    size: int = 0
    package: str = ""
    path: str = ""
    name: str = ""
    urls: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        return self.name or Path(self.path).name


@dataclass(frozen=True, kw_only=True)
class Licence:
    """SPDX names, or a sentence where there is none."""

    code: str = ""
    weights: str = ""
    data: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Whose work it is: `paper` (arXiv id), `repo` (owner/name), `commit`, `page`."""

    paper: str = ""
    repo: str = ""
    commit: str = ""
    page: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One model.

    Attributes:
        name: what `--model` takes.
        plugin: the plugin that runs it.
        config: architecture settings, in the plugin's own terms.
        decoder: the default `--decoder`; empty for the domain's default.
        files: the files it needs; `obtain` says how to get them when it lists none.
        convert: `module:function` that turns upstream keys into ours.
        metrics: measured figures, by the field's names.
        path: set when the card was made from a file or folder of the user's (`--model PATH`).
        origin: file and line of the card.
    """

    name: str
    plugin: str
    status: Status
    summary: str = ""
    base: str = ""
    override: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    decoder: str = ""
    files: tuple[CardFile, ...] = ()
    obtain: str = ""
    convert: str = ""
    licence: Licence = Licence()
    source: Source = Source()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""
    path: Path | None = None
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class PluginEntry:
    """A plugin that exists, installed or not."""

    name: str
    summary: str = ""
    distribution: str = "seqgen-kit"
    extra: str = ""
    default_model: str = ""

    @property
    def install_command(self) -> str:
        extra = f"[{self.extra}]" if self.extra else ""
        return f"pip install '{self.distribution}{extra}'"


@dataclass(frozen=True)
class Registry:
    """The plugins and cards that are known. Make one with `Registry.load()`."""

    plugins: Mapping[str, PluginEntry]
    models: Mapping[str, Card]

    @classmethod
    def load(cls, extra: Iterable[Traversable] = ()) -> Registry:
        """`registry.yaml`, then `$SEQGEN_REGISTRY`, then `extra` (the plugins' card files).

        Raises:
            ConfigError: a file is missing or wrong; names file, line and key.
        """
        sources: list[Traversable] = [_own_file()]
        sources += [Path(p) for p in os.environ.get("SEQGEN_REGISTRY", "").split(os.pathsep) if p]
        sources += extra
        return cls.from_files(sources)

    @classmethod
    def from_files(cls, sources: Iterable[Traversable]) -> Registry:
        """Read card files in order; a name met twice needs `override: true` the second time."""
        plugins: dict[str, PluginEntry] = {}
        models: dict[str, Card] = {}
        for source in sources:
            _read_into(source, plugins, models)
        return cls(plugins, models)

    def card(self, name: str, *, plugin: str | None = None) -> Card:
        """The card of a name, or a card made from a path (a checkpoint file or folder).

        Args:
            name: `--model`. A known name wins over a file of that name; write `./name` then.
            plugin: the plugin in use; required for a path, checked for a name.

        Raises:
            UsageError: unknown name, or a model of another plugin.
            CheckpointError: it looks like a path and nothing is there.
        """
        if name in self.models:
            card = self.models[name]
            if plugin is not None and card.plugin != plugin:
                raise UsageError(
                    f"model {name!r} belongs to the plugin {card.plugin!r}, not {plugin!r}",
                    fix=f"--plugin {card.plugin}, or a model of `seqgen models --plugin {plugin}`",
                )
            return card
        if Path(name).exists():
            if plugin is None:
                raise UsageError(f"{name} is a path, so the plugin must be named too")
            return card_from_path(Path(name), plugin=plugin)
        known = [c.name for c in self.models.values() if plugin in (None, c.plugin)]
        if os.sep in name or Path(name).suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt"):
            raise CheckpointError(
                f"no model at {name}",
                why="there is no such file or folder",
                fix="give the path of a .safetensors file or of a checkpoint folder, or one of: "
                + (", ".join(known) or "none is known for this plugin"),
            )
        raise UsageError(
            f"unknown model {name!r}",
            why="it is neither the name of a model nor a path that exists here",
            fix=did_you_mean(name, known),
        )

    def default_card(self, plugin: str) -> Card:
        """The model that `--plugin NAME` runs when none is named.

        It is the plugin's `default_model`, else its first card.
        """
        entry = self.plugins.get(plugin)
        if entry is not None and entry.default_model:
            return self.card(entry.default_model, plugin=plugin)
        for card in self.models.values():
            if card.plugin == plugin:
                return card
        raise UsageError(
            f"the plugin {plugin!r} has no model of its own",
            fix="--model PATH of a checkpoint, or train one: "
            f"seqgen train --plugin {plugin} --help",
        )


def card_from_path(path: Path, *, plugin: str) -> Card:
    """A card for a file or folder that no registry knows; `Domain.build` looks inside it."""
    return Card(
        name=str(path),
        plugin=plugin,
        status="untested",
        summary="from a path",
        path=path.resolve(),
        origin=str(path),
    )


def _own_file() -> Traversable:
    # In a checkout the copy inside the package goes stale (wheels only are rebuilt), so the file
    # at the repository root comes first.
    here = Path(__file__).resolve()
    root = here.parents[2] / "registry.yaml"
    if here.parents[1].name == "core" and root.is_file():
        return root
    return package_files("seqgen") / "registry.yaml"


def _read_into(
    source: Traversable, plugins: dict[str, PluginEntry], models: dict[str, Card]
) -> None:
    file = str(source)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the registry file {file}", why=str(error)) from error
    document = parse_yaml(text, file=file)
    for key in document:
        if key not in ("schema", "plugins", "models"):
            fix = did_you_mean(key, ("schema", "plugins", "models"))
            raise ConfigError(f"{document.where(key)}: unknown key {key!r}", fix=fix)
    if document.get("schema") != SCHEMA:
        raise ConfigError(
            f"{document.where('schema')}: schema {document.get('schema')!r} is not supported",
            fix=f"schema: {SCHEMA}",
        )
    for name, data in _section(document, "plugins"):
        if name in plugins:
            raise ConfigError(f"{data.where()}: the plugin {name!r} is listed already")
        plugins[name] = build(PluginEntry, data, where=data.where(), given={"name": name})
    for name, data in _section(document, "models"):
        card = _card(name, data, models)
        if name in models and not card.override:
            raise ConfigError(
                f"{card.origin}: there is already a model {name!r}",
                why=f"the other one is at {models[name].origin}",
                fix="choose another name, or say `override: true` in the later card",
            )
        models[name] = card


def _section(document: LocatedDict, key: str) -> list[tuple[str, LocatedDict]]:
    section = document.get(key)
    if section is None:
        return []
    if not isinstance(section, LocatedDict):
        raise ConfigError(f"{document.where(key)}: {key!r} must be a mapping of names")
    found = []
    for name, data in section.items():
        if not isinstance(data, LocatedDict):
            raise ConfigError(f"{section.where(name)}: {name!r} must be a mapping")
        data.line = section.lines[name]
        found.append((name, data))
    return found


def _card(name: str, data: LocatedDict, models: Mapping[str, Card]) -> Card:
    where = data.where()
    base_name = data.get("base", "")
    own = LocatedDict(data.file, data.line)
    own.update(data)
    own.lines.update(data.lines)
    base = None
    if base_name:
        base = models.get(str(base_name))
        if base is None:
            raise ConfigError(
                f"{data.where('base')}: base {base_name!r} is not a model listed before",
                fix=did_you_mean(str(base_name), models),
            )
        own.setdefault("plugin", base.plugin)
    given = {"name": name, "path": None, "origin": where}
    card = build(Card, own, where=where, given=given)
    if base is not None:
        card = _inherit(card, base, set(data))
    for file in card.files:
        _check_file(file, data)
    return card


def _inherit(card: Card, base: Card, stated: set[str]) -> Card:
    # Not summary, metrics, notes or status: what is said of one model holds for that one only.
    taken: dict[str, Any] = {}
    for key in ("decoder", "files", "obtain", "convert"):
        if key not in stated:
            taken[key] = getattr(base, key)
    taken["config"] = {**base.config, **card.config}
    for key in ("licence", "source"):
        mine, theirs = getattr(card, key), getattr(base, key)
        empty = [name for name, value in vars(mine).items() if not value]
        taken[key] = replace(mine, **{name: getattr(theirs, name) for name in empty})
    return replace(card, **taken)


def _check_file(file: CardFile, data: LocatedDict) -> None:
    where = data.where("files")
    shipped, fetched = bool(file.package and file.path), bool(file.name and file.urls)
    if shipped == fetched:
        raise ConfigError(f"{where}: a file needs either package and path, or name and urls")
    if Path(file.filename).name != file.filename or ".." in Path(file.path).parts:
        raise ConfigError(f"{where}: {file.name or file.path!r} must not leave its folder")
    digits = file.sha256.lower()
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ConfigError(
            f"{where}: sha256 of {file.filename!r} must be 64 hexadecimal digits",
            fix=f"sha256sum {file.filename}",
        )
