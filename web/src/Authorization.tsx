// The line under the answer: whether this tab sends a token, and the way to make it send the one just received.
import { useGraphiQL, useGraphiQLActions } from '@graphiql/react';
import { parse as parseJsonc } from 'jsonc-parser';

import { offerCredential, useOfferedCredential } from './credentials';
import { authorizationOf } from './fetcher';
import { isJsonObject, type JsonObject } from './json';

function parseHeaders(text: string | null | undefined): JsonObject {
  const parsed: unknown = parseJsonc(text ?? '');
  return isJsonObject(parsed) ? parsed : {};
}

function withToken(text: string | null | undefined, token: string): string {
  const others = Object.entries(parseHeaders(text)).filter(([name]) => name.toLowerCase() !== 'authorization');
  return JSON.stringify({ ...Object.fromEntries(others), authorization: `Bearer ${token}` }, null, 2);
}

export function Authorization() {
  const { updateActiveTabValues } = useGraphiQLActions();
  const { headerEditor, headers } = useGraphiQL(({ headerEditor, tabs, activeTabIndex }) => ({
    headerEditor,
    headers: tabs[activeTabIndex]?.headers,
  }));
  const offered = useOfferedCredential();
  const authorization = authorizationOf(parseHeaders(headers));

  if (offered) {
    const use = () => {
      const updated = withToken(headers, offered.token);
      headerEditor?.setValue(updated);
      updateActiveTabValues({ headers: updated });
      offerCredential(undefined);
    };
    return (
      <div className="authorization" role="status">
        <span>
          <strong>{offered.operationName}</strong> answered with a token.
        </span>
        <button type="button" className="authorization-use" onClick={use}>
          Use it in this tab
        </button>
        <button type="button" onClick={() => offerCredential(undefined)}>
          Dismiss
        </button>
      </div>
    );
  }
  return (
    <div className="authorization" role="status">
      {authorization === undefined ? (
        <span>This tab is anonymous: it sends no authorization header.</span>
      ) : (
        <span>
          This tab sends <code>authorization: {excerpt(authorization)}</code>
        </span>
      )}
    </div>
  );
}

const EXCERPT_LENGTH_MAX = 18;

/** Enough to tell two tokens apart, and not enough to use one that a screenshot shows. */
function excerpt(authorization: string): string {
  return authorization.length > EXCERPT_LENGTH_MAX ? `${authorization.slice(0, EXCERPT_LENGTH_MAX)}…` : authorization;
}
