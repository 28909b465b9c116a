import { Untrusted } from 'agentexec-ui';
import { type ReactNode, useEffect, useRef } from 'react';
import { formatCount } from '../../../src/format.js';
import { api, HAS_LOGIN, type Me } from '../data.js';
import { href } from '../router.js';
import { useTheme } from '../theme.js';
import { Icon, type IconName } from './Icon.js';
import { Link } from './Link.js';
import { Stale } from './Problem.js';

const PLACES: readonly [section: string, name: string, icon: IconName][] = [
  ['', 'Overview', 'overview'],
  ['tasks', 'Tasks', 'tasks'],
  ['approvals', 'Approvals', 'approvals'],
  ['conversations', 'Chats', 'conversations'],
  ['failed', 'Failed', 'failed'],
  ['queues', 'Queues', 'queues'],
  ['schedules', 'Schedules', 'schedules'],
];

const THEMES = { system: 'System theme', light: 'Light theme', dark: 'Dark theme' } as const;

/** Name of the reader where nobody logs in by a name. */
const NOBODY = 'the dashboard';

export interface ShellProps {
  section: string;
  me: Me | undefined;
  /** Number of calls that wait for a person. */
  waiting: number;
  /** Reason why the server does not answer. */
  lost: Error | undefined;
  onHelp: () => void;
  children: ReactNode;
}

/** Menu and frame of every view. */
export function Shell({ section, me, waiting, lost, onHelp, children }: ShellProps) {
  const [theme, nextTheme] = useTheme();
  const nav = useRef<HTMLElement>(null);
  // On a narrow page the menu scrolls sideways.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the section decides which link is the current one.
  useEffect(() => {
    const current = nav.current?.querySelector('[aria-current]')?.getBoundingClientRect();
    if (!nav.current || !current) return;
    const { left, width } = nav.current.getBoundingClientRect();
    nav.current.scrollLeft += current.left + current.width / 2 - (left + width / 2);
  }, [section]);
  return (
    <div className="d-shell">
      {/* Not a link: its fragment would be one of <base>, which is another page. */}
      <button type="button" className="d-skip" onClick={() => document.getElementById('main')?.focus()}>
        Skip to the content
      </button>
      <header className="d-menu">
        <Link className="d-brand" href={href('')}>
          <Icon name="brand" /> agentexec
        </Link>
        <nav ref={nav} aria-label="Views">
          <ul className="d-nav">
            {PLACES.map(([path, name, icon]) => (
              <li key={path}>
                <Link href={href(path)} aria-current={path === section ? 'page' : undefined}>
                  <Icon name={icon} />
                  <span>{name}</span>
                  {path === 'approvals' && waiting > 0 && (
                    <span className="d-count" title={`${formatCount(waiting, 'call')} waiting for a person`}>
                      {waiting >= 100 ? '99+' : waiting}
                    </span>
                  )}
                </Link>
              </li>
            ))}
          </ul>
        </nav>
        <div className="d-tools">
          {me && <Who me={me} />}
          <button type="button" className="d-tool" onClick={nextTheme} aria-label={`${THEMES[theme]}: change it`}>
            <Icon name={theme} /> <span>{THEMES[theme]}</span>
          </button>
          <button type="button" className="d-tool" onClick={onHelp} aria-label="Keys">
            <kbd>?</kbd> <span>Keys</span>
          </button>
        </div>
      </header>
      <main id="main" className="d-main" tabIndex={-1}>
        {children}
      </main>
      <Stale error={lost} />
    </div>
  );
}

function Who({ me }: { me: Me }) {
  const acts = me.rights.includes('act');
  return (
    <p
      className="d-who"
      title={acts ? undefined : 'Start the dashboard with --allow-acts, or with a caller that may act.'}
    >
      {me.name && me.name !== NOBODY && (
        <span className="d-who__name">
          <Untrusted text={me.name} />
        </span>
      )}
      <span className="d-muted">{acts ? 'May act' : 'Read only'}</span>
      {HAS_LOGIN && (
        <button type="button" className="ax-link" onClick={() => api.logOut().then(() => location.reload())}>
          Log out
        </button>
      )}
    </p>
  );
}
