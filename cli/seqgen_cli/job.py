"""What `run`, `eval` and `compare` have in common: their options, and what these resolve to.

A `Request` is what the user typed. `resolve` turns it into a `Job`: plugin, model card, decoder and
typed options, everything checked that can be checked without reading an input or importing torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqgen import options as option_values
from seqgen.errors import ConfigError, UsageError, did_you_mean
from seqgen_cli.console import note
from seqgen_cli.threads import HELP as THREADS_HELP
from seqgen_cli.threads import use_threads

if TYPE_CHECKING:
    from seqgen.domain import Domain, DomainInfo
    from seqgen.registry import Card

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64", "int8")
CONFIG_KEYS = (
    "plugin", "model", "decoder", "seed", "device", "dtype", "compile", "batch_size", "options",
)  # fmt: skip
_WEIGHT_SUFFIXES = (
    ".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".json", ".yaml", ".yml", ".txt", ".mvn",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """The common options as typed; None where nothing was said."""

    plugin: str
    inputs: tuple[str, ...]
    model: str | None
    sets: tuple[str, ...]
    config: str | None
    seed: int | None
    device: str | None
    dtype: str | None
    compile: bool | None
    batch_size: int | None
    limit: int | None
    threads: int | None
    debug: bool


@dataclass(frozen=True)
class Job:
    """A resolved request."""

    plugin: str
    domain: Domain[Any]
    info: DomainInfo
    card: Card
    decoder: str
    options: Any
    seed: int
    device: str
    dtype: str
    compile: bool
    batch_size: int
    limit: int | None
    sources: tuple[str, ...]
    is_example: bool

    def settings(self) -> dict[str, Any]:
        """The part of the job that determines results, JSON-able; a valid `--config` file."""
        return {
            "plugin": self.plugin,
            "model": self.card.name,
            "decoder": self.decoder,
            "seed": self.seed,
            "device": self.device,
            "dtype": self.dtype,
            "compile": self.compile,
            "batch_size": self.batch_size,
            "options": option_values.to_json(self.options),
        }

    def checksums(self) -> dict[str, str]:
        """sha256 of the model's files: those of the card, or of what lies at its path."""
        if self.card.path is None:
            return {file.filename: file.sha256.lower() for file in self.card.files}
        path = self.card.path
        files = [path] if path.is_file() else sorted(path.iterdir())
        return {
            file.name: _sha256(file)
            for file in files
            if file.is_file() and (file == path or file.suffix in _WEIGHT_SUFFIXES)
        }

    def build(self, threads: int | None) -> Any:
        """The model, on its device. Imports torch.

        Raises:
            UsageError: the device is not there.
            CheckpointError: files are missing or damaged.
            ConfigError: the model cannot be held in 8 bits, or not be compiled.
        """
        import torch

        from seqgen.preparation import prepare

        use_threads(threads)
        device = torch.device(resolve_device(self.device))
        # Results that must repeat to the byte want full precision unless the user says otherwise.
        int8 = self.dtype == "int8"
        dtype = getattr(torch, "float32" if int8 or self.dtype == "auto" else self.dtype)
        model = self.domain.build(self.card, device, dtype)
        prepare(model, int8=int8, compile=self.compile)
        return model


def job_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the common options to a command; it gets them as its first argument, a `Request`."""

    @functools.wraps(function)
    def command(**params: Any) -> None:
        names = [field.name for field in dataclasses.fields(Request)]
        function(Request(**{name: params.pop(name) for name in names}), **params)

    wrapped: Callable[..., None] = command
    for decorate in reversed(_DECORATORS):
        wrapped = decorate(wrapped)
    return wrapped


_DECORATORS: tuple[Callable[[Any], Any], ...] = (
    click.argument("inputs", nargs=-1, metavar="[INPUT]..."),
    click.option("--plugin", required=True, metavar="P", help="The domain (`seqgen plugins`)."),
    click.option("--model", metavar="CARD|PATH", help="A model card's name, or a checkpoint."),
    click.option(
        "--set", "sets", multiple=True, metavar="K=V", help="An option of the plugin; repeatable."
    ),
    click.option(
        "--config", metavar="FILE", help="YAML with these settings; the command line wins."
    ),
    click.option("--seed", type=int, metavar="N", help="Seed of the run.  [default: 0]"),
    click.option("--device", metavar="D", help="auto, cpu, cuda, cuda:1, mps.  [default: auto]"),
    click.option(
        "--dtype",
        metavar="T",
        help="auto (float32), bfloat16, float16, float64; int8: 8-bit weights, on a CPU.",
    ),
    click.option(
        "--compile/--no-compile",
        default=None,
        help="Fuse the decoding passes of small models; that takes seconds for each number of "
        "rows and slots.  [default: no-compile]",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Most pieces decoded together.  [default: the plugin's]",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="Take the first N items only."
    ),
    click.option("--threads", type=click.IntRange(min=1), metavar="N", help=THREADS_HELP),
    click.option("--debug", is_flag=True, help="Show tracebacks."),
)


def resolve(request: Request, *, decoder: str | None) -> Job:
    """Check a request and fill in the defaults: command line, then file, then card, then plugin.

    Raises:
        SeqgenError: a name, value or file is wrong; with the exit code of its kind.
    """
    from seqgen.plugins import Plugins

    file = read_config(request.config)
    if file.get("plugin", request.plugin) != request.plugin:
        raise ConfigError(
            f"{request.config} is for the plugin {file['plugin']!r}, not {request.plugin!r}",
            fix=f"--plugin {file['plugin']}, or another file",
        )
    plugins = Plugins()
    info = plugins.info(request.plugin)
    domain = plugins.domain(request.plugin)
    registry = plugins.registry(request.plugin)
    model = request.model or file.get("model")
    owner = card_owner(request.plugin)
    card = registry.card(model, plugin=owner) if model else registry.default_card(owner)
    device = request.device or str(file.get("device", "auto"))
    check_device(device)
    return Job(
        plugin=request.plugin,
        domain=domain,
        info=info,
        card=card,
        decoder=check_decoder(
            decoder or file.get("decoder") or card.decoder or _own_decoder(domain, card, info),
            info,
        ),
        options=option_values.parse(domain.options, request.sets, file.get("options")),
        seed=request.seed if request.seed is not None else _whole(file, "seed", 0),
        device=device,
        dtype=check_dtype(request.dtype or str(file.get("dtype", "auto"))),
        compile=_flag(file, "compile") if request.compile is None else request.compile,
        batch_size=request.batch_size or _whole(file, "batch_size", info.batch_size),
        limit=request.limit,
        sources=request.inputs or tuple(domain.example()),
        is_example=not request.inputs,
    )


def _own_decoder(domain: Domain[Any], card: Card, info: DomainInfo) -> str:
    from seqgen.domain import DecoderOfFile

    own = domain.default_decoder(card) if isinstance(domain, DecoderOfFile) else ""
    return own or info.default_decoder


def note_example(job: Job, doing: str) -> None:
    """Say what a command without INPUT works on."""
    from seqgen.domain import WithoutInput

    if not job.is_example:
        return
    if isinstance(job.domain, WithoutInput):
        note(f"no INPUT given: {job.domain.without_input(job.options)}")
    else:
        note(f"no INPUT given: {doing} the example shipped with {job.plugin}")


def read_config(path: str | None) -> Mapping[str, Any]:
    """The mapping in a `--config` file.

    Raises:
        ConfigError: it cannot be read, is not a mapping, or has an unknown key.
    """
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the configuration {path}", why=str(error)) from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping", fix="for example:\nseed: 3")
    for key in content:
        if key not in CONFIG_KEYS:
            raise ConfigError(
                f"{path}: unknown key {key!r}",
                fix=f"{did_you_mean(str(key), CONFIG_KEYS)} What --set takes goes under `options:`",
            )
    if not isinstance(content.get("options", {}), dict):
        raise ConfigError(f"{path}: `options` must hold a mapping")
    return content


def check_decoder(name: str, info: DomainInfo) -> str:
    """The name itself.

    Raises:
        UsageError: the domain has no such decoder.
    """
    if name not in info.decoders:
        raise UsageError(
            f"{info.name} has no decoder {name!r}", fix=did_you_mean(name, info.decoders)
        )
    return name


def named_decoders(text: str | None, info: DomainInfo) -> list[str]:
    """The decoders of `--decoders a,b`, each once; all of the domain if it is not given.

    Raises:
        UsageError: the domain has no such decoder, or none is named.
    """
    named = list(info.decoders) if text is None else text.split(",")
    names = list(dict.fromkeys(name.strip() for name in named if name.strip()))
    for name in names:
        check_decoder(name, info)
    if not names:
        raise UsageError("--decoders names no decoder", fix="--decoders a,b")
    return names


def check_device(name: str) -> None:
    """Raise `UsageError` unless it names a kind of device; whether it is there, `build` sees."""
    kind, colon, number = name.partition(":")
    known = ("auto", "cpu", "cuda", "mps")
    if kind not in known or (colon and not number.isdigit()):
        raise UsageError(f"unknown device {name!r}", fix=did_you_mean(kind, known))


def check_dtype(name: str) -> str:
    """The name itself.

    Raises:
        UsageError: it is none of `DTYPES`.
    """
    if name not in DTYPES:
        raise UsageError(f"unknown dtype {name!r}", fix=did_you_mean(name, DTYPES))
    return name


def resolve_device(name: str) -> str:
    """`auto` as what this machine has; any other name checked. Imports torch.

    Raises:
        UsageError: there is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind == "mps" and not torch.backends.mps.is_available():
        count = 0
    if count == 0:
        raise UsageError(f"there is no {kind} device on this machine", fix="--device cpu")
    if number and int(number) >= count:
        raise UsageError(
            f"there is no device {name!r} on this machine", fix=f"{kind}:0 to {kind}:{count - 1}"
        )
    return name


def card_owner(plugin: str) -> str:
    """The name by which cards know a plugin: without distribution and domain."""
    return plugin.partition("/")[0].rpartition(":")[2]


def _whole(file: Mapping[str, Any], key: str, default: int) -> int:
    value = file.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key} must be a whole number, not {value!r}")
    if key == "batch_size" and value < 1:
        raise ConfigError(f"batch_size must be at least 1, not {value}")
    return value


def _flag(file: Mapping[str, Any], key: str) -> bool:
    value = file.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, not {value!r}")
    return value


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
