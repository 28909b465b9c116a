import { STATUS_LABELS, type Status, useActivities } from 'agentexec-ui';
import { type FormEvent, useEffect, useId, useRef, useState } from 'react';
import { formatCount } from '../../../src/format.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { visible } from '../../../src/visible.js';
import { api } from '../data.js';
import { activityFilters, bulkBody, describe, type FilterName, filtersOf, SINCE_LABELS } from '../filters.js';
import { BulkAct } from '../parts/BulkAct.js';
import { FirstTask } from '../parts/FirstTask.js';
import { Icon } from '../parts/Icon.js';
import { Link } from '../parts/Link.js';
import { Problem, Stale } from '../parts/Problem.js';
import { Tasks } from '../parts/Tasks.js';
import { useMayAct } from '../rights.js';
import { go, href, type Query } from '../router.js';
import { useStableList } from '../stable.js';

const PAGE_SIZE = 50;

/** Tasks, with filters and search in the URL. */
export function TasksView({ query }: { query: URLSearchParams }) {
  const [opened] = useState(Date.now);
  const mayAct = useMayAct();
  const [cancels, setCancels] = useState(false);
  const filters = filtersOf(query);
  const filtered = Object.keys(filters).length > 0;
  const after = query.get('after') ?? undefined;
  const wanted = { ...activityFilters(query, opened), pageSize: PAGE_SIZE, after };
  const list = useActivities(wanted);
  const { items, added, apply } = useStableList(list.data, JSON.stringify(wanted));
  const body = bulkBody(query, opened);

  if (list.error && !list.data) {
    return (
      <>
        <h1>Tasks</h1>
        <Filters query={query} />
        <Problem below title="The tasks could not be loaded" error={list.error} onRetry={list.refetch} />
      </>
    );
  }
  const { total, total_is_exact: isCounted, next_cursor: next } = list.data ?? {};
  // All of them are on the page, whether they were counted or not.
  const isExact = isCounted || (list.data !== undefined && !next && !after);
  return (
    <>
      <h1>Tasks</h1>
      <Filters query={query} />
      <div className="d-bar">
        <p className="d-muted" role="status">
          {total === undefined ? ' ' : `${isExact ? '' : 'at least '}${formatCount(total, 'task')}`}
        </p>
        {/* The place of the button is kept free, so that nothing moves when it comes. */}
        <span className="d-bar__new">
          {added > 0 && !after && (
            <button type="button" className="ax-button d-new" onClick={apply}>
              {added >= PAGE_SIZE ? `${PAGE_SIZE}+ new tasks` : formatCount(added, 'new task')}
            </button>
          )}
        </span>
        {mayAct && body && filters.status !== undefined && (
          <button type="button" className="ax-button" onClick={() => setCancels(true)}>
            Cancel these…
          </button>
        )}
      </div>
      {items?.length === 0 && !filtered && !after ? (
        <FirstTask />
      ) : (
        <>
          <Heads />
          <Tasks className="d-list" items={items} loading={list.loading} placeholders={12} empty={<NoMatch />} />
        </>
      )}
      <nav className="d-pages" aria-label="Pages">
        {after ? <Link href={href('tasks', filters)}>Newest</Link> : <span />}
        {next ? <Link href={href('tasks', { ...filters, after: next })}>Older</Link> : <span />}
      </nav>
      <Stale error={list.error} />
      {cancels && body && (
        <BulkAct
          verb="Cancel"
          done="canceled"
          which={describe(query)}
          send={(more) => api.cancelMany({ ...body, ...more })}
          onClose={() => {
            setCancels(false);
            void list.refetch();
          }}
        />
      )}
    </>
  );
}

/** Names of the columns, for the eye: a row is read out as one link, whose parts say what they are. */
function Heads() {
  return (
    <div className="d-list__heads" aria-hidden="true">
      <span>Status</span>
      <span>Task</span>
      <span>Latest message</span>
      <span>Progress or duration</span>
      <span>Updated</span>
    </div>
  );
}

function NoMatch() {
  return (
    <>
      No task matches. <Link href={href('tasks')}>Show all tasks</Link>
    </>
  );
}

const STATUSES = Object.entries(STATUS_LABELS) as [Status, string][];

function Filters({ query }: { query: URLSearchParams }) {
  const id = useId();
  const filters = filtersOf(query);
  const queues = usePolled('queues', api.queues, { enabled: true, interval: () => 60_000 });
  const set = (change: Query, replace = false) => go(href('tasks', { ...filters, ...change }), { replace });
  const others = (['task', 'queue', 'label', 'since'] as const).filter((name) => filters[name]).length;

  return (
    <search className="d-filters">
      <Search query={query} onSearch={(q) => set({ q }, true)} />
      <ul className="d-statuses" aria-label="Status">
        <li>
          <Link href={href('tasks', { ...filters, status: undefined })} aria-current={!filters.status || undefined}>
            All
          </Link>
        </li>
        {STATUSES.map(([status, label]) => (
          <li key={status}>
            <Link href={href('tasks', { ...filters, status })} aria-current={filters.status === status || undefined}>
              {label}
            </Link>
          </li>
        ))}
      </ul>
      <details className="d-more" open={others > 0 || undefined}>
        <summary>More filters{others > 0 && ` (${others})`}</summary>
        <div className="d-fields">
          <Field name="task" label="Task name" value={filters.task} onSet={set} />
          <label htmlFor={`${id}-queue`}>
            Queue
            <select
              id={`${id}-queue`}
              value={filters.queue ?? ''}
              onChange={(event) => set({ queue: event.target.value })}
            >
              <option value="">any</option>
              {options(
                filters.queue,
                queues.data?.map(({ name }) => name),
              ).map((name) => (
                <option key={name} value={name}>
                  {visible(name)}
                </option>
              ))}
            </select>
          </label>
          <Field name="label" label="Metadata" placeholder="key=value" value={filters.label} onSet={set} />
          <label htmlFor={`${id}-since`}>
            Created
            <select
              id={`${id}-since`}
              value={filters.since ?? ''}
              onChange={(event) => set({ since: event.target.value })}
            >
              {Object.entries(SINCE_LABELS).map(([since, label]) => (
                <option key={since} value={since}>
                  {label}
                </option>
              ))}
            </select>
          </label>
        </div>
      </details>
    </search>
  );
}

/** Searches while it is typed, soon after the last letter. */
function Search({ query, onSearch }: { query: URLSearchParams; onSearch: (text: string) => void }) {
  const given = query.get('q') ?? '';
  const [text, setText] = useState(given);
  const [before, setBefore] = useState(given);
  const input = useRef<HTMLInputElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const wantsFocus = query.get('focus') === 'search';

  // Back and forward change the URL, and what is typed does not.
  if (given !== before) {
    setBefore(given);
    setText(given);
  }
  useEffect(() => {
    if (wantsFocus) input.current?.focus();
  }, [wantsFocus]);
  useEffect(() => () => clearTimeout(timer.current), []);

  const submit = (event: FormEvent) => {
    event.preventDefault();
    clearTimeout(timer.current);
    onSearch(text);
  };
  return (
    <form className="d-search" onSubmit={submit}>
      <Icon name="search" />
      <input
        ref={input}
        type="search"
        aria-label="Search name, message or id"
        placeholder="Search name, message or id"
        maxLength={500}
        value={text}
        onChange={(event) => {
          const { value } = event.target;
          setText(value);
          clearTimeout(timer.current);
          timer.current = setTimeout(() => onSearch(value), 250);
        }}
        onKeyDown={(event) => {
          if (event.key === 'Escape') event.currentTarget.blur();
        }}
      />
      <span className="d-search__key">
        <kbd>/</kbd>
      </span>
    </form>
  );
}

interface FieldProps {
  name: FilterName;
  label: string;
  value: string | undefined;
  placeholder?: string;
  onSet: (change: Query) => void;
}

/** Filter that is used on Enter, and when the field is left. */
function Field({ name, label, value, placeholder, onSet }: FieldProps) {
  const id = useId();
  const use = (input: HTMLInputElement) => onSet({ [name]: input.value.trim() });
  return (
    <label htmlFor={id}>
      {label}
      <input
        id={id}
        key={value}
        defaultValue={value}
        placeholder={placeholder ?? 'any'}
        onBlur={(event) => use(event.currentTarget)}
        onKeyDown={(event) => {
          if (event.key === 'Enter') use(event.currentTarget);
        }}
      />
    </label>
  );
}

/** Return the names to choose from, with the chosen one even if it is not among them. */
function options(chosen: string | undefined, names: readonly string[] = []): readonly string[] {
  return chosen && !names.includes(chosen) ? [chosen, ...names] : names;
}
