"""Approvals of one attempt: the policy of its task, and what it knows about calls that a person has changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agentexec.arguments.approval_policies import NO_POLICY, ApprovalPolicy
from agentexec.journal.questions import APPROVED, REJECTED, Question, Terms, Verdict

MAX_SCHEMA = 65_536
"""Characters of a tool's schema that is kept with a question; a larger one is not, and any JSON object is accepted."""

ANY_OBJECT = "{}"


class AttemptApprovals:
    """The policy of the task that an attempt runs, the schemas of tools that ask, and arguments that were changed."""

    def __init__(self, policy: ApprovalPolicy = NO_POLICY, *, has_hooks: bool = False) -> None:
        self.policy = policy
        self.has_hooks = has_hooks
        """True if the task's pool has handlers that are told of questions."""
        self.asked: frozenset[str] | None = None
        """Paths of the calls that were asked about in earlier attempts; None until a policy needs it."""
        self._schemas: dict[str, str] = {}
        self._changed: dict[tuple[str, str, str], str] = {}

    def note_tool(self, call_id: str, schema: Any) -> None:
        """Note the schema of the arguments of a call that asks for approval: these can be changed."""
        try:
            text = json.dumps(schema, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            text = ANY_OBJECT
        self._schemas[call_id] = text if len(text) <= MAX_SCHEMA else ANY_OBJECT

    def terms(self) -> Terms:
        """Return the terms of a question that only a person may answer with yes."""
        policy = self.policy
        notifies = self.has_hooks or policy.webhook is not None
        return Terms(notifies=notifies, reminder=policy.reminder_seconds, webhook=policy.webhook)

    def terms_of_call(self, call_id: str, tool: str) -> Terms:
        """Return the terms of a question about a call of a tool."""
        schema = self._schemas.get(call_id)
        return self.terms()._replace(
            follows_rules=schema is not None,
            default=APPROVED if self.policy.default == "approve" else REJECTED,
            schema=schema,
            is_refused=self.policy.risk_of(tool) == "never",
        )

    def note_changes(self, questions: Sequence[Question], verdicts: Sequence[Verdict]) -> None:
        """Remember with which arguments calls are made that a person has changed."""
        for question, verdict in zip(questions, verdicts, strict=True):
            if verdict.approved and verdict.arguments is not None:
                key = (question.call_id, question.tool, question.arguments)
                self._changed[key] = verdict.arguments

    def changed_arguments(self, call_id: str, tool: str, arguments: str) -> str | None:
        """Return the arguments that a person gave a call instead of these; None for the model's own."""
        return self._changed.get((call_id, tool, arguments)) if self._changed else None
