"""The registry of verbs."""

from __future__ import annotations

import ast
import inspect

import pytest

from agentexec.cli import verbs
from agentexec.cli.verbs import VERBS

MODULES = {"agentexec.cli." + verb.replace("-", "_") for verb in VERBS}
"""Each verb's own module."""


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_the_function_run_of_the_module_with_its_name(verb: str) -> None:
    command = VERBS[verb]()
    assert (command.__module__, command.__name__) == ("agentexec.cli." + verb.replace("-", "_"), "run")
    assert command.__doc__, "which --help shows"


def test_every_verbs_import_is_visible_in_the_registrys_source() -> None:
    tree = ast.parse(inspect.getsource(verbs))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported >= MODULES
