import { useEffect, useState } from 'react';
import { formatCount, formatNumber } from '../../../src/format.js';
import { visible } from '../../../src/visible.js';
import type { Bulk } from '../data.js';
import { Dialog } from './Dialog.js';

export interface BulkActProps {
  /** What is done, as on the button: `Cancel`. */
  verb: string;
  /** What has been done: `canceled`. */
  done: string;
  /** What the filter says, after "tasks": `named research in the queue default`. */
  which: string;
  /** Sends the act; with `dry_run` it only counts. */
  send: (body: { dry_run?: boolean }) => Promise<Bulk>;
  onClose: () => void;
}

type State =
  | { step: 'counting' }
  | { step: 'asking'; count: number; exact: boolean }
  | { step: 'acting'; changed: number }
  | { step: 'done'; changed: number }
  | { step: 'failed'; message: string; changed: number };

/** Asks before it acts on many tasks, says how many, and tells how far it is. */
export function BulkAct({ verb, done, which, send, onClose }: BulkActProps) {
  const [state, setState] = useState<State>({ step: 'counting' });

  // biome-ignore lint/correctness/useExhaustiveDependencies: counted once, as the dialog opens.
  useEffect(() => {
    send({ dry_run: true }).then(
      ({ matched, matched_is_exact: exact }) => setState({ step: 'asking', count: matched, exact }),
      (error: Error) => setState({ step: 'failed', message: error.message, changed: 0 }),
    );
  }, []);

  const act = async () => {
    let changed = 0;
    setState({ step: 'acting', changed });
    try {
      for (;;) {
        const answer = await send({});
        changed += answer.changed;
        if (!answer.more || answer.changed === 0) break;
        setState({ step: 'acting', changed });
      }
      setState({ step: 'done', changed });
    } catch (error) {
      setState({ step: 'failed', message: (error as Error).message, changed });
    }
  };

  const asks = state.step === 'asking' && state.count > 0;
  return (
    <Dialog title={`${verb} tasks`} onClose={onClose}>
      <p role="status" className="d-bulk">
        {visible(sentence(state, { verb, done, which }))}
      </p>
      <div className="d-actions">
        <button type="button" className="ax-button" onClick={onClose}>
          {asks ? 'Leave them' : 'Close'}
        </button>
        {asks && (
          <button type="button" className="ax-button ax-button--primary" onClick={act}>
            {verb} {state.exact ? '' : 'more than '}
            {formatCount(state.count, 'task')}
          </button>
        )}
      </div>
    </Dialog>
  );
}

function sentence(state: State, { verb, done, which }: { verb: string; done: string; which: string }): string {
  switch (state.step) {
    case 'counting':
      return 'Counting the tasks…';
    case 'asking':
      if (state.count === 0) return `No task ${which} is left.`;
      return `${verb} ${state.exact ? '' : 'more than '}${formatCount(state.count, 'task')} ${which}?`;
    case 'acting':
      return `${formatNumber(state.changed)} tasks ${done} so far…`;
    case 'done':
      return `${formatCount(state.changed, 'task')} ${done}.`;
    case 'failed':
      return `${state.message} ${formatCount(state.changed, 'task')} ${done}.`;
  }
}
