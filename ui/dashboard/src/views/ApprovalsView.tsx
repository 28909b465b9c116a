import { ApprovalCard, useApprovals } from 'agentexec-ui';
import { formatCount } from '../../../src/format.js';
import { Problem, Stale } from '../parts/Problem.js';
import { useMayAct } from '../rights.js';
import { go, href } from '../router.js';

/** Calls of tools that wait for a person, oldest first. */
export function ApprovalsView() {
  const { approvals, approve, reject, isPending, loading, error, refetch } = useApprovals();
  const mayAct = useMayAct();
  if (error && approvals.length === 0) {
    return <Problem title="The approvals could not be loaded" error={error} onRetry={refetch} />;
  }
  return (
    <>
      <h1>Approvals</h1>
      <p className="d-muted" role="status">
        {loading ? ' ' : `${formatCount(approvals.length, 'call')} waiting for a person`}
      </p>
      {loading && <div className="ax-placeholder d-task__block" />}
      {!loading && approvals.length === 0 && (
        <p className="d-none">
          Nothing waits for a person. A tool with <code>needs_approval=True</code> asks here before it is called.
        </p>
      )}
      <div className="d-approvals">
        {approvals.map((approval) => (
          <ApprovalCard
            key={`${approval.agent_id} ${approval.call_id}`}
            approval={approval}
            data-row=""
            tabIndex={-1}
            pending={isPending(approval)}
            onTaskClick={(id) => go(href(`tasks/${id}`))}
            {...(mayAct ? { onApprove: approve, onReject: reject } : {})}
          />
        ))}
      </div>
      {!mayAct && approvals.length > 0 && (
        <p className="d-muted">
          This dashboard is read only: approve with `agentexec approve`, or start it with --allow-acts.
        </p>
      )}
      <Stale error={error} />
    </>
  );
}
