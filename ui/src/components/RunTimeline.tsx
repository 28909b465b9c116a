'use client';

import { type ComponentPropsWithoutRef, type CSSProperties, type ReactNode, useMemo } from 'react';
import { formatDuration, formatJson, formatMoney, formatNumber, formatShort } from '../format.js';
import { useNow } from '../hooks/useNow.js';
import {
  buildTimeline,
  eventsFromLogs,
  type TimelineEntry,
  type TimelineKind,
  type TimelineOptions,
} from '../timeline.js';
import type { ActivityEvent, ActivityLog } from '../types/index.js';
import { visible } from '../visible.js';
import { classes } from './classes.js';
import { FoldedText } from './FoldedText.js';
import { Untrusted } from './Untrusted.js';
import { VisuallyHidden } from './VisuallyHidden.js';

const KINDS: Record<TimelineKind, string> = {
  wait: 'Wait',
  attempt: 'Attempt',
  agent: 'Agent',
  turn: 'Model',
  tool: 'Tool',
  approval: 'Approval',
  log: 'Log',
  dropped: 'Gap',
  end: 'End',
};

const STATUSES: Record<TimelineEntry['status'], string> = {
  running: 'running',
  waiting: 'waiting',
  done: 'done',
  failed: 'failed',
  canceled: 'canceled',
};

export interface RunTimelineProps extends Omit<ComponentPropsWithoutRef<'div'>, 'children'> {
  /** Events of the task, of `useActivityStream`. */
  events?: readonly ActivityEvent[] | undefined;
  /** Log of the task, which is used if there are no events. */
  logs?: readonly ActivityLog[] | undefined;
  /** Returns the price of a model call in dollars, or null if it is not known. */
  priceOf?: TimelineOptions['priceOf'];
  /** Name of the timeline for screen readers. */
  label?: string;
  /** Shown instead of an empty timeline. */
  empty?: ReactNode;
  /** Content of an entry's row. */
  renderEntry?: ((entry: TimelineEntry) => ReactNode) | undefined;
}

interface Shared {
  start: number;
  span: number;
  now: number;
  renderEntry: RunTimelineProps['renderEntry'];
}

/** Turns, tool calls, agents, approvals and waits of a run, with their time, tokens and money. */
export function RunTimeline({
  events,
  logs,
  priceOf,
  label = 'Timeline of the run',
  empty = 'Nothing has happened yet.',
  renderEntry,
  className,
  ...rest
}: RunTimelineProps) {
  const now = useNow(1000);
  const entries = useMemo(
    () => buildTimeline(events?.length ? events : eventsFromLogs(logs ?? []), { priceOf }),
    [events, logs, priceOf],
  );
  const start = entries[0]?.start ?? 0;
  const end = Math.max(start, ...entries.map((entry) => entry.end ?? Math.max(now, entry.start)));
  const shared: Shared = { start, span: Math.max(1, end - start), now, renderEntry };
  return (
    <div {...rest} className={classes('ax-timeline', className)}>
      {entries.length === 0 ? (
        <div className="ax-empty">{empty}</div>
      ) : (
        <>
          {end > start && <Axis seconds={(end - start) / 1000} />}
          <Entries entries={entries} shared={shared} label={label} />
        </>
      )}
    </div>
  );
}

/** Scale of the bars. Each row says its length in words, so it is for the eye alone. */
function Axis({ seconds }: { seconds: number }) {
  return (
    <div className="ax-timeline__row ax-timeline__axis" aria-hidden="true">
      <span className="ax-timeline__ticks">
        <span>0</span>
        <span>{formatDuration(seconds / 2)}</span>
        <span>{formatDuration(seconds)}</span>
      </span>
    </div>
  );
}

function Entries({ entries, shared, label }: { entries: TimelineEntry[]; shared: Shared; label?: string }) {
  return (
    <ol className="ax-timeline__entries" aria-label={label}>
      {entries.map((entry) => (
        <li key={entry.id} className="ax-timeline__entry" data-kind={entry.kind} data-status={entry.status}>
          {shared.renderEntry ? shared.renderEntry(entry) : <Row entry={entry} shared={shared} />}
          {entry.children.length > 0 && <Entries entries={entry.children} shared={shared} />}
        </li>
      ))}
    </ol>
  );
}

function Row({ entry, shared }: { entry: TimelineEntry; shared: Shared }) {
  const end = entry.end ?? Math.max(shared.now, entry.start);
  const bar = {
    '--ax-start': `${(100 * (entry.start - shared.start)) / shared.span}%`,
    '--ax-length': `${(100 * (end - entry.start)) / shared.span}%`,
  } as CSSProperties;
  const row = (
    <>
      <span className="ax-timeline__kind">{KINDS[entry.kind]}</span>
      <span className="ax-timeline__label" title={visible(entry.label)}>
        <Untrusted text={entry.label} />
      </span>
      <span className="ax-timeline__bar" style={bar} aria-hidden="true" />
      <span className="ax-timeline__time">{end > entry.start ? formatDuration((end - entry.start) / 1000) : ''}</span>
      <Tokens entry={entry} />
      <span className="ax-timeline__cost">{typeof entry.cost === 'number' ? formatMoney(entry.cost) : ''}</span>
      {entry.status !== 'done' && <VisuallyHidden>({STATUSES[entry.status]})</VisuallyHidden>}
    </>
  );
  const attributes = { className: 'ax-timeline__row', 'data-kind': entry.kind, 'data-status': entry.status };
  if (!entry.input && !entry.output) return <div {...attributes}>{row}</div>;
  return (
    <details className="ax-timeline__details">
      <summary {...attributes}>{row}</summary>
      {entry.input && <Text name={entry.kind === 'tool' ? 'Arguments' : 'Input'} text={entry.input} />}
      {entry.output && <Text name={entry.kind === 'turn' ? 'Text' : 'Output'} text={entry.output} />}
    </details>
  );
}

function Text({ name, text }: { name: string; text: string }) {
  // Arguments are read as strictly as before the call.
  const isJson = name === 'Arguments';
  return (
    <figure className="ax-timeline__text">
      <figcaption>{name}</figcaption>
      <FoldedText className="ax-code" text={formatJson(text)} json={isJson} strictly={isJson} />
    </figure>
  );
}

function Tokens({ entry: { usage } }: { entry: TimelineEntry }) {
  if (!usage) return <span className="ax-timeline__tokens" />;
  const exact = `${formatNumber(usage.input_tokens)} input tokens (${formatNumber(usage.cached_tokens)} cached), ${formatNumber(usage.output_tokens)} output tokens${usage.model ? `, ${visible(usage.model)}` : ''}`;
  return (
    <span className="ax-timeline__tokens" title={exact}>
      {formatShort(usage.input_tokens)} in, {formatShort(usage.output_tokens)} out
    </span>
  );
}
