"""Check of data blocks: they parse, and no block is hidden inside an indented block."""

from __future__ import annotations

import configparser
import json
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from docs.checks.pages import Page, Problem


def _ini(text: str) -> None:
    # Systemd units may repeat a key.
    configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True).read_string(text)


def _json_lines(text: str) -> None:
    for line in text.splitlines():
        json.loads(line)


PARSERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "jsonl": _json_lines,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "yml": lambda text: list(yaml.safe_load_all(text)),
    "toml": tomllib.loads,
    "ini": _ini,
}


def problems(page: Page) -> Iterator[Problem]:
    for block in page.blocks:
        if not block.language and any(line.lstrip().startswith("```") for line in block.text.splitlines()):
            yield page.problem(
                block.line, "the block in an indented block is text to GitHub and to the checks"
            )
        if parse := PARSERS.get(block.language):
            try:
                parse(block.text)
            except (ValueError, yaml.YAMLError, configparser.Error) as error:
                reason = str(error).splitlines()[0]
                yield page.problem(block.line, f"the {block.language} block does not parse: {reason}")
