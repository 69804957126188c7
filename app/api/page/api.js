// The HTTP interface as the page calls it: problems as errors, the API token where the server asks for it, event streams.

const KEY = "changewire-token";
const PATIENCE = 20000;

/** What the server says is wrong; `fields` has the words for each field that is. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the server answered ${status}`);
    this.status = status;
    this.fields = {};
    for (const { field, detail } of body.errors ?? []) this.fields[field] = field in this.fields ? `${this.fields[field]}; ${detail}` : detail;
  }
}

let ask = async () => null;

/** Set who asks a person for the token: an async function of the reason, which answers a token or null. */
export function askWith(asker) {
  ask = asker;
}

// For this tab alone: another tab asks again, and closing this one forgets it.
const token = () => sessionStorage.getItem(KEY);
export const forgetToken = () => sessionStorage.removeItem(KEY);
export const hasToken = () => token() !== null;

function headers(more) {
  const known = token();
  return known === null ? more : { ...more, Authorization: `Bearer ${known}` };
}

export const path = (name, rest = "") => `watchers/${encodeURIComponent(name)}${rest}`;

/**
 * Make a call and return its answer, as `parse` makes it of the text. Raises Problem, and TypeError without a server.
 * With `quiet` nobody is asked for a token.
 */
export async function call(method, where, body, { parse = JSON.parse, fine = [], quiet = false } = {}) {
  for (;;) {
    const sent = token();
    const answer = await fetch(where, {
      method,
      headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }),
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE),
      redirect: "error",
    });
    if (answer.status === 401) {
      const problem = await problemOf(answer);
      if (token() !== sent && token() !== null) continue; // another call has asked meanwhile
      const given = quiet ? null : await ask(problem.message);
      if (given === null) throw problem;
      sessionStorage.setItem(KEY, given);
      continue;
    }
    if (!answer.ok && !fine.includes(answer.status)) throw await problemOf(answer);
    const text = await answer.text();
    return text ? parse(text) : null;
  }
}

export const get = (where, options) => call("GET", where, undefined, options);

async function problemOf(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch {
    // Not a problem of Changewire's, perhaps a proxy's page: only its status is known.
  }
  return new Problem(answer.status, body && typeof body === "object" ? body : {});
}

/**
 * Read an event stream until `signal` ends it, and open it again where it breaks.
 *
 * With fetch and not EventSource: that one cannot send a token. `on(event, data)` gets each event, `state(problem)`
 * null when the stream is open and why it is not.
 */
export async function follow(where, on, state, signal) {
  while (!signal.aborted) {
    try {
      const answer = await fetch(where, { headers: headers({ Accept: "text/event-stream" }), signal });
      if (!answer.ok) throw await problemOf(answer);
      state(null);
      await events(answer.body, on);
      throw new Error("the server has ended the stream; opening it again");
    } catch (error) {
      if (signal.aborted) return;
      state(error);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

async function events(body, on) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = block.split("\n").map((line) => line.split(/:(.*)/s));
      const data = fields.filter(([name]) => name === "data").map(([, text]) => text.replace(/^ /, ""));
      const event = fields.find(([name]) => name === "event")?.[1].trim() ?? "message";
      if (data.length) on(event, data.join("\n"));
    }
  }
}
