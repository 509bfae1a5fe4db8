import { GraphiQL } from 'graphiql';

import { Authorization } from './Authorization';
import { offerCredential } from './credentials';
import { createPlaygroundFetcher } from './fetcher';
import { defaultTabs, openTab } from './tabs';

const fetcher = createPlaygroundFetcher({
  endpoint: new URL('/graphql', window.location.href).href,
  onCredential: offerCredential,
});

/**
 * What is typed here includes passwords and tokens, so it lives as long as the browser's tab: a reload keeps it,
 * another day or another person at the same browser does not find it.
 */
const storage = window.sessionStorage;

const open = openTab(storage);

export function Playground() {
  return (
    <>
      <header className="playground-header">
        <h1>Megatron playground</h1>
        <p>
          Run <code>SignUp</code>, <code>LogIn</code> or <code>AdminLogIn</code> from the play button’s menu, then press{' '}
          <em>Use it in this tab</em> under the answer. Or write it yourself under <em>Headers</em>:{' '}
          <code>{'{"authorization": "Bearer …"}'}</code>
        </p>
      </header>
      <main className="playground-main">
        <GraphiQL
          fetcher={fetcher}
          storage={storage}
          shouldPersistHeaders
          defaultTabs={[...defaultTabs]}
          initialQuery={open.query}
          initialVariables={open.variables}
          initialHeaders={open.headers}
          defaultEditorToolsVisibility="variables"
        >
          <GraphiQL.Logo>
            <span />
          </GraphiQL.Logo>
          <GraphiQL.Footer>
            <Authorization />
          </GraphiQL.Footer>
        </GraphiQL>
      </main>
    </>
  );
}
