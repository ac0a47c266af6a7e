"""Pages hold together: links lead somewhere, commands parse, names are right, parts are fresh."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml
from pages import DOCS, ROOT, blocks, pages, run_python

from fake_distributions import seqgen
from seqgen import options as option_values
from seqgen.errors import SeqgenError
from seqgen.plugins import Plugins
from seqgen_cli.main import cli
from seqgen_cli.train import override

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())


@PAGES
def test_links_lead_somewhere(page: Path) -> None:
    text = _without_code(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), f"{page.name}: {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name}: {target}"


@PAGES
def test_nobody_is_told_to_install_the_other_seqgen(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        for names in re.findall(r"pip install ([^`#\n]*)", line):
            assert not re.search(r"(^|\s)['\"]?seqgen(\[|['\"]|\s|$)", names), line


@PAGES
def test_commands_parse(page: Path) -> None:
    for block in blocks(page):
        if block.language == "sh":
            for line in block.text.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["seqgen"]:
                    _parse(words[1:])


@pytest.mark.parametrize(
    "wrong",
    [
        "transcribe --plugin speech",
        "run --plugin speech --decodr ar",
        "run --plugin speech --decoder beam",
        "run --plugin speech --set block=4",
        "train --plugin speech --preset huge -o runs/x",
        "train --plugin text --convert nar --from runs/x -o runs/y",
        "run --plugin peptides --decoder mask-predict",
        "run --plugin peptides --set precursor_tolerance=20",
        "run --plugin images --set clas=hat",
        "models remove x",
    ],
)
def test_a_wrong_command_would_be_noticed(wrong: str) -> None:
    with pytest.raises((click.ClickException, SeqgenError, AssertionError)):
        _parse(wrong.split())


@PAGES
def test_extras_and_constraints_exist(page: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in page.read_text(encoding="utf-8").splitlines():
        constraint = re.search(r"pip install -c (\S+)", line)
        if constraint is None:
            continue
        assert (ROOT / constraint[1]).is_file(), line
        for extra in re.findall(r"\.\[(\w[\w-]*)\]", line):
            assert extra in extras["optional-dependencies"], line


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    wanted = set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert {"demo", "test"} <= wanted
    for target in wanted:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "README.md"
    namespace = run_python(page, [block for block in blocks(page) if block.language == "python"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "Autoregressive", "BlockDiffusion", "NonAutoregressive",
    ]  # fmt: skip
    assert [len(row) for row in namespace["out"].sequences()] == [8, 8]  # type: ignore[attr-defined]


def test_the_first_command_of_the_readme_transcribes_the_shipped_recording() -> None:
    done = seqgen("run", "--plugin", "speech")
    assert done.returncode == 0, done.stderr
    assert '"text": "welcome to the directory"' in done.stdout


def test_generated_parts_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    code = _script("make_reference").main(["--check"])
    assert code == 0, capsys.readouterr().out


def test_a_stale_part_is_noticed() -> None:
    reference = _script("make_reference")
    page = "# x\n\n<!-- generated: models -->\nold\n<!-- end: models -->\n"
    assert "paraformer-zh" in reference.render(page)
    text = (DOCS / "speech.md").read_text(encoding="utf-8")
    assert reference.render(text.replace("600 ms", "700 ms")) != text.replace("600 ms", "700 ms")


def test_figures_of_models_are_shown_by_decoder() -> None:
    figures = {"wer_digits": {"ar": 0.031, "paraformer": 0.02}, "minutes": 55}
    table = _script("make_reference")._figures(figures)
    assert "|  | ar | paraformer |" in table
    assert "| wer_digits | 0.031 | 0.02 |" in table
    assert "| minutes | 55 |" in table


def test_figures_of_peptides_come_from_result_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, table = _script("reference_peptides"), _script("make_reference")._table
    monkeypatch.setattr(reference, "RESULTS", tmp_path)
    assert "python benchmarks/peptides_valid.py" in reference.valid(table)
    assert "casanovo_speed.py" in reference.speed(table)
    interval = {"low": 0.25, "high": 0.75}
    metrics = ("peptide_precision", "peptide_precision_strict", "aa_precision", "aa_recall")
    metrics += ("precursor_match", "coverage", "coverage_auc")
    row = {"case": "x", "parameters": 1_500_000, "passes": 12.5, "cpu_ms": 3.14159, **interval}
    result = {
        "machine": {"processor": "P", "torch": "2"},
        "model": "m",
        "spectra": {"all": 4, "peptides": 3, "peptides_trained_on": 0, "hela": 4},
        "rows": [{**row, **dict.fromkeys(metrics, 0.5), "accepted": 0.25}],
        "by_set": [{"case": "x", "set": "hela", "peptide_precision": 0.5}],
        "differences": [{"case": "x - y", "difference": 0.5, **interval}],
    }
    (tmp_path / "peptides_valid.json").write_text(json.dumps(result))
    shown = reference.valid(table)
    assert "4 spectra of 3 peptides, none of them in the list" in shown
    assert "| x | 1.50 M | 12.5 | 3.14 | 0.500 (0.250 to 0.750) | 0.500 |" in shown
    assert "| x - y | 0.500 (0.250 to 0.750) |" in shown
    assert "`verify` accepted 25% of the drafts." in shown
    assert "| case | hela (4) |" in reference.sets(table)


def test_the_picture_shows_what_the_decoders_do() -> None:
    panels = _script("make_figures").decode("21st of October, 2015")
    assert [len(panel.passes) for panel in panels] == [10, 1, 4, 6]
    for panel in panels:
        assert "".join(text for text, _ in panel.passes[-1]) == "^2015-10-21"
    assert (DOCS / "figures" / "decoders.png").stat().st_size < 200_000


def test_the_site_lists_every_page() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = re.findall(r"[\w/.-]+\.md", str(nav))
    assert sorted(listed) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


def _without_code(text: str) -> str:
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def _anchors(page: Path) -> set[str]:
    """Anchors of headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def _parse(words: list[str]) -> None:
    """Parse a command line as the terminal would, without running it.

    Raises:
        click.ClickException, SeqgenError: a command, option, decoder, preset or setting is unknown.
    """
    root = click.Context(cli, info_name="seqgen", **cli.context_settings)
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(root, words[0])
        assert found is not None, words
        command, words = found, words[1:]
    if "--help" in words:
        return
    context = command.make_context(command.name, list(words), parent=root)
    plugins, params = Plugins(), context.params
    if params.get("plugin") not in ("speech", "peptides", "text", "images"):
        return
    info, domain = plugins.info(params["plugin"]), plugins.domain(params["plugin"])
    named = [params.get("decoder"), *(params.get("decoders") or "").split(",")]
    for decoder in filter(None, named):
        assert decoder in info.decoders, words
    if command.name == "train" or "preset" in params:
        task = domain.training()  # type: ignore[attr-defined]
        convert = params.get("convert")
        presets, name = (task.conversions, convert) if convert else (task.presets, params["preset"])
        assert name in presets, words
        override(*presets[name], params["sets"])
    else:
        option_values.parse(domain.options, params.get("sets") or ())


def _script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
