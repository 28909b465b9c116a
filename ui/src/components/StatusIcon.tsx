import type { Status } from '../types/index.js';

const PATHS: Record<Status, string> = {
  queued: 'M8 4.5V8l2.25 1.5M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0Z',
  running: 'M14 8a6 6 0 1 1-6-6',
  complete: 'M5.25 8.25 7.25 10.25 10.75 6M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0Z',
  error: 'M8 5v3.5M8 11v.01M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0Z',
  canceled: 'M4 4l8 8M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0Z',
};

/** Icon of a status, in the color of the text around it. */
export function StatusIcon({ status }: { status: Status }) {
  return (
    <svg
      className="ax-status-icon"
      data-status={status}
      viewBox="0 0 16 16"
      width="1em"
      height="1em"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.5"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
      focusable="false"
    >
      <path d={PATHS[status] ?? PATHS.queued} />
    </svg>
  );
}
