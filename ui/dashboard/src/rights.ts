import { createContext, useContext } from 'react';
import type { Me } from './data.js';

export const MeContext = createContext<Me | undefined>(undefined);

/** Return true if the reader may change something. */
export function useMayAct(): boolean {
  return useContext(MeContext)?.rights.includes('act') ?? false;
}
