import { ApprovalCard, RuleList, useApprovals } from 'agentexec-ui';
import { formatCount } from '../../../src/format.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { api } from '../data.js';
import { Problem, Stale } from '../parts/Problem.js';
import { useMayAct } from '../rights.js';
import { go, href } from '../router.js';

/** Calls of tools that wait for a person, oldest first. */
export function ApprovalsView() {
  const { approvals, approve, approveWith, reject, isPending, loading, error, refetch } = useApprovals();
  const mayAct = useMayAct();
  // Those that an approval has just made, too.
  const rules = usePolled(`rules ${approvals.length}`, api.rules, {
    enabled: true,
    interval: () => 15_000,
    keep: true,
  });
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
            {...(mayAct ? { onApprove: approve, onApproveWith: approveWith, onReject: reject } : {})}
          />
        ))}
      </div>
      {!mayAct && approvals.length > 0 && (
        <p className="d-muted">
          This dashboard is read only: approve with `agentexec approve`, or start it with --allow-acts.
        </p>
      )}
      <section className="d-panel" aria-label="Rules">
        <header className="d-panel__head">
          <h2>Rules</h2>
          <span className="d-muted">calls that are approved without asking</span>
        </header>
        <RuleList
          rules={rules.data}
          onTaskClick={(id) => go(href(`tasks/${id}`))}
          onRevoke={
            mayAct
              ? async (rule) => {
                  await api.revokeRule(rule.rule_id);
                  await rules.refetch();
                }
              : undefined
          }
        />
      </section>
      <Stale error={error ?? rules.error} />
    </>
  );
}
