"""The example of approvals, with scripted models: other arguments, a rule for all like it, and who decided."""

from __future__ import annotations

from typing import Any

import agentexec as ax
from examples.approvals import worker

LETTER = {"letter": "It came broken.", "customer": "ann@example.com"}


def refund(amount: float) -> dict[str, Any]:
    return {"customer": "ann@example.com", "amount": amount}


def test_a_refund_is_changed_and_smaller_ones_follow_by_rule() -> None:
    with ax.testing.harness(worker.pool) as harness:
        model = harness.model
        model.call_tool("find_price", {"order": 7}).call_tool("send_refund", refund(40)).say("Half is back.")
        first = harness.enqueue("refund", LETTER, metadata={"tenant": "acme"})
        harness.run_all()
        [question] = harness.approvals
        assert (question.tool, harness.task(first).status) == ("send_refund", ax.Status.QUEUED)
        rule = ax.AllLikeIt(["amount<=50"], scope={"tenant": "acme"})
        assert ax.approve_sync(first, question.call_id, arguments=refund(20), rule=rule, by="alice")
        harness.run_all()
        assert harness.task(first).result == "Half is back."
        assert "Sent 20.00 to ann@example.com" in str(model.calls[-1].input)

        model.call_tool("send_refund", refund(30)).say("It is back.")
        assert harness.run("refund", LETTER, metadata={"tenant": "acme"}).result == "It is back."

        model.call_tool("send_refund", refund(300)).say("It is back.")
        harness.enqueue("refund", LETTER, metadata={"tenant": "acme"})
        harness.run_all()
        [too_much] = harness.approvals
        assert '"amount":300' in too_much.arguments
