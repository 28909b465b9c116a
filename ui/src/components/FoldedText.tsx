'use client';

import { type ComponentPropsWithoutRef, useId, useState } from 'react';
import { formatCount } from '../format.js';
import { classes } from './classes.js';
import { Untrusted, UntrustedJson } from './Untrusted.js';

export interface FoldedTextProps extends Omit<ComponentPropsWithoutRef<'div'>, 'children'> {
  text: string;
  /** Number of characters that are shown before the text is unfolded. */
  limit?: number;
  /** True for JSON, whose strings then reorder nothing around them. */
  json?: boolean;
  /** For what a person decides on: no invisible character stays, not even those that emoji are joined by. */
  strictly?: boolean;
}

/**
 * Text of which only the beginning is shown, with a button that says how much more there is.
 *
 * What would be invisible, or would reorder the text, is shown as escapes.
 */
export function FoldedText({ text, limit = 500, json = false, strictly = false, className, ...rest }: FoldedTextProps) {
  const [open, setOpen] = useState(false);
  const id = useId();
  // A few characters more are shown rather than hidden behind a button.
  const folds = text.length > limit * 1.2;
  const shown = folds && !open ? `${text.slice(0, limit).replace(/[\ud800-\udbff]$/, '')}…` : text;
  return (
    <div {...rest} className={classes('ax-folded', className)}>
      <span className="ax-folded__text" id={id}>
        {json ? <UntrustedJson text={shown} strictly={strictly} /> : <Untrusted text={shown} strictly={strictly} />}
      </span>
      {folds && (
        <button
          type="button"
          className="ax-link"
          aria-expanded={open}
          aria-controls={id}
          onClick={() => setOpen(!open)}
        >
          {open ? 'Show less' : `Show ${formatCount(text.length - limit, 'more character', 'more characters')}`}
        </button>
      )}
    </div>
  );
}
