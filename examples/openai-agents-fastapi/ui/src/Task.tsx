import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { activityQuery, isActive, LogStream, RunTimeline, TaskDetail, useActivityStream, useClient } from 'agentexec-ui';
import { useEffect } from 'react';
import { cancel } from './api';

interface TaskProps {
  agentId: string;
  onClose: () => void;
  onTaskClick: (agentId: string) => void;
}

const CONNECTION = {
  connecting: 'Connecting…',
  open: 'Live',
  retrying: 'Connection lost; connecting again…',
  polling: 'No live connection; the task is fetched every few seconds.',
  closed: '',
};

/** Task with its log, text and timeline as they happen. */
export function Task({ agentId, onClose, onTaskClick }: TaskProps) {
  const client = useClient();
  const queries = useQueryClient();
  const stream = useActivityStream(agentId);
  const { data, isLoading: isDetailLoading, error } = useQuery(activityQuery(client, agentId));
  const stop = useMutation({
    mutationFn: () => cancel(agentId),
    onSettled: () => queries.invalidateQueries(),
  });

  // What the stream tells comes first; the rest, such as usage and children, is fetched when the status changes.
  const status = stream.status ?? data?.status;
  const detail = data && { ...data, status: status ?? data.status, percentage: stream.percentage ?? data.percentage };
  useEffect(() => {
    if (status) queries.invalidateQueries();
  }, [status, queries]);

  return (
    <div className="task">
      <TaskDetail
        activity={detail}
        loading={isDetailLoading}
        error={error ?? stream.refusal}
        onClose={onClose}
        onTaskClick={onTaskClick}
        renderLog={(logs) => (
          <>
            <div className="acts">
              {status && isActive(status) && (
                <button type="button" className="ax-button" disabled={stop.isPending} onClick={() => stop.mutate()}>
                  Cancel
                </button>
              )}
              <span className="connection" data-connection={stream.connection}>
                {CONNECTION[stream.connection]}
              </span>
            </div>
            {stop.error && (
              <p role="alert" className="ax-error">
                {stop.error.message}
              </p>
            )}
            <h3>Log</h3>
            <LogStream lines={stream.logs.length > 0 ? stream.logs : logs} text={stream.text} />
            <h3>Timeline</h3>
            <RunTimeline events={stream.events} logs={logs} />
          </>
        )}
      />
    </div>
  );
}
