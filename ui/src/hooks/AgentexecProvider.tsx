'use client';

import { createContext, type ReactNode, useContext, useState } from 'react';
import { type Client, createClient } from '../client/client.js';

const ClientContext = /*#__PURE__*/ createContext<Client | null>(null);

export interface AgentexecProviderProps {
  client: Client;
  children?: ReactNode;
}

/** Gives all hooks inside a client of the API. */
export function AgentexecProvider({ client, children }: AgentexecProviderProps) {
  return <ClientContext.Provider value={client}>{children}</ClientContext.Provider>;
}

/** Return the client given, else that of the nearest AgentexecProvider, else one of an API on this page's host. */
export function useClient(given?: Client): Client {
  const provided = useContext(ClientContext);
  const [fallback] = useState(() => createClient());
  return given ?? provided ?? fallback;
}
