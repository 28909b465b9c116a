"""Commands on the pages are ones that can be given: `agentexec …` by the real command line, `./dev …` by its verbs."""

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
from docs.checks.pages import ROOT, Block, Complaint, Page

SHELL = ("bash", "sh", "shell", "console")
START = re.compile(r"(\$ )?((\w+=\S* )*)(agentexec|\./dev|python -m agentexec|uv run agentexec|pip|uv)( |$)")
"""How a line of a block without a language begins if it is a command."""

SEPARATORS = frozenset({"&&", "||", "|", ";", "&", "(", ")"})
INSTALLS = (["pip", "install"], ["uv", "add"], ["uv", "pip", "install"], ["uvx"])
IN_DATA = re.compile(r"(?:^|[\s\"'/=])agentexec (?P<rest>[^\"'\]#]+)")
LIST = re.compile(r"\[[^\[\]]*\"(?:[\w./-]*/)?agentexec\"[^\[\]]*\]")
EXECUTED = re.compile(r"^\s*-?\s*(?:Exec\w+=|CMD |ENTRYPOINT |HEALTHCHECK .*CMD |RUN |command:|test:)")


def complaints(page: Page) -> Iterator[Complaint]:
    for block in page.blocks:
        for line, words in _commands(block):
            if text := fault(words):
                yield page.complaint(line, text)
    for span in page.spans:
        text = _without_synopsis(span.text)
        if re.match(r"(agentexec|\./dev) ", text):
            for words in _split(text):
                if text := fault(words, whole=False):
                    yield page.complaint(span.line, text)


def fault(words: list[str], *, whole: bool = True) -> str | None:
    """What is wrong with a command, None if nothing is. `whole`: all that it needs must be there."""
    for install in INSTALLS:
        if words[: len(install)] == install and "agentexec" in words:
            return "the name agentexec on the package index belongs to another project; install from the repository"
    if words[:1] == ["./dev"]:
        verb = words[1] if len(words) > 1 else "help"
        return None if verb in verbs() else f"./dev has no verb {verb}"
    for at, word in enumerate(words):
        if word == "agentexec" or word.endswith("/agentexec"):
            return _misused(words[at + 1 :], whole)
    return None


def _misused(arguments: list[str], whole: bool) -> str | None:
    """What the command line says of these arguments; nothing is run."""
    group = _command_line()
    arguments = [argument for argument in arguments if argument != TRACEBACK]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            above = group.context_class(group, info_name="agentexec", **group.context_settings)
            _, rest, _ = group.make_parser(above).parse_args(arguments)
            if not rest:
                return None
            if rest[0].isupper():
                return None  # a placeholder: agentexec COMMAND --help
            command = group.get_command(above, rest[0])
            if command is None:
                return f"there is no command agentexec {rest[0]}"
            if whole:
                command.make_context(rest[0], rest[1:], parent=above)
            else:
                inner = group.context_class(command, info_name=rest[0], parent=above)
                command.make_parser(inner).parse_args(rest[1:])
    except Exception as error:
        # By what they have, as typer may bring its own copy of click or not.
        if tell := getattr(error, "format_message", None):
            return f"agentexec {shlex.join(arguments)}: {tell()}"
        if not hasattr(error, "exit_code"):  # as --help has
            raise
    return None


@cache
def _command_line() -> Any:
    return typer.main.get_command(build_app())


@cache
def verbs() -> frozenset[str]:
    """What `./dev` can do, by its own word."""
    usage = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True, check=True).stdout
    return frozenset(re.findall(r"^  ([a-z-]+)  ", usage, re.MULTILINE))


def _commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The commands of a block, each with its line."""
    if block.language in ("python", "py", "html", "json"):
        return
    prompted = any(line.startswith("$ ") for line in block.text.splitlines())
    for number, line in _logical_lines(block):
        if block.language in SHELL or not block.language:
            if prompted and not line.startswith("$ "):
                continue  # what the command prints
            if not block.language and not START.match(line):
                continue
            for words in _split(_without_synopsis(line.removeprefix("$ "))):
                yield number, words
        elif EXECUTED.match(line):
            if found := LIST.search(line):
                yield number, [str(word) for word in json.loads(found[0])]
            elif found := IN_DATA.search(line):
                yield from ((number, ["agentexec", *words]) for words in _split(found["rest"]))


def _logical_lines(block: Block) -> Iterator[tuple[int, str]]:
    """Lines, each joined with those that it goes on in, by a backslash or within quotes."""
    begun, held = block.line, ""
    for number, line in enumerate(block.text.splitlines(), block.line):
        begun = begun if held else number
        held += line
        if held.endswith("\\"):
            held = held[:-1]
            continue
        if block.language in SHELL and _is_open(held):
            held += "\n"
            continue
        yield begun, held
        held = ""
    if held:
        yield begun, held


def _is_open(text: str) -> bool:
    """A quote is not closed yet."""
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def _without_synopsis(text: str) -> str:
    """A command with its optional parts, of alternatives the first: `x [A or B] [--json]` is `x A --json`."""
    if not re.match(r"(\$ )?(\w+=\S* )*(agentexec|\./dev) ", text):
        return text
    text = re.sub(r"<[\w -]+>", "WORD", text)
    text = re.sub(r"(\S+)((?:,? or \S+)+)", r"\1", text.split("  #")[0])
    if not re.search(r"[\"']", text):
        text = text.replace("[", "").replace("]", "").replace("…", "").replace("|", " | ")
        text = text.split(" | ")[0]
    return text


def _split(text: str) -> Iterator[list[str]]:
    """The commands of a line, each without the variables that it sets."""
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
