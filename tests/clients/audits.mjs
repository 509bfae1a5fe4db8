// Runs the GraphQL-over-HTTP audits of npm's graphql-http against a running API.
// usage: node audits.mjs URL
// Prints a JSON list of {id, name, status, reason}; status is ok, notice, warn or error.
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../web/package.json', import.meta.url));
const { serverAudits } = require('graphql-http');

const results = [];
for (const audit of serverAudits({ url: process.argv[2], fetchFn: fetch })) {
  const { status, reason, response } = await audit.fn();
  await response?.body?.cancel();
  results.push({ id: audit.id, name: audit.name, status, reason: reason ?? null });
}
console.log(JSON.stringify(results));
