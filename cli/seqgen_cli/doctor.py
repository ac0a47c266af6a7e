"""`seqgen doctor`: looks at this installation and says what is wrong and how to put it right."""

from __future__ import annotations

import importlib.util
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Literal

import click

from seqgen.domain import API_VERSION
from seqgen.errors import SeqgenError
from seqgen.plugins import GROUP, OWN_DISTRIBUTION, Plugins
from seqgen_cli.tables import print_json

EPILOG = """\b
Examples:
  seqgen doctor
  seqgen doctor --json
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report; only `fail` makes the exit code 1."""

    state: Literal["ok", "note", "fail"]
    subject: str
    detail: str
    fix: str = ""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check this installation: versions, device, plugins, files.

    Exits with 1 if something is broken; notes alone do not count.
    """
    findings: list[Finding] = []
    for check in CHECKS:
        for finding in check():
            findings.append(finding)
            if not as_json:
                click.echo(f"{finding.state:<5} {finding.subject}: {finding.detail}")
                if finding.fix:
                    click.echo(f"      fix: {finding.fix}")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.state == "fail" for finding in findings):
        ctx.exit(1)


def check_python() -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.platform()}")


def check_own_distribution() -> Iterator[Finding]:
    import seqgen

    place = Path(seqgen.__file__).parent
    try:
        own = distribution(OWN_DISTRIBUTION)
    except PackageNotFoundError:
        yield Finding(
            "fail",
            OWN_DISTRIBUTION,
            f"runs from {place} but is not installed, so it has no plugins",
            "pip install -e '.[all]' in the checkout",
        )
        return
    if own.version != seqgen.__version__:
        yield Finding(
            "fail",
            OWN_DISTRIBUTION,
            f"{own.version} is installed, but {seqgen.__version__} is imported from {place}",
            "remove the other copy from PYTHONPATH, or install this one again",
        )
    else:
        yield Finding("ok", OWN_DISTRIBUTION, f"{own.version} at {place}")
    yield from _stale_entry_points(own, place)


def check_foreign_package() -> Iterator[Finding]:
    try:
        foreign = distribution("seqgen")
    except PackageNotFoundError:
        return
    yield Finding(
        "fail",
        "seqgen",
        f"the foreign package seqgen {foreign.version} is installed; its files overwrite or hide "
        "ours",
        f"pip uninstall seqgen, then pip install --force-reinstall --no-deps {OWN_DISTRIBUTION}",
    )


def check_packages() -> Iterator[Finding]:
    seen: set[str] = set()
    for requirement in _requirements():
        match = re.match(r"([A-Za-z0-9_.-]+)", requirement)
        if match is None or match[0] == OWN_DISTRIBUTION or match[0] in seen:
            continue  # the extra `all` repeats the others
        seen.add(match[0])
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", requirement)
        try:
            yield Finding("ok", match[0], version(match[0]))
        except PackageNotFoundError:
            if extra is None:
                fix = f"pip install --upgrade {OWN_DISTRIBUTION}"
                yield Finding("fail", match[0], "is required and not installed", fix)
            else:
                fix = f"pip install '{OWN_DISTRIBUTION}[{extra[1]}]'"
                detail = f"not installed; the extra {extra[1]!r} needs it"
                yield Finding("note", match[0], detail, fix)


def check_torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return  # check_packages has said so
    try:
        import torch
    except (ImportError, OSError) as error:
        fix = "install it again as PyTorch's install page says"
        yield Finding("fail", "torch", f"cannot be imported: {error}", fix)
        return
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Apple GPU (mps)")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    yield Finding("ok", "torch build", f"{torch.__version__}, {build}")
    threads = f"{torch.get_num_threads()} CPU threads"
    yield Finding("ok", "devices", ", ".join([*devices, threads]))
    from seqgen.compiled import cpp_compiler

    if (compiler := cpp_compiler()) is not None:
        yield Finding("ok", "C++ compiler", compiler)
    else:
        detail = "not found; --compile, and training with compile=true, need it on a CPU"
        yield Finding("note", "C++ compiler", detail, "install g++, or set CXX")


def check_torchaudio() -> Iterator[Finding]:
    if importlib.util.find_spec("torchaudio") is None:
        return
    # In a process of its own: a failed import would stay half done in this one.
    code = "import torchaudio"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode == 0:
        yield Finding("ok", "torchaudio import", "works")
        return
    last = (done.stderr.strip().splitlines() or ["unknown"])[-1]
    if last.startswith("OSError"):
        yield Finding(
            "note",
            "torchaudio import",
            "its compiled part does not fit this torch (usual for a CPU build of torch); the "
            "speech plugin needs only the rest and works round it",
        )
    else:
        yield Finding("note", "torchaudio import", last, "pip install --upgrade torchaudio")


def check_plugins() -> Iterator[Finding]:
    from seqgen_cli.check_plugin import check_in_process_of_its_own

    plugins = Plugins()
    for ref in plugins.installed():
        subject = f"plugin {ref.name} ({ref.distribution} {ref.version})"
        if ref.disabled:
            yield Finding("note", subject, "disabled by $SEQGEN_DISABLE_PLUGINS")
            continue
        try:
            plugins.find(ref.name)
        except SeqgenError as error:
            yield Finding("fail", subject, error.what, error.fix)
        result = check_in_process_of_its_own(ref)
        if result.ok:
            domains = ", ".join(result.domains) or "none"
            yield Finding("ok", subject, f"api {API_VERSION}, domains: {domains}")
        else:
            what, _, fix = result.cause.partition("\n  fix: ")
            yield Finding("fail", subject, what.replace("\n  ", "; "), fix)


def check_models() -> Iterator[Finding]:
    from seqgen.weights import local_files, whereabouts

    try:
        cards = Plugins().registry().models.values()
    except SeqgenError as error:
        yield Finding("fail", "registry", f"{error.what} ({error.why})", error.fix)
        return
    yield Finding("ok", "registry", f"{len(cards)} model cards")
    for card in cards:
        if whereabouts(card) not in ("shipped", "downloaded", "missing"):
            continue
        try:
            local_files(card)
            yield Finding("ok", f"model {card.name}", "its files are here and undamaged")
        except SeqgenError as error:
            detail = error.what + (f" ({error.why})" if error.why else "")
            yield Finding("fail", f"model {card.name}", detail, error.fix)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_own_distribution,
    check_foreign_package,
    check_packages,
    check_torch,
    check_torchaudio,
    check_plugins,
    check_models,
)


def _requirements() -> list[str]:
    try:
        return requires(OWN_DISTRIBUTION) or []
    except PackageNotFoundError:
        return []


def _stale_entry_points(own: Distribution, place: Path) -> Iterator[Finding]:
    # Entry points are frozen when the package is installed; in a checkout pyproject.toml may have
    # gained or lost some since.
    pyproject = place.parents[1] / "pyproject.toml"
    if not pyproject.is_file():
        return
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    if project.get("name") != OWN_DISTRIBUTION:
        return
    wanted = project.get("entry-points", {}).get(GROUP, {})
    installed = {point.name: point.value for point in own.entry_points if point.group == GROUP}
    if wanted != installed:
        changed = sorted({name for name, _ in wanted.items() ^ installed.items()})
        yield Finding(
            "fail",
            "entry points",
            f"pyproject.toml and the installed metadata differ in: {', '.join(changed)}",
            "pip install -e . (or make setup)",
        )
