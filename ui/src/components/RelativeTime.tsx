'use client';

import type { ComponentPropsWithoutRef } from 'react';
import { formatRelative, parseTime } from '../format.js';
import { useNow } from '../hooks/useNow.js';
import { classes } from './classes.js';

export interface RelativeTimeProps extends Omit<ComponentPropsWithoutRef<'time'>, 'dateTime' | 'children'> {
  /** Time as the API returns it. */
  time: string | null | undefined;
}

/** Time such as `3 m ago`, with the exact time on hover. */
export function RelativeTime({ time, className, ...rest }: RelativeTimeProps) {
  const now = useNow();
  const at = parseTime(time);
  if (Number.isNaN(at)) return null;
  const iso = new Date(at).toISOString();
  const exact = `${iso.slice(0, 10)} ${iso.slice(11, 19)}`;
  return (
    <time {...rest} className={classes('ax-time', className)} dateTime={iso} title={`${exact} UTC`}>
      {now === 0 ? exact : formatRelative(at, now)}
    </time>
  );
}
