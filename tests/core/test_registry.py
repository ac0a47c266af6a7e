"""The registry: cards are checked, inherited and found; files are verified and fetched."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from seqgen.errors import CheckpointError, ConfigError, PluginError, UsageError
from seqgen.plugins import Plugins
from seqgen.registry import Registry
from seqgen.weights import cache_folder, local_files, pull, whereabouts

CONTENT = bytes(range(256)) * 5000
SHA = hashlib.sha256(CONTENT).hexdigest()


def read(tmp_path: Path, text: str, name: str = "cards.yaml") -> Registry:
    file = tmp_path / name
    file.write_text(text)
    return Registry.from_files([file])


def card_text(urls: str, sha256: str = SHA, extra: str = "") -> str:
    return (
        "schema: 1\nmodels:\n  m:\n    plugin: p\n    status: untested\n"
        f"    files: [{{name: m.bin, sha256: '{sha256}', urls: [{urls}]{extra}}}]\n"
    )


def test_our_own_registry_is_valid_and_honest() -> None:
    registry = Registry.load()
    assert "speech" in registry.plugins
    for card in registry.models.values():
        assert card.plugin in registry.plugins
        assert card.summary
        assert card.licence.code
        assert card.licence.weights
        assert card.files or card.obtain
        if card.status == "verified":
            assert card.metrics or card.notes, f"{card.name} claims without figures"
    for entry in registry.plugins.values():
        if entry.default_model:
            assert registry.models[entry.default_model].plugin == entry.name


def test_everything_that_our_registry_ships_is_there_and_undamaged() -> None:
    for card in Registry.load().models.values():
        if any(file.package for file in card.files):
            assert local_files(card)


def test_every_plugin_of_ours_is_in_the_registry() -> None:
    known = Registry.load().plugins
    for ref in Plugins().installed():
        if ref.distribution == "seqgen-kit":
            assert known[ref.name].distribution == "seqgen-kit"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema: 1\nmodel: {}\n", r"cards.yaml:2: unknown key 'model'"),
        ("schema: 2\n", r"cards.yaml:1: schema 2 is not supported"),
        ("models: {}\n", r"schema None is not supported"),
        ("schema: 1\nmodels:\n  m:\n    plugin: p\n    status: untested\n    licens: x\n",
         r"cards.yaml:6: unknown key 'licens'"),
        ("schema: 1\nmodels:\n  m: {plugin: p}\n", r"cards.yaml:3: missing key 'status'"),
        ("schema: 1\nmodels:\n  m: {plugin: p, status: tested}\n",
         r"cards.yaml:3: 'status' cannot be"),
        ("schema: 1\nmodels:\n  m:\n    plugin: 3\n    status: untested\n",
         r"cards.yaml:4: 'plugin' must be a text"),
        ("schema: 1\nmodels:\n  m:\n    plugin: p\n    status: untested\n    licence: {cod: x}\n",
         r"cards.yaml:6: unknown key 'cod'"),
        ("schema: 1\nmodels:\n  m: {plugin: p, status: untested}\n  m: {plugin: q}\n",
         r"cards.yaml:4: 'm' is given twice \(first in line 3\)"),
        ("schema: 1\nmodels:\n  m: {base: n, status: untested}\n", r"base 'n' is not a model"),
        ("schema: 1\nmodels:\n  m: 3\n", r"cards.yaml:3: 'm' must be a mapping"),
        ("schema: 1\nmodels: [a]\n", r"cards.yaml:2: 'models' must be a mapping"),
        ("schema: 1\nplugins:\n  p: {summry: x}\n", r"cards.yaml:3: unknown key 'summry'"),
        ("schema: 1\n  bad: [\n", r"cards.yaml:\d: not valid YAML"),
        ("- a\n- b\n", r"cards.yaml:1: a mapping"),
        ("schema: 1\nmodels:\n  m: {plugin: p, status: untested, files: [{sha256: aa}]}\n",
         r"either package and path, or name and urls"),
        (card_text("'https://x/y'", sha256="abc"), r"must be 64 hexadecimal digits"),
        (card_text("'https://x/y'").replace("name: m.bin", "name: ../m.bin"),
         r"must not leave its folder"),
    ],
)  # fmt: skip
def test_a_wrong_card_names_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    text = "schema: 1\nmodels: !!python/object/apply:os.system ['touch pwned']\n"
    with pytest.raises(ConfigError):
        read(tmp_path, text)
    assert not Path("pwned").exists()


def test_inheritance_takes_what_is_not_said(tmp_path: Path) -> None:
    registry = read(
        tmp_path,
        "schema: 1\nmodels:\n"
        "  base:\n    plugin: p\n    status: verified\n    decoder: ar\n    notes: about base\n"
        "    config: {width: 4, layers: 2}\n    licence: {code: MIT, weights: CC0-1.0}\n"
        f"    files: [{{name: a, sha256: '{SHA}', urls: [u]}}]\n    metrics: {{wer: 1.0}}\n"
        "  child:\n    base: base\n    status: untested\n    config: {layers: 9}\n"
        "    licence: {weights: CC-BY-4.0}\n",
    )
    child = registry.models["child"]
    assert child.plugin == "p"
    assert child.decoder == "ar"
    assert child.config == {"width": 4, "layers": 9}
    assert (child.licence.code, child.licence.weights) == ("MIT", "CC-BY-4.0")
    assert child.files == registry.models["base"].files
    assert child.status == "untested"
    assert child.notes == ""
    assert child.metrics == {}


def test_users_add_cards_and_override_only_on_purpose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.yaml"
    monkeypatch.setenv("SEQGEN_REGISTRY", str(mine))
    card = "{plugin: speech, status: untested, summary: mine%s}"
    mine.write_text(f"schema: 1\nmodels:\n  paraformer-zh: {card % ''}\n")
    with pytest.raises(ConfigError, match="there is already a model") as caught:
        Registry.load()
    assert "mine.yaml:3" in str(caught.value)
    assert "registry.yaml:" in str(caught.value)
    mine.write_text(f"schema: 1\nmodels:\n  paraformer-zh: {card % ', override: true'}\n")
    assert Registry.load().models["paraformer-zh"].summary == "mine"
    monkeypatch.setenv("SEQGEN_REGISTRY", str(tmp_path / "missing.yaml"))
    with pytest.raises(ConfigError, match="cannot read the registry file"):
        Registry.load()


def test_a_model_is_a_name_or_a_path(tmp_path: Path) -> None:
    registry = read(tmp_path, "schema: 1\nmodels:\n  small: {plugin: p, status: untested}\n")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    assert registry.card("small", plugin="p").path is None
    card = registry.card(str(folder), plugin="p")
    assert (card.plugin, card.path, card.status) == ("p", folder, "untested")
    assert local_files(card) == [folder]
    with pytest.raises(UsageError, match="did you mean 'small'"):
        registry.card("smal", plugin="p")
    with pytest.raises(UsageError, match="belongs to the plugin 'p'"):
        registry.card("small", plugin="q")
    with pytest.raises(CheckpointError, match="no model at") as caught:
        registry.card(str(tmp_path / "gone.safetensors"), plugin="p")
    assert caught.value.exit_code == 4


def test_a_shipped_file_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "t_shipping"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "m.bin").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = card_text("").replace("name: m.bin", "package: t_shipping, path: m.bin")
    card = read(tmp_path, text.replace(", urls: []", "")).models["m"]
    assert whereabouts(card) == "shipped"
    assert local_files(card) == [package / "m.bin"]
    (package / "m.bin").write_bytes(CONTENT + b"x")
    with pytest.raises(CheckpointError) as caught:
        local_files(card)
    found = hashlib.sha256(CONTENT + b"x").hexdigest()
    assert str(package / "m.bin") in str(caught.value)
    assert f"expected {SHA}, found {found}" in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_file_in_a_package_that_is_not_there(tmp_path: Path) -> None:
    text = card_text("").replace("name: m.bin", "package: t_not_installed, path: m.bin")
    card = read(tmp_path, text.replace(", urls: []", "")).models["m"]
    assert whereabouts(card) == "missing"
    with pytest.raises(PluginError, match="t_not_installed"):
        local_files(card)


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; understands `Range`; breaks off the first answer at half."""

    ranges: ClassVar[list[str | None]] = []
    break_off = False

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).ranges.append(wanted)
        if self.path != "/m.bin":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = CONTENT[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if type(self).break_off:
            type(self).break_off = False
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("SEQGEN_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    _Server.ranges, _Server.break_off = [], False
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_pull_downloads_only_when_asked_and_once(tmp_path: Path, server: str) -> None:
    card = read(tmp_path, card_text(f"'{server}/gone', '{server}/m.bin'")).models["m"]
    assert whereabouts(card) == "to pull"
    with pytest.raises(CheckpointError, match="not on this machine") as caught:
        local_files(card)
    assert caught.value.fix == "seqgen models pull m"
    assert _Server.ranges == []
    seen: list[tuple[str, int, int]] = []
    (path,) = pull(card, on_progress=lambda *state: seen.append(state))
    assert path == cache_folder(card) / "m.bin"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("m.bin", len(CONTENT), len(CONTENT))
    requests = len(_Server.ranges)
    assert pull(card) == [path]
    assert len(_Server.ranges) == requests
    assert whereabouts(card) == "downloaded"


def test_a_cut_download_is_resumed(tmp_path: Path, server: str) -> None:
    card = read(tmp_path, card_text(f"'{server}/m.bin'")).models["m"]
    _Server.break_off = True
    with pytest.raises(CheckpointError, match="could not download"):
        pull(card)
    part = cache_folder(card) / "m.bin.part"
    half = part.stat().st_size
    assert 0 < half < len(CONTENT)
    assert not (cache_folder(card) / "m.bin").exists()
    (path,) = pull(card)
    assert _Server.ranges[-1] == f"bytes={half}-"
    assert path.read_bytes() == CONTENT
    assert not part.exists()


def test_a_wrong_download_is_thrown_away(tmp_path: Path, server: str) -> None:
    wrong = "0" * 64
    card = read(tmp_path, card_text(f"'{server}/m.bin'", sha256=wrong)).models["m"]
    with pytest.raises(CheckpointError, match=f"expected {wrong}, found {SHA}"):
        pull(card)
    assert list(cache_folder(card).iterdir()) == []


def test_a_card_without_files_says_how_to_get_them() -> None:
    card = Registry.load().models["paraformer-zh"]
    assert whereabouts(card) == "elsewhere"
    with pytest.raises(CheckpointError, match="modelscope download"):
        local_files(card)
