"""`seqgen plugins`: listing without importing, checking in isolation, and writing a new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fake_distributions import ROOT, good_plugin, seqgen, write_distribution


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """A good plugin, four bad ones, and two distributions that share a name."""
    site = tmp_path_factory.mktemp("site")
    modules = {
        "c_good.py": good_plugin("good", "c_good"),
        "c_good_domain.py": "class Domain: pass\n",
        "c_raises.py": "raise RuntimeError('boom')\n",
        "c_exits.py": "import os\nos._exit(5)\n",
        "c_prints.py": "print('noise on stdout')\n" + good_plugin("prints", "c_good"),
        "c_old.py": "class P: api = 0\nplugin = P()\n",
    }
    names = ("good", "raises", "exits", "prints", "old")
    plugins = {name: f"c_{name}:plugin" for name in names}
    write_distribution(
        site, name="many", version="3.1", plugins=plugins, modules=modules, summary="many plugins"
    )
    for number in ("one", "two"):
        write_distribution(
            site,
            name=f"twin-{number}",
            plugins={"twin": "c_good:plugin"},
            modules={},
        )
    return (site,)


def test_list_shows_states_and_imports_nothing(installed: tuple[Path, ...]) -> None:
    done = seqgen("plugins", "--json", paths=installed, env={"SEQGEN_DISABLE_PLUGINS": "old"})
    assert done.returncode == 0, done.stderr  # `exits` would have ended the process
    rows = {(row["distribution"], row["name"]): row for row in json.loads(done.stdout)}
    assert rows["many", "good"]["state"] == "installed"
    assert rows["many", "good"]["summary"] == "many plugins"
    assert rows["many", "raises"]["state"] == "installed"
    assert rows["many", "old"]["state"] == "disabled"
    assert rows["twin-one", "twin"]["state"] == "duplicate: use twin-one:twin"
    assert rows["twin-two", "twin"]["state"] == "duplicate: use twin-two:twin"
    assert any(name == "speech" for _, name in rows)
    table = seqgen("plugins", "list", paths=installed)
    assert "many 3.1" in table.stdout


def test_a_known_plugin_that_is_not_installed_is_listed_with_its_command(tmp_path: Path) -> None:
    cards = tmp_path / "more.yaml"
    cards.write_text(
        "schema: 1\nplugins:\n  birdsong: {summary: s, distribution: seqgen-birds, extra: song}\n"
    )
    env = {"SEQGEN_REGISTRY": str(cards)}
    rows = json.loads(seqgen("plugins", "--json", env=env).stdout)
    (row,) = [row for row in rows if row["name"] == "birdsong"]
    assert row["state"] == "not installed: pip install 'seqgen-birds[song]'"
    done = seqgen("run", "--plugin", "birdsong", env=env)
    assert done.returncode == 3
    assert "pip install 'seqgen-birds[song]'" in done.stderr


def test_check_reports_each_and_survives_all(installed: tuple[Path, ...]) -> None:
    names = ["good", "raises", "exits", "prints", "old", "twin-one:twin"]
    done = seqgen("plugins", "check", "--json", *names, paths=installed)
    assert done.returncode == 3
    results = {result["plugin"]: result for result in json.loads(done.stdout)}
    assert results["good"]["ok"]
    assert results["good"]["domains"] == ["good"]
    assert results["prints"]["ok"]
    assert "RuntimeError: boom" in results["raises"]["cause"]
    assert "many 3.1" in results["raises"]["cause"]
    assert "ended with code 5" in results["exits"]["cause"]
    assert "api = 0" in results["old"]["cause"]
    assert results["twin"]["ok"]
    done = seqgen("plugins", "check", "good", paths=installed)
    assert (done.returncode, done.stdout) == (0, "ok      good (many 3.1)\n")
    done = seqgen("plugins", "check", "twin", paths=installed)
    assert done.returncode == 3
    assert "twin-one 1.0" in done.stderr
    assert "twin-two 1.0" in done.stderr


def test_a_broken_plugin_harms_no_other_command(installed: tuple[Path, ...]) -> None:
    paths, env = installed, {"SEQGEN_DISABLE_PLUGINS": "exits"}
    done = seqgen("models", "--json", paths=paths, env=env)
    assert done.returncode == 0
    assert any(card["name"] == "paraformer-zh" for card in json.loads(done.stdout))
    assert "boom" in done.stderr  # said, on stderr
    decoders = json.loads(seqgen("decoders", "--json", paths=paths, env=env).stdout)
    assert "good-search" in [recipe["name"] for recipe in decoders["recipes"]]
    assert {"speech", "good"} <= {row["domain"] for row in decoders["domains"]} | {"speech"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin from the template, with a dist-info beside it as an editable install has."""
    folder = tmp_path_factory.mktemp("new") / "plugin"
    done = seqgen("plugins", "new", "tide-tables", "--directory", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "seqgen run --plugin tide-tables"
    write_distribution(
        folder,
        name="seqgen-tide-tables",
        plugins={"tide-tables": "seqgen_tide_tables:plugin"},
        modules={},
    )
    return folder


def test_a_new_plugin_bears_its_name_everywhere(written: Path) -> None:
    files = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert {"pyproject.toml", "seqgen_tide_tables/domain.py", "tests/test_plugin.py"} <= files
    for path in written.rglob("*"):
        assert "myplugin" not in path.name.lower()
        if path.suffix in (".py", ".md", ".toml", ".yaml"):
            assert "myplugin" not in path.read_text().lower(), path
    assert "class TideTablesDomain" in (written / "seqgen_tide_tables" / "domain.py").read_text()
    lines = (written / "seqgen_tide_tables" / "domain.py").read_text().splitlines()
    assert len(lines) < 220


def test_a_new_plugin_runs_with_every_decoder(written: Path) -> None:
    for decoder in ("ar", "nar", "mask-predict", "block-diffusion"):
        done = seqgen("run", "--plugin", "tide-tables", "--decoder", decoder, paths=(written,))
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [row["date"] for row in rows] == [
            "2021-03-03", "1976-07-04", "2015-10-21", "1989-11-09", "1969-07-20", "1999-12-31",
        ]  # fmt: skip


def test_a_new_plugin_passes_its_own_tests(written: Path) -> None:
    search = [str(written), *(str(ROOT / part) for part in ("core", "cli", "plugins"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=written,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_new_plugin_is_clean(written: Path) -> None:
    search = os.pathsep.join(str(ROOT / part) for part in ("core", "cli", "plugins"))
    commands = [
        ["ruff", "check", "--line-length", "100", "--select", "E,F,W,I,B,UP,SIM,RUF,N,C4,PT",
         "--ignore", "N803,N806,N812", "."],
        ["ruff", "format", "--check", "--line-length", "100", "."],
        ["mypy", "--strict", "--follow-imports", "silent", "seqgen_tide_tables"],
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=written,
            capture_output=True,
            text=True,
            env={**os.environ, "MYPYPATH": search},
            timeout=300,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_new_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "precious.txt").write_text("x")
    done = seqgen("plugins", "new", "mine", "--directory", str(tmp_path / "here"))
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["precious.txt"]
