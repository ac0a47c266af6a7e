"""The chat template of a model folder: a Jinja text that turns messages into a prompt.

The template comes with the weights, so it runs in Jinja's sandbox.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqgen.errors import CheckpointError, PluginError


@dataclass(frozen=True)
class ChatTemplate:
    """A template and the special tokens that it names.

    Attributes:
        source: the Jinja text.
        tokens: `bos_token`, `eos_token`, ... as texts.
        path: where it comes from.
    """

    source: str
    tokens: dict[str, str]
    path: Path

    @classmethod
    def read(cls, folder: Path) -> ChatTemplate | None:
        """The template in `chat_template.jinja` or `tokenizer_config.json`; None without one.

        Raises:
            CheckpointError: a file is damaged.
        """
        config_path, own_path = folder / "tokenizer_config.json", folder / "chat_template.jinja"
        config: dict[str, Any] = {}
        try:
            if config_path.is_file():
                config = json.loads(config_path.read_text(encoding="utf-8"))
            source = own_path.read_text(encoding="utf-8") if own_path.is_file() else None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{config_path} is damaged", why=str(error)) from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{config_path} is not a JSON object")
        path = config_path if source is None else own_path
        if source is None:
            source = _default(config.get("chat_template"))
        if source is None:
            return None
        return cls(source, _tokens(config), path)

    def write(self, folder: Path) -> None:
        """Put the template and its tokens into a folder that has a `tokenizer_config.json`."""
        (folder / "chat_template.jinja").write_text(self.source, encoding="utf-8")
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | self.tokens
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def render(self, prompt: str, system: str = "") -> str:
        """The prompt as a user's message, up to where the answer begins.

        Raises:
            CheckpointError: the template is wrong, or does not take these messages.
            PluginError: the package jinja2 is not installed.
        """
        try:
            from jinja2 import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise PluginError(
                "the chat template cannot be used", why=str(error), fix="pip install jinja2"
            ) from error

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = refuse
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        try:
            template = environment.from_string(self.source)
            return template.render(messages=messages, add_generation_prompt=True, **self.tokens)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise CheckpointError(
                f"the chat template in {self.path} cannot be used",
                why=f"{type(error).__name__}: {error}",
                fix="--set chat=off gives the model the prompt as it is",
            ) from error


def _default(found: Any) -> str | None:
    """A config holds one template, or a list of named ones."""
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    return found if isinstance(found, str) and found else None


def _tokens(config: dict[str, Any]) -> dict[str, str]:
    tokens = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            tokens[name] = value
    return tokens


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes HTML characters, which a prompt must not have.
    return json.dumps(value, ensure_ascii=False, indent=indent)
