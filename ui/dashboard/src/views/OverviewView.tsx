import { BudgetList, type Overview, Untrusted, useActivities, WorkerList } from 'agentexec-ui';
import type { ReactNode } from 'react';
import { formatDuration, formatMoney, formatNumber, formatShort, parseTime } from '../../../src/format.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { clockOrDay } from '../clock.js';
import { api } from '../data.js';
import { FirstTask } from '../parts/FirstTask.js';
import { Link } from '../parts/Link.js';
import { Problem, Stale } from '../parts/Problem.js';
import { Tasks } from '../parts/Tasks.js';
import { Throughput } from '../parts/Throughput.js';
import { href } from '../router.js';

const MINUTES = 60;
/** Tasks of a list on this view; the place for all of them is kept free, so that nothing moves. */
const SHOWN = 6;

/** What the deployment does now, and did in the last hour. */
export function OverviewView() {
  const overview = usePolled('overview', (signal) => api.overview(MINUTES, signal), {
    enabled: true,
    interval: () => 3000,
  });
  const spent = usePolled('spent', (signal) => api.spent(MINUTES, signal), { enabled: true, interval: () => 15_000 });
  const running = useActivities({ status: 'running', pageSize: SHOWN });
  const failed = useActivities({ status: 'error', pageSize: SHOWN }, { refetchInterval: 5000 });
  const latest = useActivities({ pageSize: 1 }, { refetchInterval: 10_000 });

  if (overview.error && !overview.data) {
    return <Problem title="The overview could not be loaded" error={overview.error} onRetry={overview.refetch} />;
  }
  return (
    <>
      <h1>Overview</h1>
      <Figures
        overview={overview.data}
        cost={spent.data && (spent.data.usage.requests === 0 ? 0 : spent.data.cost)}
        tokens={spent.data && tokens(spent.data.usage)}
      />
      {latest.data?.items.length === 0 ? (
        <FirstTask />
      ) : (
        <>
          <Throughput overview={overview.data} />
          <div className="d-columns">
            <Section title="Running now" all={href('tasks', { status: 'running' })}>
              <Some list={running} empty="No task is running." />
            </Section>
            <Section title="Failed last" all={href('failed')}>
              <Some list={failed} empty="No task has failed." />
            </Section>
          </div>
        </>
      )}
      {Boolean(spent.data?.budgets?.length) && (
        <Section title="Shared budgets">
          <BudgetList className="d-budgets" budgets={spent.data?.budgets} />
        </Section>
      )}
      {overview.data && (
        <WorkerList className="d-workers" workers={overview.data.workers} at={overview.data.at} label="Workers" />
      )}
      <Stale error={overview.error} />
    </>
  );
}

function Some({ list, empty }: { list: ReturnType<typeof useActivities>; empty: string }) {
  if (list.error && !list.data)
    return (
      <p className="ax-error d-fixed-list">
        <Untrusted text={list.error.message} />
      </p>
    );
  return (
    <Tasks
      className="d-fixed-list"
      items={list.data?.items}
      loading={list.loading}
      placeholders={SHOWN}
      empty={empty}
    />
  );
}

function Section({ title, all, children }: { title: string; all?: string; children: ReactNode }) {
  return (
    <section className="d-panel" aria-label={title}>
      <header className="d-panel__head">
        <h2>{title}</h2>
        {all && (
          <Link href={all} aria-label={`${title}: all of them`}>
            All
          </Link>
        )}
      </header>
      {children}
    </section>
  );
}

interface FiguresProps {
  overview: Overview | undefined;
  cost: number | null | undefined;
  tokens: number | undefined;
}

function Figures({ overview, cost, tokens }: FiguresProps) {
  const done = sum(overview?.done_per_minute);
  const failed = sum(overview?.failed_per_minute);
  const waits = overview && oldest(overview);
  return (
    <dl className="d-figures">
      <Figure
        name="Running"
        value={overview && formatNumber(overview.running)}
        to={href('tasks', { status: 'running' })}
      />
      <Figure
        name="Queued"
        value={overview && formatNumber(overview.queued)}
        to={href('tasks', { status: 'queued' })}
      />
      <Figure
        name="Oldest waiting"
        value={overview && (waits === undefined ? '–' : formatDuration(waits))}
        note={
          overview?.oldest_queued_at
            ? `since ${clockOrDay(parseTime(overview.oldest_queued_at), parseTime(overview.at))}`
            : overview && overview.queued > 0
              ? 'none is ready'
              : 'nothing waits'
        }
      />
      <Figure name="Completed" value={done === undefined ? undefined : formatNumber(done)} note="last hour" />
      <Figure
        name="Failed"
        value={failed === undefined ? undefined : formatNumber(failed)}
        note={
          failed !== undefined && done !== undefined && failed + done > 0
            ? failureRate(failed / (failed + done))
            : 'last hour'
        }
        bad={Boolean(failed)}
        to={href('failed', { since: '1h' })}
      />
      <Figure
        name="Money per hour"
        value={cost === undefined ? undefined : cost === null ? 'unknown' : formatMoney(cost)}
        note={
          tokens === undefined ? 'last hour' : cost === null ? 'a model has no price' : `${formatShort(tokens)} tokens`
        }
      />
    </dl>
  );
}

interface FigureProps {
  name: string;
  value: string | undefined;
  note?: ReactNode;
  to?: string;
  bad?: boolean;
}

function Figure({ name, value, note, to, bad }: FigureProps) {
  const shown = value === undefined ? <span className="ax-placeholder d-figure__placeholder">&nbsp;</span> : value;
  return (
    <div className="d-figure" data-bad={bad || undefined}>
      <dt>{name}</dt>
      <dd>
        <span className="d-figure__value">{to ? <Link href={to}>{shown}</Link> : shown}</span>
        <span className="d-figure__note">{note ?? 'now'}</span>
      </dd>
    </div>
  );
}

function oldest(overview: Overview): number | undefined {
  if (!overview.oldest_queued_at) return undefined;
  return (parseTime(overview.at) - parseTime(overview.oldest_queued_at)) / 1000;
}

function tokens(usage: { input_tokens: number; output_tokens: number }): number {
  return usage.input_tokens + usage.output_tokens;
}

function sum(numbers: readonly number[] | undefined): number | undefined {
  return numbers?.reduce((total, number) => total + number, 0);
}

function failureRate(share: number): string {
  if (share === 0) return 'no failures';
  return `${share < 0.001 ? '<0.1' : (100 * share).toFixed(1)}% failure rate`;
}
