"""The public names are what they say, in whatever order they are asked for."""

from __future__ import annotations

import pkgutil

import agentexec

MODULES = {"activity", "approvals", "testing", "web", "webhooks"}


def test_no_public_name_is_hidden_by_a_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(agentexec.__path__)}
    assert modules & set(agentexec.__all__) == MODULES, "importing a module sets the package's attribute"
