"""Calls that wait for a person: `ax.approvals.list`, `ax.approve`, `ax.reject`."""

from agentexec.client.approvals import ApprovalSchema
from agentexec.client.approvals import list_approvals as list
from agentexec.client.approve import approve, approve_sync, reject, reject_sync

__all__ = ["ApprovalSchema", "approve", "approve_sync", "list", "reject", "reject_sync"]
