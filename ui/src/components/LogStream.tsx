'use client';

import { type ComponentPropsWithoutRef, type ReactNode, useEffect, useRef, useState } from 'react';
import { formatCount, parseTime } from '../format.js';
import type { ActivityLog } from '../types/index.js';
import { classes } from './classes.js';
import { FoldedText } from './FoldedText.js';
import { Untrusted } from './Untrusted.js';

/** Line of a log. */
export type LogLine = Pick<ActivityLog, 'id' | 'created_at' | 'message'> & Partial<ActivityLog>;

export interface LogStreamProps extends Omit<ComponentPropsWithoutRef<'div'>, 'children'> {
  lines: readonly LogLine[];
  /** Text that the model is writing, shown after the lines. */
  text?: string | undefined;
  /** Name of the log for screen readers. */
  label?: string;
  /** Number of lines that are shown before a button asks for earlier ones. */
  limit?: number;
  /** Shown instead of an empty log. */
  empty?: ReactNode;
  renderLine?: ((line: LogLine) => ReactNode) | undefined;
}

/** Log that follows its end, until the reader scrolls back. */
export function LogStream({
  lines,
  text,
  label = 'Log',
  limit = 500,
  empty = 'No lines yet.',
  renderLine,
  className,
  ...rest
}: LogStreamProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const [shown, setShown] = useState(limit);
  // Number of lines at which the reader scrolled back; null while the end is followed.
  const [leftAt, setLeftAt] = useState<number | null>(null);
  const follows = leftAt === null;
  const size = lines.length + (text?.length ?? 0);

  // biome-ignore lint/correctness/useExhaustiveDependencies: follows whatever has been added.
  useEffect(() => {
    if (follows && scroller.current) scroller.current.scrollTop = scroller.current.scrollHeight;
  }, [follows, size]);

  const hidden = Math.max(0, lines.length - shown);
  const added = leftAt === null ? 0 : Math.max(0, lines.length - leftAt);
  return (
    <div {...rest} className={classes('ax-log', className)} data-following={follows}>
      <div
        ref={scroller}
        className="ax-log__scroller"
        role="log"
        aria-label={label}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
        tabIndex={0}
        onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
          const atEnd = scrollHeight - scrollTop - clientHeight < 24;
          setLeftAt((left) => (atEnd ? null : (left ?? lines.length)));
        }}
      >
        {hidden > 0 && (
          <button type="button" className="ax-link" onClick={() => setShown(shown + limit)}>
            Show earlier lines ({formatCount(hidden, 'line')})
          </button>
        )}
        {lines.length === 0 && !text && <div className="ax-empty">{empty}</div>}
        <ol className="ax-log__lines">
          {lines.slice(hidden).map((line) => (
            <li key={line.id} className="ax-log__line" data-status={line.status}>
              {renderLine ? renderLine(line) : <Line line={line} />}
            </li>
          ))}
        </ol>
        {text ? (
          // Read out word by word it would drown everything else.
          <div className="ax-log__text" aria-live="off">
            <Untrusted text={text} />
          </div>
        ) : null}
      </div>
      {added > 0 && (
        <button type="button" className="ax-button ax-log__jump" onClick={() => setLeftAt(null)}>
          {formatCount(added, 'new line')}
        </button>
      )}
    </div>
  );
}

function Line({ line }: { line: LogLine }) {
  const at = parseTime(line.created_at);
  const iso = Number.isNaN(at) ? '' : new Date(at).toISOString();
  return (
    <>
      <time className="ax-time" dateTime={iso} title={`${iso.slice(0, 10)} ${iso.slice(11, 23)} UTC`}>
        {iso.slice(11, 19)}
      </time>
      <FoldedText className="ax-log__message" text={line.message} />
      <span className="ax-log__percentage">{typeof line.percentage === 'number' ? `${line.percentage}%` : ''}</span>
    </>
  );
}
