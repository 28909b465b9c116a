"""Only the modules of agentexec/activity/changes write a task's status, or add a task."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[4] / "agentexec"
WRITERS = PACKAGE / "activity" / "changes"
RAW_WRITE = re.compile(
    r"INSERT\s+INTO\s+\S*activity(?![a-z_])|UPDATE\s+\S*activity(?![a-z_]).*?\bstatus\s*=", re.I | re.S
)
WRITE_VERB = re.compile("INSERT|UPDATE", re.I)
ACTIVITY_NAMES = {"Activity", "ACTIVITY"}


def test_no_module_outside_the_changes_writes_a_status() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        if WRITERS not in path.parents
        for line in status_writes(path.read_text())
    }
    assert found == set(), "a status is written in agentexec/activity/changes only"


def test_the_changes_write_it() -> None:
    """The search finds the writes that it is to find."""
    found = {path.name for path in WRITERS.glob("*.py") if list(status_writes(path.read_text()))}
    assert {"statements.py", "postgres_store.py"} <= found


@pytest.mark.parametrize(
    ("source", "writes"),
    [
        ("update(Activity).where(x).values(status=DONE)", True),
        ("update(ACTIVITY).values({'status': DONE})", True),
        ("update(models.Activity.__table__).values(**{'status': DONE})", True),
        ("ACTIVITY.update().values(status=DONE)", True),
        ("insert(ACTIVITY)", True),
        ("insert(Activity.__table__).values(row)", True),
        ("session.add(Activity(agent_id=x))", True),
        ("row.status = Status.COMPLETE", True),
        ("f\"UPDATE {ACTIVITY.name} a SET status = 'X' FROM b\"", True),
        ("text('INSERT INTO agentexec_activity VALUES (1)')", True),
        ("update(ACTIVITY).values(crashes_in_row=0)", False),
        ("update(ACTIVITY).where(ACTIVITY.c.status == QUEUED).values(run_at=None)", False),
        ("insert(LOG).values(status=DONE)", False),
        ("select(Activity).where(Activity.status == DONE)", False),
        ('f"UPDATE {ACTIVITY.name} a SET crashes_in_row = 0 FROM held"', False),
        ("text('INSERT INTO agentexec_activity_log VALUES (1)')", False),
    ],
)
def test_writes_of_a_status_are_recognized(source: str, writes: bool) -> None:
    assert bool(list(status_writes(source))) is writes


def status_writes(source: str) -> Iterator[int]:
    """The lines of a module that add an activity or write its status, as far as its text tells."""
    for node in ast.walk(ast.parse(source)):
        if (
            (isinstance(node, ast.Call) and (_adds_activity(node) or _sets_status(node)))
            or (isinstance(node, ast.Assign) and any(_is_row_status(target) for target in node.targets))
            or (isinstance(node, (ast.JoinedStr, ast.Constant)) and RAW_WRITE.search(_text(node)))
        ):
            yield node.lineno


def _adds_activity(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name) and call.func.id == "Activity":
        return True
    return _verb(call) == "insert" and _is_activity(call)


def _sets_status(call: ast.Call) -> bool:
    """True for `update(ACTIVITY)….values(status=…)`."""
    if _verb(call) != "values" or not _names_status(call):
        return False
    inner: ast.AST = call
    while isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
        if _verb(inner) == "update" and _is_activity(inner):
            return True
        inner = inner.func.value
    return isinstance(inner, ast.Call) and _verb(inner) == "update" and _is_activity(inner)


def _verb(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _is_activity(call: ast.Call) -> bool:
    """True if the call's first argument, or the table whose method it is, is the activity's table."""
    table = call.args[0] if call.args else getattr(call.func, "value", None)
    while isinstance(table, ast.Attribute):
        if table.attr in ACTIVITY_NAMES:
            return True
        table = table.value
    return isinstance(table, ast.Name) and table.id in ACTIVITY_NAMES


def _names_status(call: ast.Call) -> bool:
    keywords = {keyword.arg for keyword in call.keywords}
    constants = {node.value for node in ast.walk(call) if isinstance(node, ast.Constant)}
    return "status" in keywords or "status" in constants


def _is_row_status(target: ast.expr) -> bool:
    """True for `row.status = …`; a `status` of `self` is an object's own."""
    if not isinstance(target, ast.Attribute) or target.attr != "status":
        return False
    return not (isinstance(target.value, ast.Name) and target.value.id == "self")


def _text(node: ast.JoinedStr | ast.Constant) -> str:
    """A string with the names of tables in place of what is formatted into it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if not any(isinstance(part, ast.Constant) and WRITE_VERB.search(str(part.value)) for part in node.values):
        return ""  # most strings: writing an expression out again takes long
    return "".join(
        _text(part) if isinstance(part, ast.Constant) else f" {ast.unparse(part.value).split('.')[0]} "
        for part in node.values
        if isinstance(part, (ast.Constant, ast.FormattedValue))
    )
