import { type ReactNode, useState } from 'react';

export interface ActButtonProps {
  /** Name for screen readers, which says on what it acts. */
  label: string;
  onAct: () => Promise<unknown>;
  onDone: () => Promise<unknown>;
  children: ReactNode;
}

/** Button that sends an act, keeps the focus meanwhile, and tells what went wrong. */
export function ActButton({ label, onAct, onDone, children }: ActButtonProps) {
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState<string>();
  const act = async () => {
    if (sending) return;
    setSending(true);
    setProblem(undefined);
    try {
      await onAct();
    } catch (error) {
      setProblem((error as Error).message);
    }
    await onDone();
    setSending(false);
  };
  return (
    <>
      {problem && (
        <span role="alert" className="d-bad">
          {problem}
        </span>
      )}
      <button type="button" className="ax-button" aria-label={label} aria-disabled={sending} onClick={act}>
        {children}
      </button>
    </>
  );
}
