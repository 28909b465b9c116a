import { Untrusted } from 'agentexec-ui';
import { type FormEvent, useEffect, useRef, useState } from 'react';
import { api, HAS_LOGIN } from '../data.js';

/** Asks for the token, or takes it from the link that the command has printed. */
export function LoginView({ onLoggedIn }: { onLoggedIn: () => void }) {
  const [token, setToken] = useState('');
  const [problem, setProblem] = useState<string>();
  const [sending, setSending] = useState(false);
  const started = useRef(false);

  const logIn = async (given: string) => {
    setSending(true);
    setProblem(undefined);
    try {
      await api.logIn(given);
      onLoggedIn();
    } catch (error) {
      setProblem((error as Error).message);
      setSending(false);
    }
  };

  // biome-ignore lint/correctness/useExhaustiveDependencies: the link is used once.
  useEffect(() => {
    if (started.current) return;
    started.current = true;
    const given = takeToken();
    if (given && HAS_LOGIN) void logIn(given);
  }, []);

  if (!HAS_LOGIN) {
    return (
      <main className="d-alone">
        <h1>Not logged in</h1>
        <p>Log in to the application that this dashboard is part of, then load this page again.</p>
        <button type="button" className="ax-button" onClick={() => location.reload()}>
          Load again
        </button>
      </main>
    );
  }
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (token.trim() && !sending) void logIn(token.trim());
  };
  return (
    <main className="d-alone">
      <h1>agentexec</h1>
      <form className="d-login" onSubmit={submit}>
        <label htmlFor="token">Token</label>
        <input
          id="token"
          type="password"
          autoComplete="current-password"
          value={token}
          onChange={(event) => setToken(event.target.value)}
          aria-describedby="token-help"
        />
        <p id="token-help" className="d-muted">
          <code>agentexec dashboard</code> has printed it, or it is the value of <code>AGENTEXEC_DASHBOARD_TOKEN</code>.
        </p>
        {problem && (
          <p role="alert" className="ax-error">
            <Untrusted text={problem} />
          </p>
        )}
        <button type="submit" className="ax-button ax-button--primary" aria-disabled={sending}>
          Log in
        </button>
      </form>
    </main>
  );
}

/** Return the token of a link such as `/#token=…`, and remove it from the address and the history. */
function takeToken(): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token) history.replaceState(history.state, '', location.pathname + location.search);
  return token;
}
