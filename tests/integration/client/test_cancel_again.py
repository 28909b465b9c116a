"""A cancel that was cut off between a task and its children is finished by the next one."""

from __future__ import annotations

from sqlalchemy import update

import agentexec as ax
from agentexec.activity.models import Activity
from agentexec.db.transactions import writing
from agentexec.runtime import RUNTIME
from tests.deployment import Deploy, on_targets


@on_targets("embedded", "valkey+postgres")
def test_a_second_cancel_cancels_what_the_first_one_left_below_the_task(deploy: Deploy) -> None:
    deployment = deploy()
    parent, child, grandchild = (deployment.enqueue("work", key) for key in "abc")
    with writing(RUNTIME.engine) as connection:
        for task, above in ((child, parent), (grandchild, child)):
            row = update(Activity).where(Activity.agent_id == task.agent_id)
            connection.execute(row.values(parent_id=above.agent_id))
        row = update(Activity).where(Activity.agent_id == parent.agent_id)
        connection.execute(row.values(status=ax.Status.CANCELED))
    assert ax.cancel_sync(parent) is False
    assert [deployment.status(task) for task in (child, grandchild)] == ["canceled"] * 2
