// A watcher's messages as they arrive: the newest on top, a bounded number, and a hold for reading.

import { follow, path } from "./api.js";
import { bytes, exact, html, number, Time, useEffect, useRef, useState } from "./lib.js";

const FIRST = 20;
const KEPT = 50;
const EVERY = 250;

// The stream may be recreated; its sequences then begin at one again.
const identity = (message) => `${message.sequence} ${message.time}`;

export function Messages({ name, outage }) {
  const [shown, setShown] = useState([]);
  const [problem, setProblem] = useState("connecting to the message stream");
  const [held, setHeld] = useState(false);
  const [skipped, setSkipped] = useState(null);
  const hold = useRef(false);
  const waiting = useRef([]);

  useEffect(() => {
    const on = (event, data) => {
      if (event === "message") waiting.current.push(exact(data));
      else if (event === "skipped") setSkipped(JSON.parse(data));
      else if (event === "trouble") setProblem(JSON.parse(data).reason);
    };
    // In groups: a busy stream would redraw the page for each message.
    const draw = setInterval(() => {
      if (waiting.current.length > 2 * KEPT) waiting.current.splice(0, waiting.current.length - KEPT);
      if (hold.current || waiting.current.length === 0) return;
      const fresh = waiting.current.splice(0);
      setProblem(null);
      setShown((before) => {
        const known = new Set(before.map(identity));
        const added = fresh.filter((each) => !known.has(identity(each))).reverse();
        return [...added, ...before].slice(0, KEPT);
      });
    }, EVERY);
    let ended = null;
    const begin = (last) => {
      ended = new AbortController();
      const state = (error) => setProblem(error === null ? null : error.message);
      follow(path(name, `/messages?last=${last}`), on, state, ended.signal);
    };
    // A browser has six connections to a server, and the server allows few followers: a hidden tab takes none.
    const seen = () => {
      ended.abort();
      if (document.hidden) return;
      waiting.current = [];
      setShown([]); // there may be a gap after what was shown
      begin(KEPT);
    };
    begin(FIRST);
    document.addEventListener("visibilitychange", seen);
    return () => {
      ended.abort();
      clearInterval(draw);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [name]);

  const toggle = () => {
    hold.current = !held;
    setHeld(!held);
  };
  return html`<section class="card" aria-labelledby="messages">
    <div class="spread">
      <h2 id="messages">Messages</h2>
      <div class="actions"><button type="button" class="secondary small" aria-pressed=${held} onClick=${toggle}>${held ? "Continue" : "Hold"}</button></div>
    </div>
    ${problem && (outage ? html`<p class="quiet">Not available until the outage is over.</p>` : html`<p class="warning">${problem}</p>`)}
    ${skipped && html`<p class="quiet">Too many to show: messages between ${number(skipped.after)} and ${number(skipped.before)} are not shown.</p>`}
    ${shown.length === 0 && html`<p class="quiet">None yet.</p>`}
    <ol class="messages" aria-label="Messages, newest first">
      ${shown.map((each) => html`<${Message} key=${identity(each)} message=${each} />`)}
    </ol>
  </section>`;
}

function Message({ message }) {
  const [open, setOpen] = useState(false);
  const operation = message.body?.operationType ?? "";
  return html`<li>
    <details onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <${Time} at=${message.time} /> <span>#${message.sequence}</span> <code>${message.subject}</code>
        <code>${brief(message.body?.documentKey)}</code>
        <span class="quiet">${operation} ${bytes(Number(message.bytes))}</span>
      </summary>
      ${open &&
      html`${message.note && html`<p class="warning">${message.note}</p>`}
        <pre class="body">${typeof message.body === "string" ? message.body : JSON.stringify(message.body, null, 2)}</pre>
        <pre class="headers quiet">${Object.entries(message.headers).map(([header, value]) => `${header}: ${value}\n`)}</pre>`}
    </details>
  </li>`;
}

function brief(key) {
  const text = key === undefined || key === null ? "" : JSON.stringify(key._id ?? key);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
