"""`seqgen doctor` finds what is wrong with an installation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_distributions import seqgen, write_distribution
from seqgen_cli import doctor


def findings(text: str) -> dict[str, dict[str, str]]:
    return {finding["subject"]: finding for finding in json.loads(text)}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """seqgen-kit as it is installed, whatever the machine has: found before it."""
    site = tmp_path / "own"
    write_distribution(
        site,
        name="seqgen-kit",
        version="0.1.0",
        plugins={"speech": "seqgen_speech:plugin"},
        modules={},
    )
    with (site / "seqgen_kit-0.1.0.dist-info" / "METADATA").open("a") as metadata:
        metadata.write(
            "Requires-Dist: click\nRequires-Dist: not-there-req\n"
            "Requires-Dist: not-there-opt>=2; extra == 'speech'\n"
        )
    return site


def test_reports_what_is_broken_and_how_to_fix_it(own: Path, tmp_path: Path) -> None:
    write_distribution(
        tmp_path, name="bad-dist", plugins={"bad": "d_bad:plugin"}, modules={"d_bad.py": "1 / 0"}
    )
    write_distribution(tmp_path, name="seqgen", version="1.2.4", plugins={}, modules={})
    done = seqgen("doctor", "--json", paths=(own, tmp_path))
    assert done.returncode == 1
    found = findings(done.stdout)
    assert found["python"]["state"] == "ok"
    assert found["torch build"]["state"] == "ok"
    assert found["click"]["state"] == "ok"
    assert found["not-there-req"]["state"] == "fail"
    assert found["not-there-opt"]["state"] == "note"
    assert found["not-there-opt"]["fix"] == "pip install 'seqgen-kit[speech]'"
    assert found["seqgen"]["state"] == "fail"
    assert "foreign package seqgen 1.2.4" in found["seqgen"]["detail"]
    assert "pip uninstall seqgen" in found["seqgen"]["fix"]
    bad = found["plugin bad (bad-dist 1.0)"]
    assert bad["state"] == "fail"
    assert "ZeroDivisionError" in bad["detail"]
    assert "pip uninstall bad-dist" in bad["fix"]
    assert found["registry"]["state"] == "ok"


def test_stale_entry_points_are_found(own: Path, tmp_path: Path) -> None:
    from importlib.metadata import PathDistribution

    checkout = tmp_path / "checkout"
    place = checkout / "core" / "seqgen"
    place.mkdir(parents=True)
    distribution = PathDistribution(own / "seqgen_kit-0.1.0.dist-info")
    assert list(doctor._stale_entry_points(distribution, place)) == []
    project = '[project]\nname = "seqgen-kit"\n[project.entry-points."seqgen.plugins"]\n'
    (checkout / "pyproject.toml").write_text(project + 'speech = "seqgen_speech:plugin"\n')
    assert list(doctor._stale_entry_points(distribution, place)) == []
    (checkout / "pyproject.toml").write_text(project + 'peptides = "seqgen_peptides:plugin"\n')
    (finding,) = doctor._stale_entry_points(distribution, place)
    assert finding.state == "fail"
    assert "peptides, speech" in finding.detail
    assert "pip install -e ." in finding.fix


def test_a_damaged_shipped_model_is_found(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d_shipping.py").write_text("")
    package = tmp_path / "d_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "m.bin").write_bytes(b"torn")
    cards = tmp_path / "cards.yaml"
    cards.write_text(
        "schema: 1\nmodels:\n  m:\n    plugin: speech\n    status: untested\n"
        f"    files: [{{package: d_package, path: m.bin, sha256: '{'0' * 64}'}}]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SEQGEN_REGISTRY", str(cards))
    found = {finding.subject: finding for finding in doctor.check_models()}
    assert found["model m"].state == "fail"
    assert f"expected {'0' * 64}" in found["model m"].detail


def test_a_missing_compiler_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = (f for f in doctor.check_torch() if f.subject == "C++ compiler")
    assert found.state == "note"
    assert "--compile" in found.detail
    (tmp_path / "g++").touch(mode=0o755)
    (found,) = (f for f in doctor.check_torch() if f.subject == "C++ compiler")
    assert (found.state, found.detail) == ("ok", str(tmp_path / "g++"))


def test_without_an_installation_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OWN_DISTRIBUTION", "seqgen-kit-that-nobody-installed")
    (finding,) = doctor.check_own_distribution()
    assert finding.state == "fail"
    assert "has no plugins" in finding.detail
    assert "pip install -e" in finding.fix
