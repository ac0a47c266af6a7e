"""Writes the parts of the documentation that come from the code, and checks that they are fresh.

    python docs/make_reference.py            rewrite them
    python docs/make_reference.py --check    exit with 1 if a page is not up to date

A page marks such a part with `<!-- generated: NAME -->` and `<!-- end: NAME -->`; NAME is a key
of `PARTS`. Figures of models live in `registry.yaml` and in benchmarks/results/.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent

_PART = re.compile(
    r"(?P<head><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<tail><!-- end: (?P=name) -->)",
    re.DOTALL,
)

SAMPLE_ROW: Mapping[str, Any] = {
    "id": "calls/monday",
    "status": "ok",
    "decoder": "paraformer",
    "model": "my-model",
    "seconds": None,
    "text": "good morning press one",
    "tokens": ["good", "morning", "press", "one"],
    "times": [[0.24, 0.48], [0.48, 0.96], [1.74, 2.1], [2.1, 2.46]],
    "confidences": [0.9871, 0.9912, 0.8734, 0.9967],
    "audio_seconds": 2.9,
}
"""Written by hand, to show the formats; no model said this."""


def render(page: str) -> str:
    """A page with its generated parts made anew."""
    return _PART.sub(lambda match: match["head"] + PARTS[match["name"]]() + match["tail"], page)


def commands() -> str:
    """The help text of every command, as a terminal of 80 columns shows it."""
    import click

    from seqgen.errors import PluginError
    from seqgen_cli.main import COMMANDS, cli

    def sections(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
        settings = {**command.context_settings, "terminal_width": 80, "max_content_width": 80}
        context = click.Context(command, parent, name, **settings)
        help_text = command.get_help(context).rstrip()
        yield f"### `{context.command_path}`\n\n```text\n{help_text}\n```\n"
        if not isinstance(command, click.Group):
            return
        for child_name in COMMANDS if command is cli else command.list_commands(context):
            try:
                child = command.get_command(context, child_name)
            except PluginError as error:
                print(f"left out: {error.what}", file=sys.stderr)
                continue
            assert child is not None
            yield from sections(child, child_name, context)

    return "\n" + "\n".join(sections(cli, "seqgen", None)) + "\n"


def decoders(plugin: str) -> str:
    """The decoders of a plugin, from its `DomainInfo`."""
    info = _info(plugin)
    rows = [
        (f"`{name}`{' (default)' if name == info.default_decoder else ''}", summary)
        for name, summary in info.decoders.items()
    ]
    return _table(("--decoder", "how it decodes"), rows)


def options(plugin: str) -> str:
    """The options of a plugin, from its dataclass."""
    from seqgen.options import describe
    from seqgen.plugins import Plugins

    rows = [
        (f"`{line.name}`", line.type.replace("|", ", "), f"`{line.default}`", line.help)
        for line in describe(Plugins().domain(plugin).options)
    ]
    return _table(("--set", "value", "default", "meaning"), rows)


def speech_formats() -> str:
    """A sample of each format."""
    import json

    from seqgen_speech.formats import to_srt, to_textgrid, to_txt, to_vtt

    row = SAMPLE_ROW
    samples = {
        "jsonl": json.dumps(row, ensure_ascii=False),
        "txt": to_txt([row]),
        "srt": to_srt(row),
        "vtt": to_vtt(row),
        "textgrid": to_textgrid(row),
    }
    assert list(samples) == list(_info("speech").formats)
    parts = [f"\n`{name}`:\n\n```text\n{text.rstrip()}\n```\n" for name, text in samples.items()]
    return "".join(parts) + "\n"


def training(plugin: str) -> str:
    """Presets and options of `seqgen train --plugin PLUGIN`."""
    from seqgen.options import describe
    from seqgen.plugins import Plugins

    presets = Plugins().domain(plugin).training().presets
    table = _table(
        ("--preset", "steps", "learning rate", "other than the defaults"),
        [
            (f"`{name}`", f"{fit.steps}", f"{fit.lr:g}", _changes(chosen))
            for name, (chosen, fit) in presets.items()
        ],
    )
    chosen, _ = next(iter(presets.values()))
    rows = [(f"`{line.name}`", f"`{line.default}`", line.help) for line in describe(type(chosen))]
    return table + "\n" + _table(("--set", "default", "meaning"), rows)


def speech_figures() -> str:
    """The measured figures of the speech models, from `registry.yaml`."""
    cards = [card for card in _own_cards() if card.plugin == "speech" and card.metrics]
    if not cards:
        return "\nNo card of this plugin states figures yet.\n\n"
    return "".join(f"\n`{card.name}`:\n{_figures(card.metrics)}" for card in cards)


def models(plugin: str = "") -> str:
    """The cards of `registry.yaml`, of one plugin or of all."""
    rows = [
        (f"`{card.name}`", card.plugin, card.status, card.licence.weights or "-", card.summary)
        for card in _own_cards()
        if plugin in ("", card.plugin)
    ]
    if not rows:
        return "\nNo card yet; `--model PATH` takes a checkpoint.\n\n"
    return _table(("model", "plugin", "status", "licence of the weights", "what it is"), rows)


def of_page(module: str, part: str) -> str:
    """A part that a module beside this one makes."""
    from importlib import import_module

    sys.path.insert(0, str(DOCS))
    try:
        maker = getattr(import_module(module), part)
    finally:
        sys.path.remove(str(DOCS))
    made: str = maker(_table)
    return made


peptides = partial(of_page, "reference_peptides")
speed = partial(of_page, "reference_speed")


def benchmark(name: str, *columns: str) -> str:
    """Some columns of a result in benchmarks/results/."""
    import json

    path = DOCS.parent / "benchmarks" / "results" / f"{name}.json"
    outcome = json.loads(path.read_text(encoding="utf-8"))
    about = outcome["machine"]
    rows = [[_number(row.get(column, "-")) for column in columns] for row in outcome["rows"]]
    peer = f", transformers {about['transformers']}" if "transformers" in about else ""
    head = f"\n{about['processor']}, one thread, torch {about['torch']}{peer}.\n"
    return head + _table(columns, rows)


PARTS: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "models": models,
    "speech-decoders": partial(decoders, "speech"),
    "speech-options": partial(options, "speech"),
    "speech-formats": speech_formats,
    "speech-training": partial(training, "speech"),
    "speech-figures": speech_figures,
    "peptides-bad-input": partial(peptides, "bad_input"),
    "peptides-formats": partial(peptides, "formats"),
    "peptides-decoders": partial(decoders, "peptides"),
    "peptides-options": partial(options, "peptides"),
    "peptides-residues": partial(peptides, "vocabulary"),
    "peptides-models": partial(models, "peptides"),
    "peptides-valid": partial(peptides, "valid"),
    "peptides-sets": partial(peptides, "sets"),
    "peptides-speed": partial(peptides, "speed"),
    "peptides-training": partial(training, "peptides"),
    "time-series-decoders": partial(decoders, "time-series"),
    "time-series-options": partial(options, "time-series"),
    "time-series-models": partial(models, "time-series"),
    "time-series-training": partial(training, "time-series"),
    "time-series-exact": partial(
        benchmark,
        "arnet_exact",
        "lags",
        "exact_ms",
        "exact_mb",
        "autoreg_ms",
        "autoreg_mb",
        "levinson_ms",
        "sgd_ms",
        "autoreg_over_exact",
    ),
    "time-series-sparse": partial(benchmark, "arnet_sparse", "case", "stpe", "sd", "paper"),
    "time-series-etth1": partial(
        benchmark, "etth1", "case", "mse", "mae", "naive_mse", "windows_a_column", "seconds"
    ),
    "time-series-coverage": partial(
        benchmark,
        "ts_coverage",
        "case",
        "series",
        "horizon",
        "arnet_raw",
        "arnet",
        "ts-small_raw",
        "ts-small",
    ),
    "time-series-neuralprophet": partial(
        benchmark, "neuralprophet_speed", "case", "mae", "cpu_s", "cpu_over_ours"
    ),
    "speed-decode": partial(speed, "decode"),
    "speed-loop": partial(
        benchmark,
        "loop_overhead",
        "case",
        "plain_ms",
        "core_model_ms",
        "autoregressive_ms",
        "loop_over_plain",
        "transformers_ms",
    ),
    "speed-growth": partial(speed, "growth"),
    "text-decoders": partial(decoders, "text"),
    "text-options": partial(options, "text"),
    "images-decoders": partial(decoders, "images"),
    "images-options": partial(options, "images"),
}


def _changes(chosen: Any) -> str:
    """The settings of a preset that are not the defaults."""
    from seqgen.options import to_json

    usual = to_json(type(chosen)())
    changed = {k: v for k, v in to_json(chosen).items() if v != usual[k]}
    shown = (f"`{name}={str(value).lower()}`" for name, value in changed.items())
    return " ".join(shown) or "-"


def _info(plugin: str) -> Any:
    from seqgen.plugins import Plugins

    return Plugins().info(plugin)


def _own_cards() -> list[Any]:
    from seqgen.registry import Registry

    return list(Registry.from_files([DOCS.parent / "registry.yaml"]).models.values())


def _figures(metrics: Mapping[str, Any]) -> str:
    """Plain figures as rows; a mapping (decoder -> figure, say) spreads over columns."""
    nested = {name: value for name, value in metrics.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in metrics.items() if name not in nested}
    text = ""
    if nested:
        columns = list(dict.fromkeys(key for value in nested.values() for key in value))
        rows = [
            (name, *(_number(value.get(column, "-")) for column in columns))
            for name, value in nested.items()
        ]
        text += _table(("", *columns), rows)
    if plain:
        text += _table(("", "figure"), [(name, _number(value)) for name, value in plain.items()])
    return text


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = (" | ".join(str(cell).replace("|", "\\|") for cell in line) for line in lines)
    return "\n" + "".join(f"| {line} |\n" for line in cells) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Rewrite or check all pages."""
    stale = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        fresh = render(text)
        # Blanks do not count: releases of click break lines a little differently.
        if fresh.split() != text.split():
            stale.append(page)
            changes = difflib.unified_diff(text.splitlines(), fresh.splitlines(), n=0, lineterm="")
            print("\n".join(islice(changes, 12)))
            if "--check" not in arguments:
                page.write_text(fresh, encoding="utf-8")
    for page in stale:
        print(f"{page.name} {'is not up to date' if '--check' in arguments else 'rewritten'}")
    if stale and "--check" in arguments:
        print("fix: python docs/make_reference.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
