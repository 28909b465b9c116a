import { TaskComparison } from 'agentexec-ui';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { api } from '../data.js';
import { Icon } from '../parts/Icon.js';
import { Link } from '../parts/Link.js';
import { go, href } from '../router.js';

/** Two tasks side by side. */
export function DiffView({ agentId, otherId }: { agentId: string; otherId: string }) {
  const { data, error } = usePolled(`diff ${agentId} ${otherId}`, (signal) => api.compare(agentId, otherId, signal), {
    enabled: true,
    // One of them may go on meanwhile.
    interval: () => 5000,
    keep: true,
  });
  return (
    <>
      <nav className="d-back" aria-label="Back">
        <Link href={href(`tasks/${otherId}`)}>
          <Icon name="back" /> Task
        </Link>
      </nav>
      <h1>Comparison</h1>
      <TaskComparison comparison={data} error={error} onTaskClick={(id) => go(href(`tasks/${id}`))} />
    </>
  );
}
