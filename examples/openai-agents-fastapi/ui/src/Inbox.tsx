import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { ApprovalCard, approvalsQuery, approveMutation, rejectMutation, useClient } from 'agentexec-ui';

/** Calls that wait for a person. */
export function Inbox({ onTaskClick }: { onTaskClick: (agentId: string) => void }) {
  const client = useClient();
  const queries = useQueryClient();
  const { data: approvals } = useQuery(approvalsQuery(client));
  const answered = { onSettled: () => queries.invalidateQueries() };
  const approve = useMutation({ ...approveMutation(client), ...answered });
  const reject = useMutation({ ...rejectMutation(client), ...answered });

  if (!approvals?.length) return null;
  return (
    <section className="inbox" aria-labelledby="inbox">
      <h2 id="inbox">Waiting for you</h2>
      {approvals.map((approval) => (
        <ApprovalCard
          key={`${approval.agent_id} ${approval.call_id}`}
          approval={approval}
          onApprove={(call) => approve.mutateAsync(call)}
          onReject={(call, message) => reject.mutateAsync({ ...call, ...(message ? { message } : {}) })}
          onTaskClick={onTaskClick}
        />
      ))}
    </section>
  );
}
