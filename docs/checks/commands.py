"""Check of commands: the real command line parses `agentexec …`, and `./dev …` has the verb."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from agentexec.cli.app import TRACEBACK, build_app
from docs.checks.pages import ROOT, Block, Page, Problem

SHELL = ("bash", "sh", "shell", "console")
START = re.compile(r"(\$ )?((\w+=\S* )*)(agentexec|\./dev|python -m agentexec|uv run agentexec|pip|uv)( |$)")
"""Start of a line that is a command, in a block without a language."""

SEPARATORS = frozenset({"&&", "||", "|", ";", "&", "(", ")"})
INSTALLS = (["pip", "install"], ["uv", "add"], ["uv", "pip", "install"], ["uvx"])
IN_DATA = re.compile(r"(?:^|[\s\"'/=])agentexec (?P<rest>[^\"'\]#]+)")
LIST = re.compile(r"\[[^\[\]]*\"(?:[\w./-]*/)?agentexec\"[^\[\]]*\]")
EXECUTED = re.compile(r"^\s*-?\s*(?:Exec\w+=|CMD |ENTRYPOINT |HEALTHCHECK .*CMD |RUN |command:|test:)")


def problems(page: Page) -> Iterator[Problem]:
    for block in page.blocks:
        for line, words in _commands(block):
            if text := find_fault(words):
                yield page.problem(line, text)
    for span in page.spans:
        text = _without_synopsis(span.text)
        if re.match(r"(agentexec|\./dev) ", text):
            for words in _split(text):
                if text := find_fault(words, complete=False):
                    yield page.problem(span.line, text)


def find_fault(words: list[str], *, complete: bool = True) -> str | None:
    """Return what is wrong with a command, or None. `complete`: its required arguments must be there."""
    for install in INSTALLS:
        if words[: len(install)] == install and "agentexec" in words:
            return "the name agentexec on the package index belongs to another project; install from the repository"
    if words[:1] == ["./dev"]:
        verb = words[1] if len(words) > 1 else "help"
        return None if verb in verbs() else f"./dev has no verb {verb}"
    for at, word in enumerate(words):
        if word == "agentexec" or word.endswith("/agentexec"):
            return _misuse(words[at + 1 :], complete)
    return None


def _misuse(arguments: list[str], complete: bool) -> str | None:
    """Return the error of the command line for these arguments, or None. Nothing is run."""
    group = _command_line()
    arguments = [argument for argument in arguments if argument != TRACEBACK]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            parent = group.context_class(group, info_name="agentexec", **group.context_settings)
            _, rest, _ = group.make_parser(parent).parse_args(arguments)
            if not rest:
                return None
            if rest[0].isupper():
                return None  # a placeholder: agentexec COMMAND --help
            command = group.get_command(parent, rest[0])
            if command is None:
                return f"there is no command agentexec {rest[0]}"
            if complete:
                command.make_context(rest[0], rest[1:], parent=parent)
            else:
                inner = group.context_class(command, info_name=rest[0], parent=parent)
                command.make_parser(inner).parse_args(rest[1:])
    except Exception as error:
        # By their attributes, because typer may or may not bring its own copy of click.
        if format_message := getattr(error, "format_message", None):
            return f"agentexec {shlex.join(arguments)}: {format_message()}"
        if not hasattr(error, "exit_code"):  # as --help has
            raise
    return None


@cache
def _command_line() -> Any:
    return typer.main.get_command(build_app())


@cache
def verbs() -> frozenset[str]:
    """Return the verbs that `./dev help` lists."""
    usage = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True, check=True).stdout
    return frozenset(re.findall(r"^  ([a-z-]+)  ", usage, re.MULTILINE))


def _commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Yield the commands of a block, each with its line."""
    if block.language in ("python", "py", "html", "json"):
        return
    if block.language in SHELL or not block.language:
        yield from _shell_commands(block)
    else:
        yield from _commands_in_data(block)


def _shell_commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    prompted = any(line.startswith("$ ") for line in block.text.splitlines())
    for number, line in _logical_lines(block):
        if prompted and not line.startswith("$ "):
            continue  # output of the command
        if block.language or START.match(line):
            for words in _split(_without_synopsis(line.removeprefix("$ "))):
                yield number, words


def _commands_in_data(block: Block) -> Iterator[tuple[int, list[str]]]:
    """Yield the commands of a Dockerfile, a systemd unit, a Compose file or a Kubernetes manifest."""
    for number, line in _logical_lines(block):
        if not EXECUTED.match(line):
            continue
        if found := LIST.search(line):
            yield number, [str(word) for word in json.loads(found[0])]
        elif found := IN_DATA.search(line):
            yield from ((number, ["agentexec", *words]) for words in _split(found["rest"]))


def _logical_lines(block: Block) -> Iterator[tuple[int, str]]:
    """Yield the lines, each joined with its continuation lines (after a backslash or within quotes)."""
    start, text = block.line, ""
    for number, line in enumerate(block.text.splitlines(), block.line):
        start = start if text else number
        text += line
        if text.endswith("\\"):
            text = text[:-1]
            continue
        if block.language in SHELL and _is_open(text):
            text += "\n"
            continue
        yield start, text
        text = ""
    if text:
        yield start, text


def _is_open(text: str) -> bool:
    """Return whether a quote is not closed yet."""
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def _without_synopsis(text: str) -> str:
    """Return a command with its optional parts and the first of its alternatives.

    `x [A or B] [--json]` becomes `x A --json`.
    """
    if not re.match(r"(\$ )?(\w+=\S* )*(agentexec|\./dev) ", text):
        return text
    text = re.sub(r"<[\w -]+>", "WORD", text)
    text = re.sub(r"(\S+)((?:,? or \S+)+)", r"\1", text.split("  #")[0])
    if not re.search(r"[\"']", text):
        text = text.replace("[", "").replace("]", "").replace("…", "").replace("|", " | ")
        text = text.split(" | ")[0]
    return text


def _split(text: str) -> Iterator[list[str]]:
    """Yield the commands of a line, each without the variables that it sets."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        tokens = list(lexer)
    except ValueError:
        tokens = text.split()
    for token in [*tokens, ";"]:
        if token in SEPARATORS:
            while words and re.match(r"\w+=", words[0]):
                del words[0]
            if words:
                yield words
            words = []
        else:
            words.append(token)
