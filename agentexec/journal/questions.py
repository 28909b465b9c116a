"""Questions for a person, the verdicts on them and the replies, with the lines of the log about them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from agentexec.journal.approval_rules import NewRule
from agentexec.journal.facts import fit_path

QuestionKind = Literal["approval", "repeat"]
Answer = Literal["approved", "rejected"]

PENDING, APPROVED, REJECTED, EXPIRED = "pending", "approved", "rejected", "expired"

EDITED = "edited"
"""Status of a call that was approved with changed arguments. A worker of an earlier release, which would make the call with
the model's arguments, takes it for a rejection."""

MOOT = "moot"
"""Status of a question that was not asked: the limit that it is about has changed since."""

MESSAGE_CHARS = 160
"""Characters of a call's arguments in the activity's message."""

BY_TIME, BY_POLICY = "time-out", "policy"
"""Sources of decisions that nobody has made."""

RAISE_BUDGET = "raise_budget"
"""Name under which a raise of a budget stands among the questions."""

PAST_RUNS = "/runs/"
"""Begin of the path of a question of a run that was given up, or of turns that a retry takes again. No call has such a path."""

REFUSED_MESSAGE = "This tool may not be called here: a policy forbids it."
"""Text for the model about a call of a tool that is never called."""


class Terms(NamedTuple):
    """Terms of a question: what counts if nobody answers, and who is told of it.

    `follows_rules` is False for questions that only a person may answer with yes. `reminder` is in seconds, `schema` the
    JSON Schema of arguments that may be changed.
    """

    follows_rules: bool = False
    default: Answer = "rejected"
    notifies: bool = False
    reminder: float | None = None
    webhook: str | None = None
    schema: str | None = None
    is_refused: bool = False
    """True if a policy refuses the call."""


NO_TERMS = Terms()


class RefusedLimit(NamedTuple):
    """Limit of an account that has refused a model call, in the account's unit."""

    account: str
    limit: int


class Question(NamedTuple):
    """Question to a person: may a call be made (`approval`), or made again after it was cut off (`repeat`)?

    `arguments` is JSON text. `limit` is what a raise of a budget is asked for.
    """

    path: str
    seq: int
    kind: QuestionKind
    tool: str
    arguments: str
    expires_at: datetime | None = None
    terms: Terms = NO_TERMS
    limit: RefusedLimit | None = None

    @property
    def call_id(self) -> str:
        """The name by which a person refers to the call."""
        return self.path.rpartition("/")[2]

    def values(self, agent_id: UUID, now: datetime) -> dict[str, Any]:
        """Return the row of the question when it is asked."""
        terms = self.terms
        return {
            "agent_id": agent_id,
            "path": self.path,
            "seq": self.seq,
            "call_id": self.call_id,
            "kind": self.kind,
            "tool": self.tool,
            "arguments": self.arguments,
            "status": PENDING,
            "message": None,
            "created_at": now,
            "expires_at": self.expires_at,
            "arguments_schema": terms.schema,
            "decided_at": None,
            "decided_by": None,
            "decided_from": None,
            "reason": None,
            "rule_id": None,
            "default_answer": None if terms.default == REJECTED else terms.default,
            "webhook": terms.webhook,
            "notice_at": now if terms.notifies else None,
            "reminder_seconds": terms.reminder,
        }

    @property
    def follows_rules(self) -> bool:
        """True if a rule may answer it."""
        return self.terms.follows_rules and not self.terms.is_refused

    @property
    def call(self) -> str:
        """The call as a line of the log shows it."""
        return call_text(self.tool, self.arguments)


class Verdict(NamedTuple):
    """State of a question. `message` is the text that the model gets with a rejection, if the person gave one.

    `arguments` are those with which the call was approved, if they are not the model's.
    """

    status: str
    message: str | None
    expires_at: datetime | None
    arguments: str | None = None
    is_superseded: bool = False
    """True if the task was retried or its budget set since, so that the question may be asked again."""

    @property
    def decided(self) -> bool:
        """True once a person has answered or the time is over."""
        return self.status != PENDING

    @property
    def approved(self) -> bool:
        """True once a person has approved the call."""
        return self.status in (APPROVED, EDITED)


class Reply(NamedTuple):
    """Answer of a person: for the model `message` with a rejection, for people the name, the source and the reason.

    `arguments` is JSON text that replaces the model's; `rule` is to approve calls like this one.
    """

    answer: Answer
    source: str
    message: str | None = None
    by: str | None = None
    reason: str | None = None
    arguments: str | None = None
    rule: NewRule | None = None
    made_rule: UUID | None = None
    """The rule, once it is saved."""

    @property
    def statuses(self) -> tuple[str, ...]:
        """Statuses of a question that has this answer."""
        return (APPROVED, EDITED) if self.answer == APPROVED else (REJECTED,)


def past_path(run: int, path: str) -> str:
    """Return the path of a question once its run is over; runs of a task are counted from 1."""
    return fit_path(f"{PAST_RUNS}{run}/{path}")


def past_run_of(path: str) -> int | None:
    """Return the number of the run that a question belonged to; None for the present one."""
    number = path.removeprefix(PAST_RUNS).partition("/")[0]
    return int(number) if path.startswith(PAST_RUNS) and number.isdecimal() else None


def call_text(tool: str, arguments: str) -> str:
    """Return a call as one line, with the first MESSAGE_CHARS characters of its arguments."""
    return f"{tool}({_shortened(arguments)})"


def _shortened(arguments: str) -> str:
    return arguments if len(arguments) <= MESSAGE_CHARS else f"{arguments[:MESSAGE_CHARS]}…"


def earliest_expiry(verdicts: Sequence[Verdict]) -> datetime | None:
    """Return the moment at which the first of the open questions expires; None if none does."""
    open_ends = [verdict.expires_at for verdict in verdicts if not verdict.decided]
    return min((end for end in open_ends if end is not None), default=None)


def waiting_message(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> str:
    """Return the log line of a task that waits for the answers to the questions that are open."""
    calls = ", ".join(
        question.call
        if question.kind == "approval"
        else f"{question.call}, which was cut off, to be made again"
        for question, verdict in zip(questions, verdicts, strict=True)
        if not verdict.decided
    )
    return f"Waiting for approval: {calls}"


def reply_phrase(reply: Reply) -> str:
    """Return who has answered, from where, and what was changed, as a part of a log line."""
    phrase = "" if reply.by is None else f" by {reply.by} ({reply.source})"
    if reply.arguments is not None:
        phrase += f" with changed arguments {_shortened(reply.arguments)}"
    if reply.made_rule is not None:
        phrase += f", and calls like it by rule {reply.made_rule}"
    return phrase


def answer_line(question: Any, answer: str, phrase: str, reason: str | None = None) -> str:
    """Return the log line about an answer; `phrase` says who has answered, and how."""
    call = call_text(question.tool, question.arguments)
    return f"{answer.capitalize()}{phrase}: {call}" + ("" if reason is None else f" Reason: {reason}")
