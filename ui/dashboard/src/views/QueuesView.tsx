import { RelativeTime, Untrusted } from 'agentexec-ui';
import { type ReactNode, useState } from 'react';
import { formatDuration, formatNumber, parseTime } from '../../../src/format.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { visible } from '../../../src/visible.js';
import { api, type Queue } from '../data.js';
import { ActButton, ActProblem, useAct } from '../parts/ActButton.js';
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
        numbers={['Ready', 'Delayed', 'Running', 'Oldest ready', 'Ended per minute', 'Workers']}
        rows={queues.data?.map((queue) => ({
          key: queue.name,
          cells: [
            <Link key="name" data-row="" href={href('tasks', { queue: queue.name })}>
              <Untrusted text={queue.name} />
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
    <span className="d-paused">
      Paused <RelativeTime time={pause.paused_at} /> by <Untrusted text={pause.paused_by} />
      {pause.reason && (
        <>
          : <Untrusted text={pause.reason} />
        </>
      )}
    </span>
  );
}

interface ActProps {
  queue: Queue;
  onDone: () => Promise<void>;
}

function Act({ queue, onDone }: ActProps) {
  const [asks, setAsks] = useState<boolean>();
  const name = visible(queue.name);
  if (queue.pause) {
    return (
      <ActButton label={`Resume ${name}`} onAct={() => api.resumeQueue(queue.name)} onDone={onDone}>
        Resume
      </ActButton>
    );
  }
  if (asks) return <PauseForm queue={queue} onDone={onDone} onClose={() => setAsks(false)} />;
  return (
    <button
      type="button"
      className="ax-button"
      aria-label={`Pause ${name}`}
      // biome-ignore lint/a11y/noAutofocus: the form that has been closed had the focus.
      autoFocus={asks === false}
      onClick={() => setAsks(true)}
    >
      Pause…
    </button>
  );
}

/** Asks for the reason of a pause. Enter pauses, Escape closes the form. */
function PauseForm({ queue, onDone, onClose }: ActProps & { onClose: () => void }) {
  const [reason, setReason] = useState('');
  const { act, sending, problem } = useAct(
    () => api.pauseQueue(queue.name, reason.trim() || undefined),
    (taken) => onDone().then(() => taken && onClose()),
  );
  const name = visible(queue.name);
  return (
    <form
      className="d-inline"
      aria-label={`Pause ${name}`}
      onSubmit={(event) => {
        event.preventDefault();
        void act();
      }}
      onKeyDown={(event) => event.key === 'Escape' && onClose()}
    >
      <input
        // biome-ignore lint/a11y/noAutofocus: the reader has just asked for it.
        autoFocus
        aria-label="Reason, for others (optional)"
        placeholder="Reason, for others"
        maxLength={500}
        value={reason}
        onChange={(event) => setReason(event.target.value)}
      />
      <button type="submit" className="ax-button" aria-label={`Pause ${name}`} aria-disabled={sending}>
        Pause
      </button>
      <button type="button" className="ax-button" onClick={onClose}>
        Cancel
      </button>
      <ActProblem problem={problem} />
    </form>
  );
}
