'use client';

import { type ComponentPropsWithoutRef, useId, useState } from 'react';
import { formatCount } from '../format.js';
import { classes } from './classes.js';

export interface FoldedTextProps extends Omit<ComponentPropsWithoutRef<'div'>, 'children'> {
  text: string;
  /** Number of characters that are shown before the text is unfolded. */
  limit?: number;
}

/** Text of which only the beginning is shown, with a button that says how much more there is. */
export function FoldedText({ text, limit = 500, className, ...rest }: FoldedTextProps) {
  const [open, setOpen] = useState(false);
  const id = useId();
  // A few characters more are shown rather than hidden behind a button.
  const folds = text.length > limit * 1.2;
  return (
    <div {...rest} className={classes('ax-folded', className)}>
      <span className="ax-folded__text" id={id}>
        {folds && !open ? `${text.slice(0, limit)}…` : text}
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
