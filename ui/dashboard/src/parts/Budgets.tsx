import { type Budget, BudgetForm } from 'agentexec-ui';
import { useState } from 'react';
import { api } from '../data.js';
import { Dialog } from './Dialog.js';

export interface BudgetButtonProps {
  agentId: string;
  budget: Budget | null | undefined;
  /** True for a task that failed or was canceled: it is put back on its queue with the budget. */
  ended: boolean;
  onDone: () => Promise<void>;
}

/** Button that opens the form of a task's budget, in a dialog. */
export function BudgetButton({ agentId, budget, ended, onDone }: BudgetButtonProps) {
  const [opened, setOpened] = useState(false);
  const close = () => setOpened(false);
  const send = async (limit: string) => {
    const { changed } = await (ended ? api.retry(agentId, limit) : api.setBudget(agentId, limit));
    await onDone();
    if (!changed) throw new Error(ended ? 'It was put back before.' : 'The task has ended.');
    close();
  };
  return (
    <>
      <button type="button" className="ax-button" onClick={() => setOpened(true)}>
        {ended ? 'Retry with a budget…' : 'Budget…'}
      </button>
      {opened && (
        <Dialog title={ended ? 'Retry with another budget' : 'Budget of this task'} onClose={close}>
          <BudgetForm
            budget={budget}
            onBudget={send}
            onCancel={close}
            {...(ended && { submit: 'Retry with this budget' })}
          />
        </Dialog>
      )}
    </>
  );
}
