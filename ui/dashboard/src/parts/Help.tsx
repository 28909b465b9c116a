import { KEYS } from '../keyboard.js';
import { Dialog } from './Dialog.js';

/** Keys of the page. */
export function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" onClose={onClose}>
      <dl className="d-keys">
        {KEYS.map(([keys, does]) => (
          <div key={keys}>
            <dt>{keys.split(' ').map((key) => (key === 'then' ? ' then ' : <kbd key={key}>{key}</kbd>))}</dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
      <div className="d-actions">
        <button type="button" className="ax-button" onClick={onClose}>
          Close
        </button>
      </div>
    </Dialog>
  );
}
