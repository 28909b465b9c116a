import { RelativeTime } from 'agentexec-ui';
import { type ReactNode, useState } from 'react';
import { formatDuration, formatNumber, parseTime } from '../../../src/format.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { api, type Queue } from '../data.js';
import { ActButton } from '../parts/ActButton.js';
import { Link } from '../parts/Link.js';
import { Problem, Stale } from '../parts/Problem.js';
import { Table } from '../parts/Table.js';
import { useMayAct } from '../rights.js';
import { href } from '../router.js';

/** Queues with what waits in them, how fast it goes, and who serves them. */
export function QueuesView() {
  const queues = usePolled('queues', api.queues, { enabled: true, interval: () => 3000 });
  const mayAct = useMayAct();
  if (queues.error && !queues.data) {
    return <Problem title="The queues could not be loaded" error={queues.error} onRetry={queues.refetch} />;
  }
  return (
    <>
      <h1>Queues</h1>
      <p className="d-muted">
        Workers claim no task of a paused queue. Its running tasks go on, and new ones are accepted.
      </p>
      <Table
        label="Queues"
        heads={[
          'Queue',
          'Ready',
          'Delayed',
          'Running',
          'Oldest ready',
          'Ended per minute',
          'Workers',
          'State',
          ...(mayAct ? [''] : []),
        ]}
        rows={queues.data?.map((queue) => ({
          key: queue.name,
          cells: [
            <Link key="name" data-row="" href={href('tasks', { queue: queue.name })}>
              {queue.name}
            </Link>,
            formatNumber(queue.ready),
            formatNumber(queue.delayed),
            formatNumber(queue.running),
            age(queue),
            queue.ended_per_minute.toLocaleString('en-US', { maximumFractionDigits: 1 }),
            queue.workers === 0 && queue.ready + queue.running > 0 ? (
              <span key="workers" className="d-bad">
                none
              </span>
            ) : (
              formatNumber(queue.workers)
            ),
            <State key="state" queue={queue} />,
            ...(mayAct ? [<Act key="act" queue={queue} onDone={queues.refetch} />] : []),
          ],
        }))}
        empty="No queue has tasks or workers."
      />
      <Stale error={queues.error} />
    </>
  );
}

function age(queue: Queue): string {
  if (!queue.oldest_ready_at) return '–';
  return formatDuration((parseTime(queue.at) - parseTime(queue.oldest_ready_at)) / 1000);
}

function State({ queue: { pause } }: { queue: Queue }): ReactNode {
  if (!pause) return 'Open';
  return (
    <span className="d-waiting">
      Paused <RelativeTime time={pause.paused_at} /> by {pause.paused_by}
      {pause.reason && `: ${pause.reason}`}
    </span>
  );
}

function Act({ queue, onDone }: { queue: Queue; onDone: () => Promise<void> }) {
  const [asks, setAsks] = useState(false);
  const [reason, setReason] = useState('');
  if (queue.pause) {
    return (
      <ActButton label={`Resume ${queue.name}`} onAct={() => api.resumeQueue(queue.name)} onDone={onDone}>
        Resume
      </ActButton>
    );
  }
  if (!asks) {
    return (
      <button type="button" className="ax-button" aria-label={`Pause ${queue.name}`} onClick={() => setAsks(true)}>
        Pause…
      </button>
    );
  }
  return (
    <span className="d-inline">
      <input
        // biome-ignore lint/a11y/noAutofocus: the reader has just asked for it.
        autoFocus
        aria-label="Reason, for others (optional)"
        placeholder="Reason, for others"
        maxLength={500}
        value={reason}
        onChange={(event) => setReason(event.target.value)}
        onKeyDown={(event) => event.key === 'Escape' && setAsks(false)}
      />
      <ActButton
        label={`Pause ${queue.name}`}
        onAct={() => api.pauseQueue(queue.name, reason.trim() || undefined)}
        onDone={() => onDone().then(() => setAsks(false))}
      >
        Pause
      </ActButton>
    </span>
  );
}
