import { ChatPanel, RelativeTime, Untrusted } from 'agentexec-ui';
import { formatNumber } from '../../../src/format.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { api } from '../data.js';
import { Link } from '../parts/Link.js';
import { Problem, Stale } from '../parts/Problem.js';
import { Table } from '../parts/Table.js';
import { useMayAct } from '../rights.js';
import { go, href } from '../router.js';

/** Conversations, those first that changed last. */
export function ConversationsView() {
  const conversations = usePolled('conversations', api.conversations, { enabled: true, interval: () => 5000 });
  if (conversations.error && !conversations.data) {
    return (
      <Problem
        title="The conversations could not be loaded"
        error={conversations.error}
        onRetry={conversations.refetch}
      />
    );
  }
  return (
    <>
      <h1>Conversations</h1>
      <p className="d-muted">The latest 100.</p>
      <Table
        label="Conversations"
        heads={['Conversation', 'Task', 'Messages', 'Changed']}
        numbers={['Messages']}
        rows={conversations.data?.map(({ id, task, messages, updated_at }) => ({
          key: id,
          cells: [
            <Link key="id" data-row="" href={href(`conversations/${encodeURIComponent(id)}`)}>
              <Untrusted text={id} />
            </Link>,
            task === null ? '–' : <Untrusted key="task" text={task} />,
            formatNumber(messages),
            <RelativeTime key="changed" time={updated_at} />,
          ],
        }))}
        empty="Nobody has talked to an agent. Begin with `agentexec chat TASK`."
      />
      <Stale error={conversations.error} />
    </>
  );
}

/** One conversation: what was said, and a field for messages. */
export function ConversationView({ conversationId }: { conversationId: string }) {
  const mayAct = useMayAct();
  return (
    <>
      <p>
        <Link href={href('conversations')}>All conversations</Link>
      </p>
      <h1>
        <Untrusted text={conversationId} />
      </h1>
      <ChatPanel
        conversationId={conversationId}
        readOnly={!mayAct}
        headingLevel={2}
        onTaskClick={(agentId) => go(href(`tasks/${agentId}`))}
      />
    </>
  );
}
