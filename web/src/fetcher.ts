// How the playground talks to the API: HTTP for queries and mutations, graphql-transport-ws for subscriptions.
import { createGraphiQLFetcher, type Fetcher, type FetcherParams } from '@graphiql/toolkit';
import { parse, separateOperations, type DocumentNode } from 'graphql';
import { createClient } from 'graphql-ws';

import { isJsonObject, type JsonObject } from './json';

/** A token that an answer has brought: of a session, or an API key's secret. */
export interface Credential {
  readonly operationName: string;
  readonly token: string;
}

const BODY_EXCERPT_LENGTH_MAX = 300;

export function authorizationOf(headers: JsonObject | undefined): string | undefined {
  const entry = Object.entries(headers ?? {}).find(([name]) => name.toLowerCase() === 'authorization');
  return typeof entry?.[1] === 'string' ? entry[1] : undefined;
}

function tryParse(query: string): DocumentNode | undefined {
  try {
    return parse(query);
  } catch {
    return undefined; // The server says what is wrong with it, better than a guess here.
  }
}

/**
 * A tab holds many operations; the request carries the one that runs, with its fragments and variables. The server's
 * limits, caches and logs then see what a client of one's own would send.
 */
function narrow(params: FetcherParams, document: DocumentNode | undefined): FetcherParams {
  const name = params.operationName;
  const own = document && name ? separateOperations(document)[name] : undefined;
  if (!own) return params;
  const declared = new Set<string>();
  for (const definition of own.definitions) {
    if (definition.kind !== 'OperationDefinition') continue;
    for (const variable of definition.variableDefinitions ?? []) declared.add(variable.variable.name.value);
  }
  const given: JsonObject = params.variables ?? {};
  return {
    operationName: name ?? null,
    query: own.definitions.map(({ loc }) => params.query.slice(loc?.start, loc?.end)).join('\n\n'),
    variables: Object.fromEntries(Object.entries(given).filter(([key]) => declared.has(key))),
  };
}

/** Something that is not JSON comes from what stands in front of the API, and is best shown as it came. */
async function fetchJson(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
  const response = await window.fetch(input, { ...init, credentials: 'same-origin' });
  if ((response.headers.get('content-type') ?? '').includes('json')) return response;
  const body = (await response.text()).slice(0, BODY_EXCERPT_LENGTH_MAX);
  throw new Error(`The answer is not JSON: HTTP ${response.status} ${response.statusText}. ${body}`.trim());
}

/** The token in `session.token` or `secret` of a mutation's payload, if an answer has one. */
function credentialIn(answer: unknown, operationName: string): Credential | undefined {
  if (!isJsonObject(answer) || !isJsonObject(answer['data'])) return undefined;
  for (const payload of Object.values(answer['data'])) {
    if (!isJsonObject(payload)) continue;
    const session = payload['session'];
    const token = isJsonObject(session) ? session['token'] : payload['secret'];
    if (typeof token === 'string') return { operationName, token };
  }
  return undefined;
}

interface FetcherOptions {
  /** The GraphQL endpoint: an absolute http(s) URL; the socket goes to the same address. */
  readonly endpoint: string;
  readonly onCredential: (credential: Credential) => void;
}

export function createPlaygroundFetcher({ endpoint, onCredential }: FetcherOptions): Fetcher {
  const socketUrl = endpoint.replace(/^http/, 'ws');
  return async (params, options) => {
    const introspects = params.operationName === 'IntrospectionQuery';
    // The schema is public, and a token that has expired must not leave the page without its documentation.
    const headers: Record<string, unknown> = introspects ? {} : { ...options?.headers };
    const authorization = authorizationOf(headers);
    const document = tryParse(params.query);
    const run = createGraphiQLFetcher({
      url: endpoint,
      fetch: fetchJson,
      enableIncrementalDelivery: false,
      // Of its own for each run and opened by a subscription only: a changed header is in the next connection_init.
      wsClient: createClient({ url: socketUrl, connectionParams: authorization === undefined ? {} : { authorization } }),
    });
    const answer = await run(narrow(params, document), { ...options, headers, ...(document && { documentAST: document }) });
    const credential = credentialIn(answer, params.operationName ?? 'The operation');
    if (credential) onCredential(credential);
    return answer;
  };
}
