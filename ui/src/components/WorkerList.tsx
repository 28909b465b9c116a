'use client';

import type { ComponentPropsWithoutRef, ReactNode } from 'react';
import { formatBytes, parseTime } from '../format.js';
import { useNow } from '../hooks/useNow.js';
import type { WorkerProcess } from '../types/index.js';
import { classes } from './classes.js';
import { RelativeTime } from './RelativeTime.js';
import { Untrusted } from './Untrusted.js';

/** Milliseconds without a report after which a worker process counts as lost. */
const LOST_AFTER = 20_000;

export type WorkerState = 'working' | 'idle' | 'draining' | 'lost';

const STATE_LABELS: Record<WorkerState, string> = {
  working: 'Working',
  idle: 'Idle',
  draining: 'Draining',
  lost: 'Lost',
};

export interface WorkerListProps extends Omit<ComponentPropsWithoutRef<'section'>, 'children'> {
  workers: readonly WorkerProcess[];
  /** Time of the query, `at` of the overview: with it, a page that has not asked for a while does not call workers lost. */
  at?: string | undefined;
  /** Name of the table. */
  label?: string;
  /** Shown instead of an empty table. */
  empty?: ReactNode;
}

/** Worker processes: load, memory, and how long ago each has reported. */
export function WorkerList({
  workers,
  at,
  label = 'Worker processes',
  empty = 'No worker is running. Start one with `agentexec worker`.',
  className,
  ...rest
}: WorkerListProps) {
  const clock = useNow(5000);
  const now = at === undefined ? clock : parseTime(at);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a narrow page scrolls the table, also by keyboard.
    <section tabIndex={0} aria-label={label} {...rest} className={classes('ax-workers', className)}>
      <table className="ax-table">
        <caption>{label}</caption>
        <thead>
          <tr>
            <th scope="col">Worker</th>
            <th scope="col">State</th>
            <th scope="col">Queue</th>
            <th scope="col">Tasks</th>
            <th scope="col">CPU</th>
            <th scope="col">Memory</th>
            <th scope="col">Reported</th>
          </tr>
        </thead>
        <tbody>
          {workers.length === 0 && (
            <tr>
              <td colSpan={7} className="ax-empty">
                {empty}
              </td>
            </tr>
          )}
          {workers.map((worker) => {
            const state = workerState(worker, now);
            return (
              <tr key={worker.worker_id} data-state={state}>
                <th scope="row">
                  <Untrusted text={worker.host} />:{worker.pid}
                </th>
                <td className="ax-workers__state">{STATE_LABELS[state]}</td>
                <td>
                  <Untrusted text={worker.queue} />
                </td>
                <td>
                  {worker.running} of {worker.concurrency}
                </td>
                <td>{Math.round(worker.cpu_percent)}%</td>
                <td>{formatBytes(worker.rss_bytes)}</td>
                <td>
                  <RelativeTime time={worker.seen_at} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}

/** Return the state of a worker process at a time in milliseconds; 0 stands for the time of its report. */
export function workerState(worker: WorkerProcess, now: number): WorkerState {
  if (now > 0 && now - parseTime(worker.seen_at) > LOST_AFTER) return 'lost';
  if (worker.draining) return 'draining';
  return worker.running > 0 ? 'working' : 'idle';
}
