import { RequestError, Untrusted } from 'agentexec-ui';

export interface ProblemProps {
  title: string;
  error?: Error | undefined;
  text?: string | undefined;
  onRetry?: (() => void) | undefined;
  /** Part of a view that has its own title. */
  below?: boolean;
}

/** Says what is wrong, and what to do about it. */
export function Problem({ title, error, text, onRetry, below = false }: ProblemProps) {
  const Heading = below ? 'h2' : 'h1';
  return (
    <div className="d-problem" role="alert">
      <Heading>{title}</Heading>
      <p>
        <Untrusted text={text ?? (error && adviceOn(error))} />
      </p>
      {error && !(error instanceof RequestError) && (
        <p className="d-muted">
          <Untrusted text={error.message} />
        </p>
      )}
      {onRetry && (
        <button type="button" className="ax-button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

function adviceOn(error: Error): string {
  if (!(error instanceof RequestError)) {
    return 'The server of the dashboard does not answer. Check that it runs, and that this machine reaches it; the page tries again by itself.';
  }
  if (error.status === 503) return `${error.message} The page tries again by itself.`;
  if (error.status >= 500) return `${error.message} The server's log says more.`;
  return error.message;
}

/** Tells in a fixed place that what is shown is not fresh; nothing moves. */
export function Stale({ error }: { error: Error | undefined }) {
  return (
    <p className="d-stale" role="status">
      {error && (
        <>
          Not fresh: <Untrusted text={error instanceof RequestError ? error.message : 'the server does not answer.'} />{' '}
          Trying again.
        </>
      )}
    </p>
  );
}
