'use client';

import { useCallback, useState } from 'react';
import type { ApproveBody } from '../client/api.js';
import type { ApprovalFilters } from '../client/client.js';
import { approvalsInterval } from '../client/queries.js';
import type { Approval } from '../types/index.js';
import { useClient } from './AgentexecProvider.js';
import type { FetchOptions } from './useActivities.js';
import { type Fetched, usePolled } from './usePolled.js';

export interface Approvals extends Omit<Fetched<Approval[]>, 'data'> {
  /** Calls that wait for a person, oldest first. */
  approvals: readonly Approval[];
  /** Approve a call. Rejects if the API refuses. */
  approve: (approval: Approval) => Promise<void>;
  /** Approve a call with other arguments, or with a rule for calls like it. Rejects if the API refuses. */
  approveWith: (approval: Approval, body: ApproveBody) => Promise<void>;
  /** Reject a call, with a message to the model if there is one. Rejects if the API refuses. */
  reject: (approval: Approval, message?: string) => Promise<void>;
  /** Return true while the answer to a call is being sent. */
  isPending: (approval: Approval) => boolean;
}

const NONE: readonly Approval[] = [];

/** Fetch the calls that wait for a person, keep them fresh, and answer them. */
export function useApprovals(filters: ApprovalFilters = {}, options: FetchOptions = {}): Approvals {
  const client = useClient(options.client);
  const { data, error, loading, refetch } = usePolled(
    JSON.stringify([client.baseUrl, filters]),
    (signal) => client.approvals(filters, { signal }),
    {
      enabled: options.enabled ?? true,
      interval: () => options.refetchInterval ?? approvalsInterval(),
    },
  );
  const [pending, setPending] = useState<ReadonlySet<string>>(new Set());

  const answer = useCallback(
    async (approval: Approval, send: () => Promise<void>) => {
      const key = keyOf(approval);
      setPending((before) => new Set(before).add(key));
      try {
        await send();
      } finally {
        // The list tells whether the call still waits, also if somebody else was faster.
        await refetch();
        setPending((before) => new Set([...before].filter((other) => other !== key)));
      }
    },
    [refetch],
  );
  const approve = useCallback(
    (approval: Approval) => answer(approval, () => client.approve(approval.agent_id, approval.call_id)),
    [answer, client],
  );
  const approveWith = useCallback(
    (approval: Approval, body: ApproveBody) =>
      answer(approval, () => client.approve(approval.agent_id, approval.call_id, { body })),
    [answer, client],
  );
  const reject = useCallback(
    (approval: Approval, message?: string) =>
      answer(approval, () => client.reject(approval.agent_id, approval.call_id, message)),
    [answer, client],
  );
  const isPending = useCallback((approval: Approval) => pending.has(keyOf(approval)), [pending]);
  return { approvals: data ?? NONE, error, loading, refetch, approve, approveWith, reject, isPending };
}

function keyOf(approval: Approval): string {
  return JSON.stringify([approval.agent_id, approval.call_id]);
}
