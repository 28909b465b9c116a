import { useMutation, useQueryClient } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { type Kind, start } from './api';

/** Form that queues a task. */
export function StartForm({ onStarted }: { onStarted: (agentId: string) => void }) {
  const [company, setCompany] = useState('');
  const queries = useQueryClient();
  const queue = useMutation({
    mutationFn: (kind: Kind) => start(kind, company.trim()),
    onSuccess: (agentId) => {
      setCompany('');
      onStarted(agentId);
      return queries.invalidateQueries();
    },
  });

  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const button = (event.nativeEvent as SubmitEvent).submitter as HTMLButtonElement | null;
    queue.mutate(button?.value === 'comparisons' ? 'comparisons' : 'research');
  };

  return (
    <form className="start" onSubmit={submit}>
      <label htmlFor="company">Company</label>
      <input
        id="company"
        value={company}
        onChange={(event) => setCompany(event.target.value)}
        required
        pattern=".*\S.*"
        maxLength={100}
        autoComplete="off"
        placeholder="Acme"
      />
      <button type="submit" className="ax-button ax-button--primary" value="research" disabled={queue.isPending}>
        Research
      </button>
      <button
        type="submit"
        className="ax-button"
        value="comparisons"
        disabled={queue.isPending}
        title="A pipeline: two agents in parallel, then a verdict"
      >
        Weigh
      </button>
      {queue.error && (
        <p role="alert" className="ax-error">
          {queue.error.message}
        </p>
      )}
    </form>
  );
}
