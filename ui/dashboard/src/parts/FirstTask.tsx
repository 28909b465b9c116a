import { useState } from 'react';

const LINES = `import agentexec as ax

task = await ax.enqueue("research", ResearchContext(company="Acme"))
print(task.agent_id)`;

/** Shown while there is no task at all: how to enqueue the first one. */
export function FirstTask() {
  const [copied, setCopied] = useState(false);
  const copy = () => navigator.clipboard?.writeText(LINES).then(() => setCopied(true));
  return (
    <section className="d-first" aria-label="No tasks yet">
      <h2>No tasks yet</h2>
      <p>
        Start a worker with <code>agentexec worker myapp.worker</code>, and enqueue a task from your application:
      </p>
      <pre className="ax-code">{LINES}</pre>
      <button type="button" className="ax-button" onClick={copy}>
        {copied ? 'Copied' : 'Copy'}
      </button>
      <p className="d-muted">It appears here by itself.</p>
    </section>
  );
}
