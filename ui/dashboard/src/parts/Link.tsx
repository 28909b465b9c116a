import type { ComponentPropsWithoutRef, MouseEvent } from 'react';
import { go } from '../router.js';

/** Link to a place of the dashboard, which needs no reload; with a modifier key the browser opens it as it opens any. */
export function Link({ href, onClick, ...rest }: ComponentPropsWithoutRef<'a'> & { href: string }) {
  return (
    <a
      {...rest}
      href={href}
      onClick={(event) => {
        onClick?.(event);
        followLink(event, href);
      }}
    />
  );
}

function followLink(event: MouseEvent<HTMLAnchorElement>, href: string): void {
  const plain = event.button === 0 && !(event.altKey || event.ctrlKey || event.metaKey || event.shiftKey);
  if (!plain || event.defaultPrevented) return;
  event.preventDefault();
  go(href);
}
