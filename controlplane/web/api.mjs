/**
 * Api: asks the router. The token comes from the login, or from the fragment of the address (`#token=…`), which no server
 * ever sees; it stays in this tab's session storage.
 */
const KEY = 'sluice-token';

/** A summary comes each second: after so long a silence the router hangs, or the way to it is cut. */
const SILENCE_MS = 10_000;

/** What the router answered instead; `status` is HTTP's, 0 when it did not answer. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

/** The text behind percent signs; a token may have a `%` that is one. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Takes a token out of the address, so that it does not stay in the history. */
export function tokenFromAddress() {
  const match = /^#token=([\x21-\x7e]+)$/.exec(location.hash);
  if (match === null) return;
  setToken(decoded(match[1]));
  history.replaceState(null, '', location.pathname);
}

async function request(path, options = {}) {
  const headers = { ...options.headers, authorization: `Bearer ${sessionStorage.getItem(KEY) ?? ''}` };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: 'no-store', credentials: 'omit' });
  } catch {
    throw new ApiError('The router does not answer.', 0);
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new ApiError(answer.error ?? `The router answered with status ${response.status}.`, response.status);
}

export async function get(path) {
  return (await request(path)).json();
}

export async function post(path, body, type = 'application/json') {
  const options = { method: 'POST', headers: { 'content-type': type }, body };
  return (await request(path, options)).json();
}

/**
 * Listens to server-sent events until the stream ends. EventSource cannot send the token, so the lines are read here.
 * Throws ApiError when the router refuses, goes away or falls silent.
 */
export async function listen(kinds, use) {
  const response = await request(`/v1/events?kinds=${kinds.join(',')}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const silence = setTimeout(() => reader.cancel().catch(() => {}), SILENCE_MS);
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    clearTimeout(silence);
    if (done) throw new ApiError('The router does not answer.', 0);
    rest += value;
    for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
      const found = /^event: (\w+)\ndata: (.*)$/.exec(rest.slice(0, end));
      rest = rest.slice(end + 2);
      if (found !== null) use(found[1], JSON.parse(found[2]));
    }
  }
}
