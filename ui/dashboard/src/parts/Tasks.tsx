import {
  type ActivityListItem,
  ProgressBar,
  RelativeTime,
  TaskList,
  type TaskListItem,
  type TaskListProps,
  Untrusted,
} from 'agentexec-ui';
import { TaskStatus } from '../../../src/components/TaskStatus.js';
import { formatDuration } from '../../../src/format.js';
import { visible } from '../../../src/visible.js';
import { latestText } from '../../../src/waiting.js';
import { go, href } from '../router.js';

/** Task list whose rows are links to the tasks. */
export function Tasks(props: TaskListProps<ActivityListItem>) {
  return <TaskList renderItem={row} {...props} taskHref={taskHref} onTaskClick={(id) => go(taskHref(id))} />;
}

export function taskHref(agentId: string): string {
  return href(`tasks/${agentId}`);
}

/** Row with the progress of a running task, and how long an ended one took. */
function row(item: TaskListItem) {
  const latest = latestText(item);
  return (
    <>
      <TaskStatus status={item.status} message={item.latest_log_message} waiting={item.waiting} short />
      <span className="ax-task-list__name" title={visible(item.agent_type)}>
        <Untrusted text={item.agent_type} />
      </span>
      <span className="ax-task-list__message" title={visible(latest ?? '') || undefined}>
        <Untrusted text={latest} />
      </span>
      {item.status === 'running' ? (
        <ProgressBar percentage={item.percentage} status={item.status} showValue />
      ) : (
        <span className="d-duration" title="Duration">
          {item.status !== 'queued' && typeof item.elapsed_seconds === 'number' && formatDuration(item.elapsed_seconds)}
        </span>
      )}
      <RelativeTime className="ax-task-list__time" time={item.latest_log_timestamp ?? item.updated_at} />
    </>
  );
}
