import { ChatPanel } from 'agentexec-ui';

interface ChatProps {
  chatId: string;
  onClose: () => void;
  onTaskClick: (agentId: string) => void;
}

/** Conversation with the agent, which goes on where it was after a reload. */
export function Chat({ chatId, onClose, onTaskClick }: ChatProps) {
  return (
    <section className="task" aria-labelledby="chat">
      <header className="head">
        <h2 id="chat">Chat</h2>
        <button type="button" className="ax-button" onClick={onClose}>
          Close
        </button>
      </header>
      <ChatPanel conversationId={chatId} onTaskClick={onTaskClick} />
    </section>
  );
}
