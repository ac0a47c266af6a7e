"""The command itself: quick, lazy, and every error one message with the right exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fake_distributions import ROOT, good_plugin, seqgen, write_distribution
from seqgen_cli.main import COMMANDS, cli, run

HEAVY = (
    "torch",
    "numpy",
    "pandas",
    "torchaudio",
    "scipy",
    "matplotlib",
    "safetensors",
    "soundfile",
)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["plugins"], ["plugins", "--json"], ["models"],
     ["models", "show", "paraformer-zh"], ["decoders"], ["run", "--help"]],
    ids=" ".join,
)  # fmt: skip
def test_listing_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from seqgen_cli.main import run\n"
        f"code = run({arguments!r})\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules], 'code:', code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "heavy: [] code: 0", done.stdout + done.stderr


def test_help_is_quick() -> None:
    # CPU time, not the clock, so that a busy machine does not fail the test; the best of three.
    seconds = []
    for _ in range(3):
        before = os.times()
        assert seqgen("--help").returncode == 0
        after = os.times()
        seconds.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
    assert min(seconds) < 0.4


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: seqgen {name}")
    assert re.search(r"Examples?:", text), f"{name} --help shows no example"


def test_the_bare_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_version() -> None:
    done = seqgen("--version")
    assert (done.returncode, done.stdout) == (0, "seqgen 0.1.0\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["rum"], 2, "did you mean 'run'?"),
        (["models", "show", "parafomer-zh"], 2, "did you mean 'paraformer-zh'?"),
        (["models", "pull", "paraformer-zh"], 4, "modelscope download"),
        (["models", "--plugin", "speach"], 2, "did you mean 'speech'?"),
        (["models", "--jsn"], 2, "--json"),
        (["plugins", "check", "speach"], 2, "did you mean 'speech'?"),
        (["plugins", "new", "My Plugin"], 2, "seqgen plugins new my-plugin"),
        (["decoders", "--plugin", "speach"], 2, "did you mean 'speech'?"),
    ],
)
def test_errors_are_one_message_with_a_fix(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--debug", "models", "show", "x"], ["models", "show", "x", "--debug"]):
        assert run(arguments) == 2
        assert "Traceback" in capsys.readouterr().err


def test_what_a_command_raises_decides_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = tmp_path / "t_command.py"
    module.write_text(
        "import click\nwhat = None\n@click.command()\n"
        "def command():\n    if isinstance(what, BaseException): raise what\n    return what\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(COMMANDS, "probe", ("t_command", "A probe."))
    import t_command  # type: ignore[import-not-found]

    from seqgen.errors import CheckpointError, InputError, PluginError, UsageError

    cases: list[tuple[object, int, str]] = [
        (None, 0, ""),
        (1, 1, ""),
        (InputError("bad item"), 1, "error: bad item"),
        (UsageError("wrong", fix="right"), 2, "fix: right"),
        (PluginError("gone"), 3, "error: gone"),
        (CheckpointError("torn", why="short"), 4, "why: short"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(7), 7, ""),
        (ModuleNotFoundError("x", name="soundfile"), 3, "the package 'soundfile'"),
        (ValueError("oops"), 1, "--debug"),
    ]
    for what, code, message in cases:
        t_command.what = what
        assert run(["probe"]) == code, what
        captured = capsys.readouterr()
        assert message in captured.err
        assert "Traceback" not in captured.err


def test_a_missing_command_module_harms_only_that_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "gone", ("seqgen_cli.not_there", "Gone."))
    assert run(["gone"]) == 3
    assert "not part of this installation" in capsys.readouterr().err
    assert run(["--help"]) == 0


def test_a_plugins_own_commands(tmp_path: Path) -> None:
    write_distribution(
        tmp_path,
        name="dist-greeter",
        plugins={"greeter": "t_greeter:plugin", "bad": "t_bad:plugin"},
        modules={"t_greeter.py": good_plugin("greeter", "t_greeter"), "t_bad.py": "1 / 0"},
    )
    done = seqgen("greeter", "hello", paths=(tmp_path,))
    assert (done.returncode, done.stdout) == (0, "hello from greeter\n")
    assert "hello" in seqgen("greeter", "--help", paths=(tmp_path,)).stdout
    done = seqgen("bad", "hello", paths=(tmp_path,))
    assert done.returncode == 3
    assert "ZeroDivisionError" in done.stderr


def test_interrupting_the_process_exits_with_130(tmp_path: Path) -> None:
    write_distribution(
        tmp_path,
        name="dist-sleeper",
        plugins={"sleeper": "t_sleeper:plugin"},
        modules={"t_sleeper.py": "import sys, time\nprint('asleep', flush=True)\ntime.sleep(60)\n"},
    )
    search = os.pathsep.join(
        [str(tmp_path), *(str(ROOT / part) for part in ("core", "cli", "plugins"))]
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "seqgen", "sleeper", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "asleep\n"  # a plugin's prints do not reach stdout
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert stdout == ""
    assert process.returncode == 130
    assert "Traceback" not in stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m seqgen models --json | head -c 1"
    search = os.pathsep.join(str(ROOT / part) for part in ("core", "cli", "plugins"))
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert done.stderr == ""


def test_a_foreign_seqgen_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "seqgen").mkdir()
    (tmp_path / "seqgen" / "__init__.py").write_text("import dark_not_there\n")
    code = "from seqgen_cli.main import run; import sys; sys.exit(run(['doctor']))"
    search = os.pathsep.join([str(tmp_path), str(ROOT / "cli")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert done.returncode == 3
    assert str(tmp_path) in done.stderr
    assert "pip uninstall seqgen" in done.stderr


def test_the_table_of_commands_is_complete() -> None:
    import click

    assert cli.list_commands(click.Context(cli)) == [
        "run", "compare", "eval", "train", "bench", "models", "decoders", "plugins", "doctor",
    ]  # fmt: skip
