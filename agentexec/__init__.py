"""agentexec runs OpenAI Agents SDK tasks outside the web request, and survives kill -9.

Everything here is loaded on first use, so that `import agentexec` costs next to nothing and a web process never
imports `agents`.
"""

# This module imports nothing that Python has not loaded by itself: for `python -m agentexec`, the current folder still comes
# first here, perhaps with a typing.py.
import importlib

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from agentexec import activity as activity
    from agentexec import approvals as approvals
    from agentexec import testing as testing
    from agentexec import web as web
    from agentexec import webhooks as webhooks
    from agentexec.activity.schemas import ApprovalRequest as ApprovalRequest
    from agentexec.activity.schemas import TaskFailure as TaskFailure
    from agentexec.approvals import approve as approve
    from agentexec.approvals import approve_sync as approve_sync
    from agentexec.approvals import reject as reject
    from agentexec.approvals import reject_sync as reject_sync
    from agentexec.arguments.approval_policies import ApprovalPolicy as ApprovalPolicy
    from agentexec.arguments.versions import Restart as Restart
    from agentexec.client import queues as queues
    from agentexec.client.approval_rules import AllLikeIt as AllLikeIt
    from agentexec.client.budgets import set_budget as set_budget
    from agentexec.client.budgets import set_budget_sync as set_budget_sync
    from agentexec.client.cancel import cancel as cancel
    from agentexec.client.cancel import cancel_sync as cancel_sync
    from agentexec.client.conversation import Conversation as Conversation
    from agentexec.client.conversation import conversation as conversation
    from agentexec.client.enqueue import enqueue as enqueue
    from agentexec.client.enqueue import enqueue_many as enqueue_many
    from agentexec.client.enqueue import enqueue_many_sync as enqueue_many_sync
    from agentexec.client.enqueue import enqueue_sync as enqueue_sync
    from agentexec.client.fan_out import map_tasks as map  # noqa: F401
    from agentexec.client.fan_out import map_tasks_sync as map_sync  # noqa: F401
    from agentexec.client.fork import fork as fork
    from agentexec.client.fork import fork_sync as fork_sync
    from agentexec.client.gather import Completed as Completed
    from agentexec.client.gather import as_completed as as_completed
    from agentexec.client.gather import as_completed_sync as as_completed_sync
    from agentexec.client.gather import gather as gather
    from agentexec.client.gather import gather_sync as gather_sync
    from agentexec.client.new_task import EnqueueOptions as EnqueueOptions
    from agentexec.client.new_task import TaskOptions as TaskOptions
    from agentexec.client.results import get_result as get_result
    from agentexec.client.results import get_result_sync as get_result_sync
    from agentexec.client.retry import retry as retry
    from agentexec.client.retry import retry_sync as retry_sync
    from agentexec.client.retry_failed import retry_failed as retry_failed
    from agentexec.client.retry_failed import retry_failed_sync as retry_failed_sync
    from agentexec.client.turn_options import ConversationOptions as ConversationOptions
    from agentexec.config import CONF as CONF
    from agentexec.conversations.session import Session as Session
    from agentexec.conversations.turns import ConversationEvent as ConversationEvent
    from agentexec.conversations.turns import ConversationMessage as ConversationMessage
    from agentexec.conversations.turns import HistoryItem as HistoryItem
    from agentexec.conversations.turns import Turn as Turn
    from agentexec.errors import AccessDeniedError as AccessDeniedError
    from agentexec.errors import ActivityNotFoundError as ActivityNotFoundError
    from agentexec.errors import AgentexecError as AgentexecError
    from agentexec.errors import ApprovalNotFoundError as ApprovalNotFoundError
    from agentexec.errors import ApprovalRuleNotFoundError as ApprovalRuleNotFoundError
    from agentexec.errors import BackendInvalidError as BackendInvalidError
    from agentexec.errors import BackgroundResponseError as BackgroundResponseError
    from agentexec.errors import BudgetExceededError as BudgetExceededError
    from agentexec.errors import CallInterruptedError as CallInterruptedError
    from agentexec.errors import ContextInvalidError as ContextInvalidError
    from agentexec.errors import ConversationBusyError as ConversationBusyError
    from agentexec.errors import ConversationNotFoundError as ConversationNotFoundError
    from agentexec.errors import EncryptionKeyError as EncryptionKeyError
    from agentexec.errors import JournalConflictError as JournalConflictError
    from agentexec.errors import LeaseLostError as LeaseLostError
    from agentexec.errors import ModuleLoadError as ModuleLoadError
    from agentexec.errors import PayloadLostError as PayloadLostError
    from agentexec.errors import PayloadTooLargeError as PayloadTooLargeError
    from agentexec.errors import ReplayDiverged as ReplayDiverged
    from agentexec.errors import ReplayDivergedError as ReplayDivergedError
    from agentexec.errors import ResultExpiredError as ResultExpiredError
    from agentexec.errors import RetryLater as RetryLater
    from agentexec.errors import SandboxLostError as SandboxLostError
    from agentexec.errors import SchemaError as SchemaError
    from agentexec.errors import SettingsError as SettingsError
    from agentexec.errors import TaskCanceledError as TaskCanceledError
    from agentexec.errors import TaskEndedError as TaskEndedError
    from agentexec.errors import TaskFailedError as TaskFailedError
    from agentexec.errors import TokenInvalidError as TokenInvalidError
    from agentexec.errors import TurnInterruptedError as TurnInterruptedError
    from agentexec.errors import UnavailableError as UnavailableError
    from agentexec.errors import UnknownTaskError as UnknownTaskError
    from agentexec.errors import UsageError as UsageError
    from agentexec.errors import WaitDeadlockError as WaitDeadlockError
    from agentexec.journal.calls import tool_policy as tool_policy
    from agentexec.journal.changed import changed as changed
    from agentexec.journal.changed import changed_sync as changed_sync
    from agentexec.journal.current_call import idempotency_key as idempotency_key
    from agentexec.journal.current_call import transaction as transaction
    from agentexec.pool import Pool as Pool
    from agentexec.runners.base import BaseAgentRunner as BaseAgentRunner
    from agentexec.runners.openai.runner import OpenAIRunner as OpenAIRunner
    from agentexec.runtime import configure as configure
    from agentexec.runtime import get_engine as get_engine
    from agentexec.schema.tables import Base as Base
    from agentexec.task import HandlerOptions as HandlerOptions
    from agentexec.task import Priority as Priority
    from agentexec.task import ScheduleOptions as ScheduleOptions
    from agentexec.task import Status as Status
    from agentexec.task import Task as Task
    from agentexec.workflow.events import send_event as send_event
    from agentexec.workflow.events import send_event_sync as send_event_sync
    from agentexec.workflow.events import sleep as sleep
    from agentexec.workflow.events import sleep_sync as sleep_sync
    from agentexec.workflow.events import wait_for_event as wait_for_event
    from agentexec.workflow.events import wait_for_event_sync as wait_for_event_sync
    from agentexec.workflow.pipeline import Pipeline as Pipeline
    from agentexec.workflow.tracker import Tracker as Tracker

__version__ = "0.1.0"

_HOMES = {
    "agentexec.arguments.approval_policies": ("ApprovalPolicy",),
    "agentexec.client.approval_rules": ("AllLikeIt",),
    "agentexec.approvals": ("approve", "approve_sync", "reject", "reject_sync"),
    "agentexec.arguments.versions": ("Restart",),
    "agentexec.activity.schemas": ("ApprovalRequest", "TaskFailure"),
    "agentexec.client.budgets": ("set_budget", "set_budget_sync"),
    "agentexec.client.cancel": ("cancel", "cancel_sync"),
    "agentexec.client.conversation": ("Conversation", "conversation"),
    "agentexec.config": ("CONF",),
    "agentexec.conversations.session": ("Session",),
    "agentexec.conversations.turns": ("ConversationEvent", "ConversationMessage", "HistoryItem", "Turn"),
    "agentexec.errors": (
        "AccessDeniedError",
        "ActivityNotFoundError",
        "AgentexecError",
        "BackendInvalidError",
        "BackgroundResponseError",
        "EncryptionKeyError",
        "ContextInvalidError",
        "ConversationBusyError",
        "ConversationNotFoundError",
        "ModuleLoadError",
        "PayloadLostError",
        "PayloadTooLargeError",
        "ResultExpiredError",
        "RetryLater",
        "SandboxLostError",
        "SchemaError",
        "SettingsError",
        "TaskCanceledError",
        "TaskEndedError",
        "TaskFailedError",
        "TokenInvalidError",
        "TurnInterruptedError",
        "UnavailableError",
        "UnknownTaskError",
        "LeaseLostError",
        "BudgetExceededError",
        "CallInterruptedError",
        "ApprovalNotFoundError",
        "ApprovalRuleNotFoundError",
        "JournalConflictError",
        "ReplayDiverged",
        "ReplayDivergedError",
        "UsageError",
        "WaitDeadlockError",
    ),
    "agentexec.journal.calls": ("tool_policy",),
    "agentexec.journal.changed": ("changed", "changed_sync"),
    "agentexec.journal.current_call": ("idempotency_key", "transaction"),
    "agentexec.workflow.pipeline": ("Pipeline",),
    "agentexec.pool": ("Pool",),
    "agentexec.client.enqueue": ("enqueue", "enqueue_many", "enqueue_many_sync", "enqueue_sync"),
    "agentexec.client.fork": ("fork", "fork_sync"),
    "agentexec.client.gather": ("Completed", "as_completed", "as_completed_sync", "gather", "gather_sync"),
    "agentexec.client.new_task": ("EnqueueOptions", "TaskOptions"),
    "agentexec.client.results": ("get_result", "get_result_sync"),
    "agentexec.client.retry": ("retry", "retry_sync"),
    "agentexec.client.retry_failed": ("retry_failed", "retry_failed_sync"),
    "agentexec.client.turn_options": ("ConversationOptions",),
    "agentexec.runners.base": ("BaseAgentRunner",),
    "agentexec.runners.openai.runner": ("OpenAIRunner",),
    "agentexec.runtime": ("configure", "get_engine"),
    "agentexec.schema.tables": ("Base",),
    "agentexec.task": ("HandlerOptions", "Priority", "ScheduleOptions", "Status", "Task"),
    "agentexec.workflow.tracker": ("Tracker",),
    "agentexec.workflow.events": (
        "send_event",
        "send_event_sync",
        "sleep",
        "sleep_sync",
        "wait_for_event",
        "wait_for_event_sync",
    ),
}
_RENAMED = {
    "map": ("agentexec.client.fan_out", "map_tasks"),
    "map_sync": ("agentexec.client.fan_out", "map_tasks_sync"),
}
"""Names that would hide a builtin where they are defined."""

_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", "activity", "approvals", "queues", "testing", "web", "webhooks", *_HOME, *_RENAMED]


def __getattr__(name: str) -> "Any":
    if name in ("activity", "approvals", "testing", "web", "webhooks"):
        return importlib.import_module(f"agentexec.{name}")
    if name == "queues":
        return importlib.import_module("agentexec.client.queues")
    module, inner = _RENAMED.get(name) or (_HOME.get(name), name)
    if module is None:
        raise AttributeError(f"module 'agentexec' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), inner)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
