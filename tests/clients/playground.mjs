// Drives the playground in a headless Chromium, as a person would, and reports what was seen.
// usage: node playground.mjs SCENARIO URL CHROMIUM [JSON arguments]
// Prints one JSON object: what the scenario saw, and the hosts asked, the errors logged, the GraphQL requests sent.
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../web/package.json', import.meta.url));
const { chromium } = require('playwright-core');

const TIMEOUT_MS = 20_000;
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const execute = (page) => page.getByRole('button', { name: /^Execute query/ });
const tabs = (page) => page.locator('.graphiql-tab-button');
const tab = (page, name) => tabs(page).and(page.getByText(name, { exact: true }));
const status = (page) => page.getByRole('status');

/**
 * The answer as it stands on the screen, once it is whole and has the texts that are wanted. Its lines are drawn in any
 * order, at their heights.
 */
async function answer(page, wanted = []) {
  const shown = await page.waitForFunction((texts) => {
    const lines = [...document.querySelectorAll('.graphiql-response .view-line')];
    lines.sort((a, b) => Number.parseFloat(a.style.top) - Number.parseFloat(b.style.top));
    const text = lines.map((line) => line.textContent.replaceAll('\u00a0', ' ')).join('\n');
    try {
      return texts.every((each) => text.includes(each)) ? JSON.parse(text) : null;
    } catch {
      return null;
    }
  }, wanted);
  return shown.jsonValue();
}

/** Pasted, because what is typed gets its brackets closed by the editor, sooner or later than the next key. */
async function write(page, editor, text) {
  await page.evaluate((value) => navigator.clipboard.writeText(value), text);
  await editor.locator('.view-lines').click();
  await page.keyboard.press('ControlOrMeta+A');
  await page.keyboard.press('ControlOrMeta+V');
}

const operationEditor = (page) => page.getByRole('region', { name: 'Operation Editor' }).locator('.monaco-editor').first();

async function writeInto(page, tool, text) {
  await page.getByRole('button', { name: tool, exact: true }).click();
  await write(page, page.getByRole('region', { name: tool }).locator('.graphiql-editor:not(.hidden) .monaco-editor').first(), text);
}

/** A tab of its own with one operation: the play button then runs it, without a menu. */
async function newTab(page, operation) {
  await page.getByRole('button', { name: 'New tab' }).click();
  await tab(page, '<untitled>').waitFor();
  await write(page, operationEditor(page), operation);
  await page.locator('.graphiql-execute-button:not([aria-haspopup])').waitFor();
}

async function runFromMenu(page, operationName) {
  await execute(page).click();
  await Promise.all([
    page.waitForResponse((response) => requestOf(response.request())?.operationName === operationName),
    page.getByRole('menuitem', { name: operationName, exact: true }).click(),
  ]);
  return answer(page);
}

function requestOf(request) {
  if (request.method() !== 'POST' || new URL(request.url()).pathname !== '/graphql') return undefined;
  return request.postDataJSON();
}

const scenarios = {
  async opens(page) {
    const names = await tabs(page).allTextContents();
    const documents = {};
    for (const name of names) {
      await tab(page, name).click();
      await execute(page).click();
      // The menu follows the editor a moment later. A document's first operation is named as its tab.
      await page.getByRole('menuitem', { name, exact: true }).waitFor();
      documents[name] = await page.getByRole('menuitem').allTextContents();
      await page.keyboard.press('Escape');
    }
    return { title: await page.title(), tabs: names, documents, status: await status(page).textContent() };
  },

  async query(page, { operation, headers }) {
    await newTab(page, operation);
    await writeInto(page, 'Headers', JSON.stringify(headers));
    await execute(page).click();
    return { answer: await answer(page) };
  },

  async session(page, { email, password }) {
    await writeInto(page, 'Variables', JSON.stringify({ email, password }));
    const signedUp = await runFromMenu(page, 'SignUp');
    await page.getByRole('button', { name: 'Use it in this tab' }).click();
    await status(page).getByText('This tab sends').waitFor();
    const overview = await runFromMenu(page, 'Trader');
    // A reload keeps what was typed; the other tabs are other people.
    await page.waitForFunction(() => sessionStorage.getItem('graphiql:tabState')?.includes('Bearer'));
    await page.reload();
    await status(page).getByText('This tab sends').waitFor();
    const reloaded = await runFromMenu(page, 'Trader');
    await tabs(page).nth(2).click();
    await status(page).getByText('This tab is anonymous').waitFor();
    const bot = await runFromMenu(page, 'Bot');
    return { token: signedUp.data.signUp.session.token, viewers: [overview, reloaded, bot].map(({ data }) => data.viewer) };
  },

  async subscription(page, { tokens }) {
    const inits = [];
    await page.routeWebSocket(/\/graphql$/, (socket) => {
      socket.onMessage((frame) => {
        const message = JSON.parse(frame);
        if (message.type === 'connection_init') {
          inits.push(message.payload ?? null);
          socket.send(JSON.stringify({ type: 'connection_ack' }));
        } else if (message.type === 'subscribe') {
          const payload = { data: { tick: inits.length } };
          socket.send(JSON.stringify({ id: message.id, type: 'next', payload }));
        }
      });
    });
    await page.reload();
    await tab(page, 'Trader').waitFor();
    await newTab(page, 'subscription Ticks { tick }');
    const answers = [];
    for (const token of tokens) {
      await writeInto(page, 'Headers', JSON.stringify({ Authorization: `Bearer ${token}` }));
      await status(page).getByText(`Bearer ${token}`).waitFor();
      await execute(page).click();
      answers.push(await answer(page));
      await page.getByRole('button', { name: /^Stop query/ }).click();
      await execute(page).waitFor();
    }
    return { inits, answers };
  },

  async streams(page, { token, assetId }) {
    const follow = async (operationName) => {
      await execute(page).click();
      await page.getByRole('menuitem', { name: operationName, exact: true }).click();
    };
    const stop = async () => {
      await page.getByRole('button', { name: /^Stop query/ }).click();
      await execute(page).waitFor();
    };
    await writeInto(page, 'Variables', JSON.stringify({ assetId, interval: 'D1' }));
    await follow('LiveTrades');
    const events = [await answer(page, ['"SNAPSHOT"'])];
    await buy(token, assetId, 'seen-as-a-trade');
    events.push(await answer(page, ['"UPDATE"', '"BUY"']));
    await stop();
    await follow('LivePrices');
    await page.locator('.graphiql-response').getByText('display').first().waitFor();
    await buy(token, assetId, 'seen-as-a-tick');
    events.push(await answer(page, ['"UPDATE"', '"TRADE"', assetId]));
    await stop();
    await writeInto(page, 'Headers', JSON.stringify({ Authorization: `Bearer ${token}` }));
    await status(page).getByText('This tab sends').waitFor();
    await follow('LiveAccount');
    events.push(await answer(page, ['"SNAPSHOT"', '"balances"']));
    await stop();
    return { events: events.map(({ data }) => data) };
  },
};

/** Buy a share, as a program beside the browser. */
async function buy(token, assetId, clientOrderId) {
  const query = `mutation ($input: OrderPlaceInput!) { orderPlace(input: $input) { order { status } } }`;
  const variables = { input: { assetId, side: 'BUY', shares: '1', clientOrderId } };
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables }),
  });
  const { data } = await response.json();
  if (data?.orderPlace.order.status !== 'FILLED') throw new Error(JSON.stringify(data));
}

const [, , name, url, executablePath, given = '{}'] = process.argv;
// Nothing but the API can be reached, as on a machine without a network.
const offline = `--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE ${new URL(url).hostname}`;
const browser = await chromium.launch({ executablePath, headless: true, args: [...FLAGS, offline], timeout: TIMEOUT_MS });
try {
  const page = await browser.newPage({ viewport: { width: 1600, height: 1800 } });
  page.setDefaultTimeout(TIMEOUT_MS);
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write'], { origin: url });
  const seen = { hosts: new Set(), errors: [], requests: [] };
  page.context().on('request', (request) => {
    const { protocol, host } = new URL(request.url());
    if (protocol !== 'data:') seen.hosts.add(host || protocol);
    const body = requestOf(request);
    if (!body) return;
    const { authorization = null, 'x-clicked': clicked = null } = request.headers();
    const { operationName: operation_name = null, query, variables = {} } = body;
    seen.requests.push({ operation_name, query, variables, authorization, clicked });
  });
  page.on('websocket', (socket) => seen.hosts.add(new URL(socket.url()).host));
  page.on('console', (message) => message.type() === 'error' && seen.errors.push(message.text()));
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  await page.goto(`${url}/graphql`);
  await tab(page, 'Trader').waitFor();
  await operationEditor(page).locator('.view-line').first().waitFor();
  const result = await scenarios[name](page, JSON.parse(given));
  console.log(JSON.stringify({ ...result, ...seen, hosts: [...seen.hosts] }));
} finally {
  await browser.close();
}
