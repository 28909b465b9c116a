"""Calls that wait for a person: `ax.approvals.list`, `ax.approve`, `ax.reject`."""

from agentexec.approvals.decisions import approve, approve_sync, reject, reject_sync
from agentexec.approvals.queries import ApprovalSchema
from agentexec.approvals.queries import list_approvals as list

__all__ = ["ApprovalSchema", "approve", "approve_sync", "list", "reject", "reject_sync"]
