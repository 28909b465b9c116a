import { RelativeTime, Untrusted } from 'agentexec-ui';
import { formatNumber } from '../../../src/format.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { visible } from '../../../src/visible.js';
import { api, type Schedule } from '../data.js';
import { ActButton } from '../parts/ActButton.js';
import { Link } from '../parts/Link.js';
import { Problem, Stale } from '../parts/Problem.js';
import { Table } from '../parts/Table.js';
import { useMayAct } from '../rights.js';
import { go, href } from '../router.js';

/** Schedules, with their latest and next tick. */
export function SchedulesView() {
  const schedules = usePolled('schedules', api.schedules, { enabled: true, interval: () => 5000 });
  const mayAct = useMayAct();
  if (schedules.error && !schedules.data) {
    return <Problem title="The schedules could not be loaded" error={schedules.error} onRetry={schedules.refetch} />;
  }
  return (
    <>
      <h1>Schedules</h1>
      <p className="d-muted">Ticks of a paused schedule are skipped. Workers declare schedules as they start.</p>
      <Table
        label="Schedules"
        heads={['Schedule', 'Task', 'Cron', 'Queue', 'Next', 'Last', 'Runs', ...(mayAct ? [''] : [])]}
        numbers={['Runs']}
        rows={schedules.data?.map((schedule) => ({
          key: `${schedule.queue} ${schedule.name}`,
          cells: [
            <Untrusted key="name" text={schedule.name} />,
            <Link key="task" data-row="" href={href('tasks', { task: schedule.task_name })}>
              <Untrusted text={schedule.task_name} />
            </Link>,
            <span key="cron" title={visible(schedule.timezone)}>
              <code>
                <Untrusted text={schedule.cron} />
              </code>{' '}
              {schedule.timezone !== 'UTC' && <Untrusted text={schedule.timezone} />}
            </span>,
            <Untrusted key="queue" text={schedule.queue} />,
            <Next key="next" schedule={schedule} />,
            <Last key="last" schedule={schedule} />,
            formatNumber(schedule.runs) + (schedule.repeat === null ? '' : ` of ${formatNumber(schedule.repeat)}`),
            ...(mayAct ? [<Acts key="acts" schedule={schedule} onDone={schedules.refetch} />] : []),
          ],
        }))}
        empty="No worker has declared a schedule. Declare one with pool.add_schedule(…)."
      />
      <Stale error={schedules.error} />
    </>
  );
}

function Next({ schedule }: { schedule: Schedule }) {
  if (schedule.paused_at) {
    return (
      <span className="d-paused">
        Paused <RelativeTime time={schedule.paused_at} />
      </span>
    );
  }
  return schedule.next_at ? <RelativeTime time={schedule.next_at} /> : 'ended';
}

function Last({ schedule }: { schedule: Schedule }) {
  if (!schedule.last_at) return '–';
  const time = <RelativeTime time={schedule.last_at} />;
  return schedule.last_agent_id ? <Link href={href(`tasks/${schedule.last_agent_id}`)}>{time}</Link> : time;
}

function Acts({ schedule, onDone }: { schedule: Schedule; onDone: () => Promise<void> }) {
  const change = schedule.paused_at ? 'resume' : 'pause';
  return (
    <span className="d-inline">
      <ActButton
        label={`${change === 'pause' ? 'Pause' : 'Resume'} ${visible(schedule.name)}`}
        onAct={() => api.actOnSchedule(schedule, change)}
        onDone={onDone}
      >
        {change === 'pause' ? 'Pause' : 'Resume'}
      </ActButton>
      <ActButton
        label={`Run ${visible(schedule.name)} now`}
        onAct={async () => {
          const { agent_id } = await api.actOnSchedule(schedule, 'run');
          if (agent_id) go(href(`tasks/${agent_id}`));
        }}
        onDone={onDone}
      >
        Run now
      </ActButton>
    </span>
  );
}
