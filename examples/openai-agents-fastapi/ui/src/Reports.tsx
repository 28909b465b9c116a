import { useQuery } from '@tanstack/react-query';
import { FoldedText, RelativeTime } from 'agentexec-ui';
import { reports } from './api';

/** Published reports, which are rows of the application's own table. */
export function Reports({ onTaskClick }: { onTaskClick: (agentId: string) => void }) {
  const { data } = useQuery({ queryKey: ['reports'], queryFn: reports, refetchInterval: 5000 });
  if (!data?.length) return null;
  return (
    <section aria-labelledby="reports">
      <h2 id="reports">Published reports</h2>
      <ul className="reports">
        {data.map((report) => (
          <li key={report.id}>
            <button type="button" className="link" onClick={() => onTaskClick(report.agent_id)}>
              {report.company}
            </button>{' '}
            <RelativeTime time={report.published_at} />
            <FoldedText text={report.text} />
          </li>
        ))}
      </ul>
    </section>
  );
}
