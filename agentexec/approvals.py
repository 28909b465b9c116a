"""Calls that wait for a person: `ax.approvals.list`, `ax.approve`, `ax.reject`, and rules that answer in their place."""

from agentexec.client.approval_rules import (
    ApprovalRuleSchema,
    add_rule,
    add_rule_sync,
    revoke_rule,
    revoke_rule_sync,
)
from agentexec.client.approval_rules import list_rules as rules
from agentexec.client.approvals import ApprovalSchema
from agentexec.client.approvals import list_approvals as list
from agentexec.client.approve import approve, approve_sync, reject, reject_sync

__all__ = [
    "ApprovalRuleSchema",
    "ApprovalSchema",
    "add_rule",
    "add_rule_sync",
    "approve",
    "approve_sync",
    "list",
    "reject",
    "reject_sync",
    "revoke_rule",
    "revoke_rule_sync",
    "rules",
]
