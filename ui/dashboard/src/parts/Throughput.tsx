import type { Overview } from 'agentexec-ui';
import { type PointerEvent, useState } from 'react';
import { formatCount, formatNumber, parseTime } from '../../../src/format.js';

const HEIGHT = 96;
const WIDTH = 10;

/** Completed and failed tasks of each minute, as bars. */
export function Throughput({ overview }: { overview: Overview | undefined }) {
  const [chosen, setChosen] = useState<number | null>(null);
  const done = overview?.done_per_minute ?? [];
  const failed = overview?.failed_per_minute ?? [];
  const sums = done.map((number, index) => number + (failed[index] ?? 0));
  const peak = Math.max(0, ...sums);
  const top = niceCeiling(peak);
  const minutes = done.length;

  const point = ({ currentTarget, clientX }: PointerEvent<SVGSVGElement>) => {
    const { left, width } = currentTarget.getBoundingClientRect();
    setChosen(Math.max(0, Math.min(minutes - 1, Math.floor(((clientX - left) / width) * minutes))));
  };
  const height = (number: number) => (HEIGHT * number) / top;
  return (
    <section className="d-panel" aria-label="Throughput">
      <header className="d-panel__head">
        <h2>Throughput</h2>
        <p className="d-muted">
          {overview === undefined
            ? ' '
            : chosen === null
              ? `at most ${formatCount(peak, 'task')} per minute`
              : `${clock(overview.at, minutes - 1 - chosen)}: ${formatNumber(done[chosen] ?? 0)} completed, ${formatNumber(failed[chosen] ?? 0)} failed`}
        </p>
      </header>
      <div className="d-chart">
        <span className="d-chart__top">{overview ? formatNumber(top) : ''}</span>
        {overview ? (
          <svg
            viewBox={`0 0 ${Math.max(1, minutes) * WIDTH} ${HEIGHT}`}
            preserveAspectRatio="none"
            role="img"
            aria-label={`Tasks per minute in the last ${formatCount(minutes, 'minute')}: ${sums.join(', ')}`}
            onPointerMove={point}
            onPointerLeave={() => setChosen(null)}
          >
            {sums.map((sum, index) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: a bar is its place.
              <g key={index} data-chosen={chosen === index || undefined}>
                <rect className="d-chart__back" x={index * WIDTH} y={0} width={WIDTH} height={HEIGHT} />
                <rect
                  className="d-chart__done"
                  x={index * WIDTH + 1}
                  y={HEIGHT - height(sum)}
                  width={WIDTH - 2}
                  height={height(done[index] ?? 0)}
                />
                <rect
                  className="d-chart__failed"
                  x={index * WIDTH + 1}
                  y={HEIGHT - height(failed[index] ?? 0)}
                  width={WIDTH - 2}
                  height={height(failed[index] ?? 0)}
                />
              </g>
            ))}
          </svg>
        ) : (
          <div className="ax-placeholder" />
        )}
        <div className="d-chart__axis" aria-hidden="true">
          <span>{overview ? clock(overview.at, minutes) : ''}</span>
          <span className="d-legend">
            <i data-kind="done" /> completed <i data-kind="failed" /> failed
          </span>
          <span>now</span>
        </div>
      </div>
    </section>
  );
}

/** Return the time of day some minutes before a time, in UTC as in logs. */
function clock(at: string, before: number): string {
  return `${new Date(parseTime(at) - before * 60_000).toISOString().slice(11, 16)} UTC`;
}

/** Return a round number that is not lower. */
function niceCeiling(value: number): number {
  const scale = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 5, 10].map((step) => step * scale).find((round) => round >= value) ?? value;
}
