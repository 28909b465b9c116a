import { Untrusted } from 'agentexec-ui';
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
  const { act, sending, problem } = useAct(onAct, onDone);
  return (
    <>
      <ActProblem problem={problem} />
      <button type="button" className="ax-button" aria-label={label} aria-disabled={sending} onClick={act}>
        {children}
      </button>
    </>
  );
}

export function ActProblem({ problem }: { problem: string | undefined }) {
  if (problem === undefined) return null;
  return (
    <span role="alert" className="d-bad">
      <Untrusted text={problem} />
    </span>
  );
}

/** Send an act once at a time, then do what is given; `onDone` hears whether the act was taken. */
export function useAct(onAct: () => Promise<unknown>, onDone: (taken: boolean) => Promise<unknown>) {
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState<string>();
  const act = async () => {
    if (sending) return;
    setSending(true);
    setProblem(undefined);
    let taken = true;
    try {
      await onAct();
    } catch (error) {
      taken = false;
      setProblem((error as Error).message);
    }
    await onDone(taken);
    setSending(false);
  };
  return { act, sending, problem };
}
