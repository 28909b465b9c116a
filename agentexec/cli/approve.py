"""`agentexec approve`: let a waiting call run."""

from __future__ import annotations

import agentexec as ax
from agentexec.cli.decision import CallId, report
from agentexec.cli.options import AgentId, MetadataScope, parse_labels


def run(agent_id: AgentId, call_id: CallId, metadata: MetadataScope = None) -> None:
    """Approve a call that waits for approval. The task continues with it.

    The exit code is 1 if the call was already decided or has expired, or the task has ended.
    """
    decided = ax.approve_sync(agent_id, call_id, metadata_filter=parse_labels(metadata))
    report("Approved", agent_id, call_id, decided=decided)
