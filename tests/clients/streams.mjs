// Follows streams with the clients that people use: npm's graphql-ws and graphql-sse.
// usage: node streams.mjs SCENARIO URL JSON
// URL is the GraphQL endpoint. Prints one JSON object: what the scenario saw.
import { createRequire } from 'node:module';
import { setTimeout as pause } from 'node:timers/promises';

const require = createRequire(new URL('../../web/package.json', import.meta.url));
const { createClient: createSocketClient } = require('graphql-ws');
const { createClient: createEventSourceClient } = require('graphql-sse');
const WebSocket = require('ws');

const TICKS = `subscription Ticks($ids: [ID!], $after: Cursor) {
  priceTicks(assetIds: $ids, after: $after, heartbeatSeconds: 1) {
    kind cursor missed ticks { assetId seq cause tradeSeq display } } }`;
const OWN = 'subscription Own { accountEvents { kind seq orders { clientOrderId status } balances { available } } }';
const ORDER = `mutation Buy($assetId: ID!, $key: String!) {
  orderPlace(input: { assetId: $assetId, side: BUY, shares: "1", clientOrderId: $key }) {
    order { status fills { tradeSeq } } userErrors { code } } }`;

const [, , name, url, given = '{}'] = process.argv;

/** A graphql-ws client, the sockets it has opened and the codes they were closed with. */
function socketClient(token, options = {}) {
  const sockets = [];
  const closes = [];
  const client = createSocketClient({
    url: url.replace(/^http/, 'ws'),
    webSocketImpl: WebSocket,
    connectionParams: token === undefined ? {} : { authorization: `Bearer ${token}` },
    retryAttempts: 0,
    on: {
      opened: (socket) => sockets.push(socket),
      closed: ({ code, reason }) => closes.push({ code, reason: String(reason) }),
    },
    ...options,
  });
  return { client, sockets, closes };
}

function eventSourceClient(token) {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  return { client: createEventSourceClient({ url, headers, retryAttempts: 0 }) };
}

/** The only result of a query or mutation. */
async function one(client, query, variables = {}) {
  const results = [];
  for await (const result of client.iterate({ query, variables })) results.push(result);
  if (results.length !== 1) throw new Error(`one result, not ${results.length}`);
  return results[0];
}

/** Events of a stream until `enough` says so, which sees all that have come. */
async function take(stream, enough) {
  const events = [];
  while (!enough(events)) {
    const { done, value } = await stream.next();
    if (done) throw new Error(`the stream ended after ${JSON.stringify(events)}`);
    if (!value.data) throw new Error(JSON.stringify(value));
    events.push(Object.values(value.data)[0]);
  }
  return events;
}

const ticksOf = (events) => events.flatMap((event) => event.ticks);
const sawTick = (events) => ticksOf(events).length > 0;
const sawTrade = (seq) => (events) => ticksOf(events).some((tick) => tick.cause === 'TRADE' && tick.tradeSeq === seq);

/** What an iteration fails with: GraphQL errors, a closed socket, or an HTTP answer that refuses. */
async function failureOf(iteration) {
  try {
    for await (const result of iteration) return { result };
  } catch (error) {
    if (Array.isArray(error)) return { errors: error };
    if (error.response) return { status: error.response.status, body: await error.response.json() };
    return { code: error.code, reason: String(error.reason ?? error.message) };
  }
  return { completed: true };
}

/** Subscribe, see a trade, lose the connection, miss two trades, come back with the cursor and miss nothing. */
async function resumes(newClient, cut, { token, assetId }) {
  const buyer = newClient(token).client;
  const buy = (key) => one(buyer, ORDER, { assetId, key });
  const first = newClient(token);
  const stream = first.client.iterate({ query: TICKS, variables: { ids: [assetId] } });
  const before = await take(stream, sawTick);
  const orders = [await buy('one')];
  before.push(...(await take(stream, sawTrade(1))));
  const lost = cut(first, stream);
  orders.push(await buy('two'), await buy('three'));
  const ended = await lost;
  const after = before.at(-1).cursor;
  const again = newClient(token).client.iterate({ query: TICKS, variables: { ids: [assetId], after } });
  const resumed = await take(again, sawTrade(3));
  orders.push(await buy('four'));
  resumed.push(...(await take(again, sawTrade(4))));
  await again.return();
  return { before, resumed, orders, ended };
}

const scenarios = {
  async socket_operations({ token }) {
    const { client, sockets, closes } = socketClient(token, { lazy: false });
    const query = await one(client, '{ viewer { email } }');
    const mutation = await one(client, 'mutation { devFund(input: { amount: "5", idempotencyKey: "a" }) { viewer { id } } }');
    const invalid = await failureOf(client.iterate({ query: '{ nothing }' }));
    await client.dispose();
    while (!closes.length) await pause(10);
    return { query, mutation, invalid, sockets: sockets.length, closes };
  },

  async socket_resumes(args) {
    return resumes(
      socketClient,
      async ({ sockets }, stream) => {
        sockets[0].terminate();
        try {
          for (;;) await stream.next();
        } catch (error) {
          return { code: error.code };
        }
      },
      args,
    );
  },

  async socket_completes({ token, assetId }) {
    const { client, sockets } = socketClient(token, { lazy: false });
    const received = [];
    const stream = client.iterate({ query: TICKS, variables: { ids: [assetId] } });
    await take(stream, sawTick);
    const other = client.iterate({ query: TICKS, variables: { ids: [assetId] } });
    await take(other, sawTick);
    sockets[0].on('message', (data) => received.push(JSON.parse(data)));
    await stream.return();
    await take(other, (events) => events.filter(({ kind }) => kind === 'HEARTBEAT').length >= 2);
    const query = await one(client, '{ __typename }');
    await other.return();
    await client.dispose();
    return { query, ids: [...new Set(received.filter(({ type }) => type === 'next').map(({ id }) => id))].length };
  },

  async socket_refuses({ token, assetId }) {
    const signedIn = socketClient(token).client;
    const anonymous = socketClient().client;
    const stranger = socketClient('mgs_of_nobody');
    return {
      unknown_asset: await failureOf(signedIn.iterate({ query: TICKS, variables: { ids: ['x'] } })),
      bad_cursor: await failureOf(signedIn.iterate({ query: TICKS, variables: { ids: [assetId], after: 'x' } })),
      anonymous: await failureOf(anonymous.iterate({ query: OWN })),
      stranger: await failureOf(stranger.client.iterate({ query: TICKS })),
    };
  },

  async socket_own_events({ token, assetId }) {
    const { client } = socketClient(token);
    const stream = client.iterate({ query: OWN });
    const events = await take(stream, (seen) => seen.length > 0);
    await one(client, ORDER, { assetId, key: 'own' });
    events.push(...(await take(stream, (seen) => seen.some(({ orders }) => orders.length > 0))));
    await stream.return();
    return { events };
  },

  async sse_operations({ token }) {
    const { client } = eventSourceClient(token);
    return {
      query: await one(client, '{ viewer { email } }'),
      mutation: await one(client, 'mutation { devFund(input: { amount: "5", idempotencyKey: "b" }) { viewer { id } } }'),
    };
  },

  async sse_resumes(args) {
    return resumes(eventSourceClient, async (_, stream) => ({ completed: (await stream.return()).done }), args);
  },

  async sse_refuses({ token, assetId }) {
    const signedIn = eventSourceClient(token).client;
    const anonymous = eventSourceClient().client;
    const stranger = eventSourceClient('mgs_of_nobody').client;
    return {
      unknown_asset: await failureOf(signedIn.iterate({ query: TICKS, variables: { ids: ['x'] } })),
      bad_cursor: await failureOf(signedIn.iterate({ query: TICKS, variables: { ids: [assetId], after: 'x' } })),
      anonymous: await failureOf(anonymous.iterate({ query: OWN })),
      stranger: await failureOf(stranger.iterate({ query: TICKS })),
    };
  },

  async sse_own_events({ token, assetId }) {
    const { client } = eventSourceClient(token);
    const stream = client.iterate({ query: OWN });
    const events = await take(stream, (seen) => seen.length > 0);
    await one(client, ORDER, { assetId, key: 'own-sse' });
    events.push(...(await take(stream, (seen) => seen.some(({ orders }) => orders.length > 0))));
    await stream.return();
    return { events };
  },
};

console.log(JSON.stringify(await scenarios[name](JSON.parse(given))));
process.exit(0);
