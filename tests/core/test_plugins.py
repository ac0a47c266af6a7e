"""Plugins: found without importing, loaded one by one, and a bad one harms nobody else."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fake_distributions import good_plugin, write_distribution
from seqgen.catalogue import CORE_DECODERS
from seqgen.errors import PluginError, SeqgenError, UsageError
from seqgen.hookspecs import SeqgenHooks
from seqgen.plugins import Plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed distributions, found before all others."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("SEQGEN_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("SEQGEN_REGISTRY", raising=False)
    return tmp_path


def install(site: Path, name: str, module: str, source: str, **more: str) -> None:
    write_distribution(
        site,
        name=more.get("distribution", f"dist-{name}"),
        version="2.5",
        plugins={name: f"{module}:plugin"},
        modules={f"{module}.py": source},
        summary=more.get("summary", ""),
    )


def names(plugins: Plugins) -> list[str]:
    return [ref.full_name for ref in plugins.installed()]


def test_listing_imports_nothing(site: Path) -> None:
    install(site, "quiet", "t_quiet", "raise RuntimeError('imported')", summary="it is quiet")
    plugins = Plugins()
    (ref,) = [ref for ref in plugins.installed() if ref.name == "quiet"]
    assert (ref.distribution, ref.version, ref.summary) == ("dist-quiet", "2.5", "it is quiet")
    assert plugins.find("quiet") == ref
    assert "t_quiet" not in sys.modules


def test_loading_one_leaves_the_others_alone(site: Path) -> None:
    install(site, "good", "t_good1", good_plugin("good", "t_good1"))
    install(site, "bad", "t_bad1", "raise RuntimeError('boom')")
    plugins = Plugins()
    info = plugins.info("good")
    assert info.summary == "a plugin of the tests"
    assert [d.name for d in plugins.load("good").decoders()] == ["good-search"]
    assert "t_bad1" not in sys.modules


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import sys; sys.exit(3)", "sys.exit(3)"),
        ("import not_there_at_all", "not_there_at_all"),
        ("nothing = 1", "plugin"),
        ("def broken(:", "SyntaxError"),
        (
            "from seqgen.hookspecs import hookimpl\n"
            "class P:\n    api = 1\n    @hookimpl\n    def seqgen_domain(self): return []\n"
            "plugin = P()",
            "seqgen_domain",
        ),
        (
            "from seqgen.hookspecs import hookimpl\n"
            "class P:\n    api = 1\n    @hookimpl\n    def seqgen_domains(self): return ['x']\n"
            "plugin = P()",
            "DomainInfo",
        ),
    ],
)
def test_a_broken_plugin_names_distribution_version_cause_and_fix(
    site: Path, source: str, cause: str, request: pytest.FixtureRequest
) -> None:
    module = f"t_broken_{abs(hash(source))}"
    install(site, "broken", module, source)
    install(site, "fine", module + "_fine", good_plugin("fine", module + "_fine"))
    plugins = Plugins()
    with pytest.raises(PluginError) as caught:
        plugins.load("broken")
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "dist-broken 2.5" in message
    assert cause in message
    assert "pip install --upgrade dist-broken" in caught.value.fix
    loaded, errors = plugins.load_each()
    assert "fine" in [plugin.ref.name for plugin in loaded]
    assert list(errors) == ["dist-broken:broken"]


@pytest.mark.parametrize(
    ("api", "upgrade"), [("None", "dist-old"), ("0", "dist-old"), ("2", "seqgen-kit")]
)
def test_another_interface_is_refused(site: Path, api: str, upgrade: str) -> None:
    install(site, "old", f"t_old_{api}", f"class P: api = {api}\nplugin = P()")
    with pytest.raises(PluginError, match="api = ") as caught:
        Plugins().load("old")
    assert caught.value.fix == f"pip install --upgrade {upgrade}"


def test_two_distributions_of_one_name_are_both_listed(site: Path) -> None:
    install(site, "twin", "t_twin1", good_plugin("twin", "t_twin1"), distribution="first-dist")
    install(site, "twin", "t_twin2", good_plugin("twin", "t_twin2"), distribution="second-dist")
    plugins = Plugins()
    with pytest.raises(PluginError) as caught:
        plugins.load("twin")
    assert "first-dist 2.5" in str(caught.value)
    assert "second-dist 2.5" in str(caught.value)
    assert "--plugin first-dist:twin" in caught.value.fix
    assert plugins.load("second-dist:twin").ref.value == "t_twin2:plugin"
    assert Plugins(disabled=["first-dist:twin"]).load("twin").ref.distribution == "second-dist"


def test_the_same_distribution_twice_on_the_path_is_one(
    site: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    install(site, "once", "t_once", good_plugin("once", "t_once"))
    install(other, "once", "t_once", good_plugin("once", "t_once"))
    monkeypatch.syspath_prepend(str(other))
    assert names(Plugins()).count("dist-once:once") == 1


def test_disabled_plugins_are_listed_but_never_loaded(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "off", "t_off", "raise RuntimeError('imported')")
    monkeypatch.setenv("SEQGEN_DISABLE_PLUGINS", "other, off")
    plugins = Plugins()
    assert [ref.disabled for ref in plugins.installed() if ref.name == "off"] == [True]
    with pytest.raises(UsageError, match="disabled"):
        plugins.load("off")
    assert plugins.load_each()[1] == {}


def test_an_unknown_name_gets_a_suggestion(site: Path) -> None:
    install(site, "melody", "t_melody", good_plugin("melody", "t_melody"))
    with pytest.raises(UsageError, match="did you mean 'melody'") as caught:
        Plugins().find("melodie")
    assert caught.value.exit_code == 2


def test_a_known_plugin_that_is_not_installed_answers_with_the_command(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = site / "more.yaml"
    cards.write_text(
        "schema: 1\nplugins:\n  birdsong: {summary: s, distribution: seqgen-birds, extra: song}\n"
    )
    monkeypatch.setenv("SEQGEN_REGISTRY", str(cards))
    with pytest.raises(PluginError, match="not installed") as caught:
        Plugins().find("birdsong")
    assert caught.value.fix == "pip install 'seqgen-birds[song]'"
    assert caught.value.exit_code == 3


def test_domain_is_imported_when_it_is_used(site: Path) -> None:
    install(site, "late", "t_late", good_plugin("late", "t_late"))
    (site / "t_late_domain.py").write_text("class Domain:\n    here = True\n")
    plugins = Plugins()
    assert plugins.info("late").factory == "t_late_domain:Domain"
    assert "t_late_domain" not in sys.modules
    assert plugins.domain("late").here  # type: ignore[attr-defined]
    assert plugins.domain("dist-late:late/late").here  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="no domain 'early'"):
        plugins.domain("late/early")


def test_a_missing_package_answers_with_the_extra(site: Path) -> None:
    install(site, "needy", "t_needy", good_plugin("needy", "t_needy"))
    (site / "t_needy_domain.py").write_text("import a_package_nobody_has\n")
    with pytest.raises(PluginError, match="needs the package 'a_package_nobody_has'") as caught:
        Plugins().domain("needy")
    assert caught.value.fix == "pip install 'dist-needy[fancy]'"


def test_a_missing_module_of_its_own_is_a_broken_plugin(site: Path) -> None:
    install(site, "holey", "t_holey", good_plugin("holey", "t_holey"))
    with pytest.raises(PluginError, match="is broken"):
        Plugins().domain("holey")


def test_a_domain_that_fails_to_start_is_a_broken_plugin(site: Path) -> None:
    install(site, "shaky", "t_shaky", good_plugin("shaky", "t_shaky"))
    (site / "t_shaky_domain.py").write_text("class Other: pass\n")
    with pytest.raises(PluginError, match="AttributeError"):
        Plugins().domain("shaky")


def test_cards_of_a_plugin_join_the_registry(site: Path) -> None:
    source = good_plugin("carded", "t_carded").replace(
        "plugin = Plugin()",
        "class WithCards(Plugin):\n"
        "    @hookimpl\n"
        "    def seqgen_cards(self):\n"
        "        from pathlib import Path\n"
        "        return [Path(__file__).with_name('cards.yaml')]\n\n"
        "plugin = WithCards()",
    )
    install(site, "carded", "t_carded", source)
    (site / "cards.yaml").write_text(
        "schema: 1\nmodels:\n  wren: {plugin: carded, status: untested, summary: small}\n"
    )
    plugins = Plugins()
    assert plugins.registry("carded").default_card("carded").name == "wren"
    assert "wren" in plugins.registry().models
    with pytest.raises(SeqgenError, match="no model of its own"):
        plugins.registry("carded").default_card("nobody")


def test_every_core_decoder_that_is_listed_exists() -> None:
    import seqgen.decoders as decoders
    from seqgen.decoders.base import GroupDecoder

    listed = {EntryPoint("x", info.factory, "x").load() for info in CORE_DECODERS}
    exported = {getattr(decoders, name) for name in decoders.__all__}
    recipes = {c for c in exported if isinstance(c, type) and issubclass(c, GroupDecoder)}
    assert recipes <= listed


def test_the_hooks_are_the_four_of_the_design() -> None:
    hooks = {name for name in vars(SeqgenHooks) if name.startswith("seqgen_")}
    assert hooks == {"seqgen_domains", "seqgen_decoders", "seqgen_cards", "seqgen_commands"}
