import { type ActivityLog, ForkForm } from 'agentexec-ui';
import { useState } from 'react';
import { shortId } from '../../../src/format.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { api } from '../data.js';
import { go, href } from '../router.js';
import { Dialog } from './Dialog.js';
import { Link } from './Link.js';

/** Forks of a task that are named, the last ones. */
const SHOWN = 5;

/** Button that opens the form, in a dialog, and leads to the fork. */
export function ForkButton({ agentId }: { agentId: string }) {
  const [opened, setOpened] = useState(false);
  return (
    <>
      <button type="button" className="ax-button" onClick={() => setOpened(true)}>
        Fork…
      </button>
      {opened && <ForkDialog agentId={agentId} onClose={() => setOpened(false)} />}
    </>
  );
}

function ForkDialog({ agentId, onClose }: { agentId: string; onClose: () => void }) {
  const { data, error } = usePolled(`runs ${agentId}`, (signal) => api.runs(agentId, signal), {
    enabled: true,
    interval: () => false,
  });
  return (
    <Dialog title="Fork this task" onClose={onClose}>
      <ForkForm
        runs={error ? [] : data}
        error={error}
        onCancel={onClose}
        onFork={async (body) => {
          const { agent_id } = await api.fork(agentId, body);
          go(href(`tasks/${agent_id}`));
        }}
      />
    </Dialog>
  );
}

/** Tasks that the log names as the origin of this one, or as its forks, each with its comparison. */
export function relatives(logs: readonly Pick<ActivityLog, 'message'>[]) {
  const find = (pattern: RegExp) => logs.flatMap(({ message }) => pattern.exec(message)?.[1]?.toLowerCase() ?? []);
  return {
    origin: find(/^Forked from task ([\da-f-]{36}) at turn /i)[0],
    forks: find(/^Forked at turn .* as task ([\da-f-]{36})\b/i).slice(-SHOWN),
  };
}

/** Link to a fork or the origin, and one to the comparison: what was first is on the left. */
export function Relative({ id, first, second }: { id: string; first: string; second: string }) {
  return (
    <span className="d-relative">
      <Link href={href(`tasks/${id}`)}>{shortId(id)}</Link>{' '}
      <Link href={href(`tasks/${first}/diff/${second}`)} aria-label={`Compare with ${shortId(id)}`}>
        compare
      </Link>
    </span>
  );
}
