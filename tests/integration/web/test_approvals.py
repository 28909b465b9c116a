"""Approvals in the HTTP API and on the command line: changed arguments, rules, and who decided."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert

import agentexec as ax
from agentexec.arguments.actors import current_user, source_on_host
from agentexec.db.clock import utc_now
from agentexec.journal.models import Approval
from agentexec.runtime import RUNTIME
from tests.deployment import Deployment, run_in_process
from tests.integration.web.conftest import headers

SCHEMA = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}}


def asking(call_id: str = "call_1", **labels: Any) -> UUID:
    """Return a task that asks for approval of a payment."""
    agent_id = ax.enqueue_sync("work", {"key": "a"}, metadata=labels or None).agent_id
    row = {
        "agent_id": agent_id,
        "path": call_id,
        "seq": 0,
        "call_id": call_id,
        "kind": "approval",
        "tool": "pay",
    }
    row |= {"arguments": '{"amount": 300}', "status": "pending", "created_at": utc_now()}
    with RUNTIME.engine.begin() as connection:
        connection.execute(insert(Approval).values(**row, arguments_schema=json.dumps(SCHEMA)))
    return agent_id


def test_a_call_is_approved_with_changed_arguments(web: TestClient) -> None:
    task = asking()
    url = f"approvals/{task}/call_1/approve"
    assert json.loads(web.get("approvals").json()[0]["arguments_schema"]) == SCHEMA
    refused = web.post(url, json={"arguments": {"amount": "much"}})
    assert (refused.status_code, "arguments.amount" in refused.json()["detail"]) == (422, True)
    assert web.post(url, json={"arguments": [1]}).status_code == 422
    body = {"arguments": {"amount": 5}, "reason": "Too much."}
    assert web.post(url, json=body).json() == {"changed": True}
    assert web.get("approvals").json() == []
    [call] = web.get(f"approvals?state=decided&agent_id={task}").json()
    assert (call["status"], call["edited"], call["decided_arguments"]) == ("approved", True, '{"amount":5}')
    assert (call["decided_by"], call["decided_from"], call["reason"]) == (
        "alice",
        "http testclient",
        "Too much.",
    )
    assert web.get("approvals?state=odd").status_code == 422


def test_rules_are_made_listed_and_revoked_by_the_tenant_that_they_are_about(web: TestClient) -> None:
    task = asking(tenant="a")
    rule = {"where": ["amount<=500"], "scope": "metadata", "metadata": {"team": "x"}}
    mine, theirs = headers(tenant="a"), headers(tenant="b")
    url = f"approvals/{task}/call_1/approve"
    assert web.post(url, json={"rule": rule}, headers=theirs).status_code == 404
    assert web.post(url, json={"rule": rule}, headers=mine).status_code == 422, "the task has no such label"
    rule["metadata"] = {"tenant": "a"}
    assert web.post(url, json={"rule": {**rule, "where": ["odd"]}}, headers=mine).status_code == 422
    assert web.post(url, json={"rule": rule}, headers=mine).json() == {"changed": True}
    [made] = web.get("approval-rules", headers=mine).json()
    assert (made["tool"], made["where"], made["metadata"]) == ("pay", ["amount<=500"], {"tenant": "a"})
    assert web.get("approval-rules", headers=theirs).json() == []
    other = {"tool": "pay", "where": [], "scope": "metadata", "metadata": {"tenant": "a"}}
    assert web.post("approval-rules", json=other, headers=theirs).status_code == 422
    own = web.post("approval-rules", json={**other, "metadata": {"tenant": "b"}}, headers=theirs).json()
    revoke = f"approval-rules/{made['rule_id']}/revoke"
    assert web.post(revoke, headers=theirs).status_code == 404
    assert web.post(revoke, headers=mine).json() == {"changed": True}
    assert web.post(revoke, headers=mine).json() == {"changed": False}
    assert [found["rule_id"] for found in web.get("approval-rules").json()] == [own["rule_id"]]
    assert len(web.get("approval-rules?ended=true").json()) == 2


def test_the_command_line_changes_arguments_and_makes_rules(deployment: Deployment) -> None:
    task = asking(tenant="a")
    code, _, err = run_in_process(deployment, "approve", str(task), "call_1", "--arguments", "[1]")
    assert (code, "JSON object" in err) == (2, True)
    options = ("--all-like-it", "--where", "amount<=500", "--for", "tenant=a", "--expires", "2d")
    changed = ("--arguments", '{"amount": 5}', "--reason", "Small.", "--by", "alice")
    assert run_in_process(deployment, "approve", str(task), "call_1", *changed, *options)[0] == 0
    code, out, _ = run_in_process(deployment, "approvals", "--state", "decided")
    who = f"by alice ({source_on_host('cli')})"
    assert f'pay({{"amount": 300}}): approved with changed arguments {{"amount":5}} {who}' in out
    assert (
        f'approved with changed arguments {{"amount":5}} {who}'
        in run_in_process(deployment, "show", str(task))[1]
    )
    [rule] = json.loads(run_in_process(deployment, "approvals", "rules", "--json")[1])
    assert (rule["where"], rule["metadata"], rule["reason"]) == (["amount<=500"], {"tenant": "a"}, "Small.")
    assert "pay(amount<=500) for metadata tenant=a" in run_in_process(deployment, "approvals", "rules")[1]
    assert run_in_process(deployment, "approvals", "rules", "revoke", rule["rule_id"])[0] == 0
    assert run_in_process(deployment, "approvals", "rules", "revoke", rule["rule_id"])[0] == 1
    assert run_in_process(deployment, "approvals", "rules")[2] == "No rules approve calls.\n"
    added = run_in_process(
        deployment, "approvals", "rules", "add", "pay", "--task", str(task), "--by", "carol"
    )
    assert added[0] == 0
    assert "by carol" in run_in_process(deployment, "approvals", "rules")[1]
    for options, name in (((), current_user()), (("--by", "bob"), "bob")):
        assert run_in_process(deployment, "reject", str(asking()), "call_1", *options)[0] == 0
        assert f"rejected by {name} (" in run_in_process(deployment, "approvals", "--state", "decided")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("approvals", "rules", "add"),
        ("approvals", "rules", "odd", "x"),
        ("approvals", "rules", "revoke", "x"),
        ("approvals", "rules", "add", "pay"),
        ("approvals", "rules", "add", "pay", "--for", "x"),
        ("approvals", "--state", "odd"),
        ("approve", str(UUID(int=7)), "call", "--where", "a=1"),
        ("approve", str(UUID(int=7)), "call", "--all-like-it", "--where", "odd"),
        ("approve", str(UUID(int=7)), "call", "--arguments", "@missing.json"),
    ],
    ids=" ".join,
)
def test_odd_commands_are_explained(deployment: Deployment, arguments: tuple[str, ...]) -> None:
    code, out, err = run_in_process(deployment, *arguments)
    assert (code, out, err.startswith("agentexec: ")) == (2, "", True)
