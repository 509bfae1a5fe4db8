// The token that the last answer brought, until it is used or dismissed. Kept in memory only.
import { useSyncExternalStore } from 'react';

import type { Credential } from './fetcher';

let offered: Credential | undefined;
const listeners = new Set<() => void>();

export function offerCredential(credential: Credential | undefined): void {
  offered = credential;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useOfferedCredential(): Credential | undefined {
  return useSyncExternalStore(subscribe, () => offered);
}
