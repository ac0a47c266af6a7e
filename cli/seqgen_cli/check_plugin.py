"""Checks one plugin, in a process of its own: `python -m seqgen_cli.check_plugin DIST:NAME`.

`seqgen plugins check` and `seqgen doctor` start it, so that a plugin that hangs, exits or crashes
the interpreter is reported like any other broken one. Prints one JSON object as its last line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from seqgen.errors import SeqgenError
from seqgen.plugins import PluginRef, Plugins

TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class CheckResult:
    """What came of it; `cause` is the whole message when it is broken."""

    plugin: str
    distribution: str
    version: str
    ok: bool
    cause: str = ""
    domains: tuple[str, ...] = ()


def check_in_process_of_its_own(ref: PluginRef, *, contract: bool = False) -> CheckResult:
    """Load the plugin, its cards and its domains in a new interpreter.

    Args:
        contract: also run `seqgen.testing.check_domain` on each domain.
    """
    command = [sys.executable, "-m", "seqgen_cli.check_plugin", ref.full_name]
    command += ["--contract"] if contract else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return _broken(ref, f"it did not finish within {TIMEOUT_SECONDS} s")
    lines = done.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1])
        return CheckResult(
            ref.name,
            ref.distribution,
            ref.version,
            ok=bool(answer["ok"]),
            cause=str(answer["cause"]),
            domains=tuple(answer["domains"]),
        )
    except (IndexError, ValueError, TypeError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return _broken(ref, f"its process ended with code {done.returncode}: {last}")


def _broken(ref: PluginRef, cause: str) -> CheckResult:
    return CheckResult(ref.name, ref.distribution, ref.version, ok=False, cause=cause)


def main(name: str, *, contract: bool) -> dict[str, object]:
    """The check itself."""
    plugins = Plugins()
    checked: list[str] = []
    try:
        plugin = plugins.load(name)
        plugins.registry(name)
        for info in plugin.domains:
            full_name = f"{plugin.ref.full_name}/{info.name}"
            plugins.domain(full_name)
            if contract:
                from seqgen.testing import check_domain

                check_domain(full_name)
            checked.append(info.name)
    except (SeqgenError, AssertionError) as error:
        return {"ok": False, "cause": str(error), "domains": checked}
    return {"ok": True, "cause": "", "domains": checked}


if __name__ == "__main__":
    print("\n" + json.dumps(main(sys.argv[1], contract="--contract" in sys.argv[2:])), flush=True)
