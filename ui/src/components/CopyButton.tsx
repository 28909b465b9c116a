'use client';

import { type ComponentPropsWithoutRef, useEffect, useState } from 'react';
import { classes } from './classes.js';
import { VisuallyHidden } from './VisuallyHidden.js';

export interface CopyButtonProps extends Omit<ComponentPropsWithoutRef<'button'>, 'children' | 'type'> {
  /** Text that is copied. */
  text: string;
  /** Name of what is copied, for screen readers: `Copy` and this name. */
  label?: string;
}

/** Button that copies a text, and says that it has, or that the browser did not let it. */
export function CopyButton({ text, label = 'the ID', className, ...rest }: CopyButtonProps) {
  const [outcome, setOutcome] = useState<'copied' | 'failed'>();
  useEffect(() => {
    if (!outcome) return undefined;
    const timer = setTimeout(() => setOutcome(undefined), 3000);
    return () => clearTimeout(timer);
  }, [outcome]);
  const copy = async () => {
    try {
      // Without HTTPS a browser has no clipboard.
      await navigator.clipboard.writeText(text);
      setOutcome('copied');
    } catch {
      setOutcome('failed');
    }
  };
  return (
    <>
      <button
        type="button"
        aria-label={`Copy ${label}`}
        {...rest}
        className={classes('ax-copy', className)}
        data-outcome={outcome}
        onClick={(event) => {
          rest.onClick?.(event);
          if (!event.defaultPrevented) void copy();
        }}
      >
        {outcome === 'copied' ? 'Copied' : outcome === 'failed' ? 'Not copied' : 'Copy'}
      </button>
      <VisuallyHidden aria-live="polite">
        {outcome === 'copied' ? 'Copied.' : outcome === 'failed' ? 'The browser did not allow it.' : ''}
      </VisuallyHidden>
    </>
  );
}
