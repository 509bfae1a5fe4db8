// The tabs that the playground opens with: one for each document of graphql/operations, the single source of them.
import type { GraphiQLProps } from 'graphiql';

import { isJsonObject, type JsonObject } from './json';

type Tab = NonNullable<GraphiQLProps['defaultTabs']>[number];

const documents = import.meta.glob<string>('../../graphql/operations/*.graphql', {
  query: '?raw',
  import: 'default',
  eager: true,
});

/** For each document, the variables of each of its operations. */
const sidecars = import.meta.glob<Readonly<Record<string, JsonObject>>>('../../graphql/operations/*.variables.json', {
  import: 'default',
  eager: true,
});

const FIRST = ['trader', 'admin', 'bot'];

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1).replace(/\.graphql$/, '');
}

function rank(path: string): number {
  const position = FIRST.indexOf(nameOf(path));
  return position === -1 ? FIRST.length : position;
}

/**
 * A tab has one variables editor for all its operations. Operations that share a variable give it the same value
 * (a test of the documents holds them to it), so that an asset's id is pasted once and serves every operation.
 */
function variablesOf(path: string): string {
  const sidecar = sidecars[path.replace(/\.graphql$/, '.variables.json')] ?? {};
  const merged: JsonObject = Object.assign({}, ...Object.values(sidecar));
  return JSON.stringify(merged, null, 2);
}

export const defaultTabs: readonly Tab[] = Object.entries(documents)
  .sort(([a], [b]) => rank(a) - rank(b) || a.localeCompare(b))
  .map(([path, query]) => ({ query, variables: variablesOf(path), headers: '' }));

function textIn(tab: JsonObject, key: string): string {
  const value = tab[key];
  return typeof value === 'string' ? value : '';
}

/**
 * What the editors start with: the tab that was open before a reload, or else the first of the default tabs.
 *
 * GraphiQL keeps the editors' contents apart from the tabs, only once they are edited, and takes a mixture that no tab
 * matches for a tab of its own, which it opens empty. Told the contents of one tab, it finds that tab again.
 */
export function openTab(storage: Storage): Readonly<Record<'query' | 'variables' | 'headers', string>> {
  let tab: unknown;
  try {
    const stored: unknown = JSON.parse(storage.getItem('graphiql:tabState') ?? 'null');
    if (isJsonObject(stored) && Array.isArray(stored['tabs'])) tab = stored['tabs'][Number(stored['activeTabIndex'])];
  } catch {
    // GraphiQL opens the default tabs where it cannot read the stored ones, and so does this.
  }
  const open = isJsonObject(tab) ? tab : { ...defaultTabs[0] };
  return { query: textIn(open, 'query'), variables: textIn(open, 'variables'), headers: textIn(open, 'headers') };
}
