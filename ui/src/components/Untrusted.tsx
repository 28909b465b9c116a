import { visible } from '../visible.js';

/** Right-to-left letters, which reorder the signs and numbers around them. */
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

const JSON_STRING = /("(?:[^"\\]|\\.)*")/;

export interface UntrustedProps {
  text: string | null | undefined;
  /** For what a person decides on: nothing invisible stays. */
  strictly?: boolean;
}

/** Text of a model, a user or a task, which hides nothing and leaves its neighbors where they are. */
export function Untrusted({ text, strictly = false }: UntrustedProps) {
  return text ? <bdi>{visible(text, strictly)}</bdi> : null;
}

/** JSON, of which no string reorders what is around it. */
export function UntrustedJson({ text, strictly = false }: { text: string; strictly?: boolean }) {
  const shown = visible(text, strictly);
  // Most JSON needs no elements of its own.
  if (!RIGHT_TO_LEFT.test(shown)) return <bdi dir="ltr">{shown}</bdi>;
  return (
    <bdi dir="ltr">
      {shown.split(JSON_STRING).map((part, index) =>
        // biome-ignore lint/suspicious/noArrayIndexKey: a part is its place.
        index % 2 ? <bdi key={index}>{part}</bdi> : part,
      )}
    </bdi>
  );
}
