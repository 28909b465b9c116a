"""The checks of the sources find what they name, and nothing else."""

from __future__ import annotations

import ast

import pytest

from tools.source_checks import (
    check_complexity,
    check_file,
    check_length,
    check_modules,
    check_names,
    check_openings,
    check_phrases,
    source_paths,
)


def openings(text: str) -> list[str]:
    return [finding.text for finding in check_openings("a.py", ast.parse(text))]


def phrases(text: str) -> list[str]:
    return [finding.text for finding in check_phrases("a.py", text)]


@pytest.mark.parametrize(
    "text",
    [
        '"""What a task is."""',
        'def f():\n    """How it is done."""',
        'async def f():\n    """whether it is done."""',
        'class A:\n    """*That* one."""',
        'MAX = 3\n"""Which number is the highest."""',
        'class A:\n    size: int\n    """Where it lies."""',
    ],
)
def test_a_docstring_that_opens_with_a_question_word_is_found(text: str) -> None:
    assert len(openings(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        '"""Tasks, and what they are."""',
        'def f():\n    """Return the tasks whose lease has expired."""',
        'MAX = 3\n"""Highest number of tasks."""',
        'f("What is it?")',
        'x = "What is it?"',
        '"""Whatever comes."""',
    ],
)
def test_other_docstrings_and_texts_pass(text: str) -> None:
    assert openings(text) == []


def test_pronouns_as_names_are_found() -> None:
    text = "for one in []:\n    pass\nthose = [x for x in []]\ndef f(one): ...\nnone, first = 1, 2\n"
    found = check_names("a.py", ast.parse(text))
    assert sorted(finding.line for finding in found) == [1, 3, 4]


@pytest.mark.parametrize(
    "text",
    [
        "the how manieth of these it is",
        "# It begins\n    # anew.",
        "A task is no\n    agent.",
        "> The way of\n> a task",
        "backend.hasten(queue, ids)",
        "db.at_once(statement)",
        "class Signals:",
        "It Is There Now.",
        "agentexec/signals.py",
    ],
)
def test_a_replaced_phrase_is_found_also_over_two_lines(text: str) -> None:
    assert len(phrases(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "There is no queue.",
        "It is no longer there.",
        "def test_all_at_once_is_fine(): ...",
        "at once",
        "class Signalset:",
        "x.not_hastened",
        "no exception",
    ],
)
def test_what_only_looks_like_it_passes(text: str) -> None:
    assert phrases(text) == []


def test_a_long_module_is_found() -> None:
    assert not list(check_length("a.py", "x\n" * 400))
    assert [finding.text for finding in check_length("a.py", "x\n" * 401)] == ["401 lines, at most 400"]


def test_a_complex_function_or_method_is_found() -> None:
    branches = "".join(f"    if x == {n}:\n        x = 0\n" for n in range(12))
    simple, complex_ = branches.replace("    if x == 0:\n        x = 0\n", "", 1), branches
    assert not list(check_complexity("a.py", f"def f(x):\n{simple}"))
    (finding,) = check_complexity("a.py", f"def f(x):\n{complex_}")
    assert finding.text == "f is 13, at most 12"
    method = "class A:\n" + "".join(f"    {line}\n" for line in f"def f(x):\n{complex_}".splitlines())
    assert [found.text for found in check_complexity("a.py", method)] == ["A.f is 13, at most 12"]


def test_too_many_loose_modules_are_found() -> None:
    paths = [f"agentexec/module_{n}.py" for n in range(12)]
    assert not list(check_modules([*paths, "agentexec/cli/app.py"]))
    assert [finding.text for finding in check_modules([*paths, "agentexec/x.py"])] == [
        "13 modules, at most 12"
    ]


def test_length_and_complexity_are_limited_in_the_package_only() -> None:
    text = "x = 1\n" * 401
    assert [finding.check for finding in check_file("agentexec/a.py", text)] == ["length"]
    assert list(check_file("tests/test_a.py", text)) == []


def test_the_sources_are_found() -> None:
    paths = source_paths()
    assert {"agentexec/__init__.py", "README.md", "dev", ".ci/run", "docs/security.md"} <= set(paths)
    assert not [path for path in paths if path.startswith(("uv.lock", ".venv"))]
