"""`seqgen run` as a user meets it: rows, files, exit codes, messages."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toys import Done, environment, start, texts

Seqgen = Callable[..., Done]


def _rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_without_input_the_example_is_run(seqgen: Seqgen) -> None:
    done = seqgen("run", "--plugin", "toy")
    (row,) = _rows(done.out)
    assert (done.code, row["text"], row["id"]) == (0, "HELLO TOY", "example.txt")
    assert row["seconds"] > 0
    assert "no INPUT given: running the example shipped with toy" in done.err


def test_bad_items_fail_alone(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = texts(tmp_path / "in", 20)
    done = seqgen("run", "--plugin", "toy", folder, tmp_path / "gone.txt")
    rows = _rows(done.out)
    assert done.code == 1
    assert [row["id"] for row in rows[:20]] == [f"t{number:03d}.txt" for number in range(20)]
    failed = {row["id"]: row["reason"] for row in rows if row["status"] == "failed"}
    assert sorted(failed)[1:] == ["t003.txt", "t011.txt", "t017.txt"]
    assert all(name.rsplit("/")[-1] in reason for name, reason in failed.items())
    assert done.err.count("failed: ") == 4
    assert "21 items, 4 failed" in done.err
    assert "Traceback" not in done.err


def test_debug_shows_the_traceback_of_a_failed_item(seqgen: Seqgen, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a POISON")
    done = seqgen("run", "--plugin", "toy", "a.txt", "--debug")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "RuntimeError: the whole batch died" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--plugin", "tyo"], 2, "did you mean 'toy'"),
        (["--plugin", "toy", "--model", "toy-sevn"], 2, "did you mean 'toy-seven'"),
        (["--plugin", "toy", "--decoder", "uper"], 2, "did you mean 'upper'"),
        (["--plugin", "toy", "--set", "stile=loud"], 2, "did you mean 'style'"),
        (["--plugin", "toy", "--set", "style=lout"], 2, "did you mean 'loud'"),
        (["--plugin", "toy", "--set", "piece=0"], 2, "choose a value >= 1"),
        (["--plugin", "toy", "--device", "cdua"], 2, "did you mean 'cuda'"),
        (["--plugin", "toy", "--dtype", "float23"], 2, "did you mean 'float32'"),
        (["--plugin", "toy", "--shard", "3/3"], 2, "--shard 0/3"),
        (["--plugin", "toy", "-o", "a.tyt"], 2, "did you mean 'txt'"),
        (["--plugin", "toy", "-o", "a.txt", "--format", "nte"], 2, "did you mean 'note'"),
        (["--plugin", "toy", "--format", "txt"], 2, "add -o OUT.txt"),
        (["--plugin", "toy", "--resume"], 2, "add -o OUT"),
        (["--plugin", "toy", "-o", "a.txt", "--resume", "--overwrite"], 2, "choose one"),
        (["--plugin", "toy", "--config", "none.yaml"], 2, "cannot read the configuration"),
        (["--plugin", "toy", "--batch-size", "0"], 2, "batch-size"),
        (["--plugin", "toy", "--no-such"], 2, "--no-such"),
        (["--plugin", "toy", "--model", "toy-damaged"], 4, "sha256 expected"),
        (["--plugin", "toy", "--model", "gone/model.safetensors"], 4, "no model at"),
    ],
)
def test_wrong_usage_says_what_is_right(
    seqgen: Seqgen, arguments: list[str], code: int, message: str
) -> None:
    done = seqgen("run", *arguments)
    assert done.code == code, done.err
    assert message in done.err
    assert done.out == ""
    assert "Traceback" not in done.err


def test_a_device_that_is_not_here(seqgen: Seqgen) -> None:
    import torch

    missing = f"cuda:{torch.cuda.device_count() + 3}"
    done = seqgen("run", "--plugin", "toy", "--device", missing)
    assert done.code == 2
    assert "on this machine" in done.err


def test_help_lists_what_the_plugin_offers(seqgen: Seqgen) -> None:
    done = seqgen("run", "--help", "--plugin", "toy")
    assert done.code == 0
    for expected in ("piece=int >= 1", "style=plain|loud", "reverse", "txt, note, jsonl"):
        assert expected in done.out
    assert "piece=" not in seqgen("run", "--help").out


def test_settings_from_a_file_and_the_dry_run_that_prints_them(
    seqgen: Seqgen, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("decoder: reverse\nseed: 5\noptions: {style: loud}\n")
    plan = json.loads(seqgen("run", "--plugin", "toy", "--config", file, "--dry-run").out)
    assert plan["settings"]["decoder"] == "reverse"
    assert plan["settings"]["options"]["style"] == "loud"
    assert plan["items"] == 1
    assert plan["model"]["checksums"]["key.txt"].startswith("bab7e7c0")
    again = tmp_path / "again.yaml"
    again.write_text(json.dumps(plan["settings"]))
    (row,) = _rows(seqgen("run", "--plugin", "toy", "--config", again).out)
    assert row["text"] == "yot olleh!"
    done = seqgen(
        "run", "--plugin", "toy", "--config", again, "--decoder", "upper", "--set", "style=plain"
    )
    assert _rows(done.out)[0]["text"] == "HELLO TOY"
    file.write_text("style: loud\n")
    done = seqgen("run", "--plugin", "toy", "--config", file)
    assert done.code == 2
    assert "goes under `options:`" in done.err


def test_a_file_in_the_domain_s_format(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = texts(tmp_path / "in", 3)
    assert seqgen("run", "--plugin", "toy", folder, "-o", "out.txt").code == 0
    assert (tmp_path / "out.txt").read_text().startswith("t000.txt\tTEXT 0\n")
    assert seqgen("run", "--plugin", "toy", folder, "-o", "notes/", "--format", "note").code == 0
    assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == [
        "t000.note",
        "t001.note",
        "t002.note",
    ]
    done = seqgen("run", "--plugin", "toy", folder, "-o", "one.note")
    assert (done.code, "-o FOLDER/" in done.err) == (2, True)
    assert not list(tmp_path.glob("one.note*"))  # refused before anything was decoded


def test_the_current_folder_as_output(seqgen: Seqgen, tmp_path: Path) -> None:
    """`.` has no name of its own; the manifest lies beside the folder all the same."""
    assert seqgen("run", "--plugin", "toy", "-o", ".").code == 0
    assert any(tmp_path.iterdir())
    assert (tmp_path.parent / f"{tmp_path.name}.manifest.jsonl").is_file()
    assert "exists already" in seqgen("run", "--plugin", "toy", "-o", ".").err


def test_artifacts_are_files_named_in_the_rows(seqgen: Seqgen, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    option = ["--set", "artifact=true"]
    done = seqgen("run", "--plugin", "toy", "a.txt", "a.txt", *option, "-o", "out.jsonl")
    assert done.code == 0
    rows = _rows((tmp_path / "out.jsonl").read_text())
    assert [row["file"] for row in rows] == ["out_files/a.bin", "out_files/a-2.bin"]
    assert (tmp_path / rows[0]["file"]).read_bytes() == b"X"
    (row,) = _rows(seqgen("run", "--plugin", "toy", "a.txt", *option).out)
    assert (tmp_path / row["file"]).read_bytes() == b"X"
    (second,) = _rows(seqgen("run", "--plugin", "toy", "a.txt", *option).out)
    assert second["file"] != row["file"]


def test_results_are_never_written_over_by_accident(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = texts(tmp_path / "in", 3)
    command = ["run", "--plugin", "toy", folder, "-o", "out.jsonl"]
    assert seqgen(*command).code == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    refused = seqgen(*command, "--set", "style=loud")
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert "--resume" in refused.err
    assert (tmp_path / "out.jsonl").read_bytes() == before
    different = seqgen(*command, "--set", "style=loud", "--resume")
    assert different.code == 2
    assert 'options.style was "plain", is "loud"' in different.err
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert seqgen(*command, "--set", "style=loud", "--overwrite").code == 0
    assert "TEXT 0!" in (tmp_path / "out.jsonl").read_text()
    assert seqgen(*command, "--set", "style=loud", "--resume").code == 0
    (tmp_path / "out.jsonl.manifest.jsonl").unlink()
    lost = seqgen(*command, "--resume")
    assert lost.code == 2
    assert "no manifest" in lost.err


def test_times_are_in_the_manifest_and_on_request_in_the_output(
    seqgen: Seqgen, tmp_path: Path
) -> None:
    seqgen("run", "--plugin", "toy", "-o", "out.jsonl")
    assert _rows((tmp_path / "out.jsonl").read_text())[0]["seconds"] is None
    lines = _rows((tmp_path / "out.jsonl.manifest.jsonl").read_text())
    assert [line["kind"] for line in lines] == ["header", "row", "batch", "summary"]
    assert lines[1]["row"]["seconds"] > 0
    assert lines[3]["forwards"] == 1
    seqgen("run", "--plugin", "toy", "-o", "timed.jsonl", "--timings")
    assert _rows((tmp_path / "timed.jsonl").read_text())[0]["seconds"] > 0


def test_a_trace_has_every_step_with_its_rows(seqgen: Seqgen, tmp_path: Path) -> None:
    seqgen("run", "--plugin", "toy", "--trace", "trace.jsonl")
    (line,) = _rows((tmp_path / "trace.jsonl").read_text())
    assert line == {"ids": ["example.txt"], "forward": 0, "values": ["HELLO TOY"]}


def test_three_shards_are_the_whole(seqgen: Seqgen, tmp_path: Path) -> None:
    folder = texts(tmp_path / "in", 200)
    command = ["run", "--plugin", "toy", folder, "--decoder", "dice", "--seed", "4"]
    assert seqgen(*command, "-o", "whole.jsonl").code == 1
    whole = (tmp_path / "whole.jsonl").read_bytes()
    parts = []
    for index in range(3):
        seqgen(*command, "-o", f"part{index}.jsonl", "--shard", f"{index}/3")
        parts.append((tmp_path / f"part{index}.jsonl").read_bytes())
    assert b"".join(parts) == whole
    assert min(len(part) for part in parts) > len(whole) / 6
    printed = [
        line for index in range(3) for line in _rows(seqgen(*command, "--shard", f"{index}/3").out)
    ]
    assert [{**row, "seconds": None} for row in printed] == _rows(whole.decode())


def test_after_a_kill_resume_gives_the_same_bytes(seqgen: Seqgen, tmp_path: Path) -> None:
    """Cut the journal as a crash would, at many places; the output must not tell."""
    folder = texts(tmp_path / "in", 60)
    command = ["run", "--plugin", "toy", folder, "--decoder", "dice", "--batch-size", "4"]
    option = ["--set", "artifact=true", "-o", "out.jsonl"]
    assert seqgen(*command, *option).code == 1
    whole = (tmp_path / "out.jsonl").read_bytes()
    manifest = tmp_path / "out.jsonl.manifest.jsonl"
    journal = manifest.read_bytes()
    for cut in range(0, len(journal), len(journal) // 12):
        manifest.write_bytes(journal[:cut])
        (tmp_path / "out.jsonl").unlink()
        assert seqgen(*command, *option, "--resume").code == 1
        assert (tmp_path / "out.jsonl").read_bytes() == whole


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_interrupted_runs_end_in_the_same_bytes(tmp_path: Path, how: str, seqgen: Seqgen) -> None:
    folder = texts(tmp_path / "in", 200)
    arguments = ["run", "--plugin", "toy", "in", "--decoder", "dice", "-o", "out.jsonl"]
    delay = ["--set", "delay=0.05"]
    process = start(*arguments, *delay, cwd=tmp_path)
    manifest = tmp_path / "out.jsonl.manifest.jsonl"
    deadline = time.monotonic() + 60
    while not (manifest.exists() and manifest.read_bytes().count(b'"kind": "batch"') >= 5):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(getattr(signal, how))
    _, err = process.communicate(timeout=30)
    assert not (tmp_path / "out.jsonl").exists()
    if how == "SIGINT":
        assert process.returncode == 130
        assert "seqgen run --plugin toy in" in err
        assert "--resume" in err
        assert "Traceback" not in err
        refused = seqgen(*arguments, *delay)
        assert (refused.code, "unfinished run" in refused.err) == (2, True)
    resumed = seqgen(*arguments, *delay, "--resume")
    assert resumed.code == 1
    assert "resuming: " in resumed.err
    interrupted = (tmp_path / "out.jsonl").read_bytes()
    assert seqgen(*arguments[:-1], "unbroken.jsonl", *delay).code == 1
    assert interrupted == (tmp_path / "unbroken.jsonl").read_bytes()
    assert len(interrupted.splitlines()) == len(list(folder.iterdir()))


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    texts(tmp_path / "in", 60)
    process = start("run", "--plugin", "toy", "in", "--set", "delay=0.02", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline().startswith('{"id": "t000.txt"')
    process.stdout.close()
    assert process.wait(timeout=30) in (0, 1)
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_stdin_is_an_input(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "seqgen", "run", "--plugin", "toy", "-"],
        cwd=tmp_path,
        env=environment(),
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert [row["text"] for row in _rows(process.stdout)] == ["ONE", "TWO"]


def test_help_without_a_plugin_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from seqgen_cli.main import run\n"
        "assert run(['run', '--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'rich.progress'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True)
