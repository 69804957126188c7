// Dialogs: each says what will happen before it happens, and shows the server's message where it fails.

import { askWith, call, path } from "./api.js";
import { duration, html, Trouble, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";

/** Announce a change: the page asks the service again and shows `text`. */
export function changed(text) {
  dispatchEvent(new CustomEvent("changewire:notice", { detail: text }));
  dispatchEvent(new Event("changewire:changed"));
}

/**
 * A modal dialog. `run` does the action; the dialog closes unless that throws.
 *
 * `children` may be a function of what is wrong, by field: of those in `fields`, which show it themselves.
 */
export function Dialog({ title, action, back = "Cancel", danger, run, close, fields = [], children }) {
  const dialog = useRef(null);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  useLayoutEffect(() => {
    const shown = dialog.current;
    shown.showModal();
    return () => shown.close(); // gives the focus back to where it was
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await run();
      close();
    } catch (error) {
      setProblem(error);
      setBusy(false);
    }
  };
  const cancel = (event) => {
    event.preventDefault();
    close();
  };
  useEffect(() => dialog.current.querySelector("[aria-invalid=true]")?.focus(), [problem]);
  const { wrong, others } = placed(problem, fields);
  return html`<dialog ref=${dialog} onCancel=${cancel} aria-labelledby="dialog-title">
    <article>
      <form onSubmit=${submit} novalidate>
        <h2 id="dialog-title">${title}</h2>
        ${typeof children === "function" ? children(wrong) : children}
        <${Trouble} problem=${others} />
        <footer>
          <button type="button" class="secondary" onClick=${cancel}>${back}</button>
          <button type="submit" class=${danger ? "danger" : ""} aria-busy=${busy} disabled=${busy}>${action}</button>
        </footer>
      </form>
    </article>
  </dialog>`;
}

/** What is wrong, by field; and what is to be said elsewhere, because no field is there for it. */
function placed(problem, fields) {
  const given = Object.entries(problem?.fields ?? {});
  const of = (field) => given.filter(([each]) => each === field || each.startsWith(`${field}.`)).map(([, words]) => words);
  const wrong = Object.fromEntries(fields.map((field) => [field, of(field).join("; ")]));
  const said = Object.values(wrong).filter((words) => words !== "").length > 0 && given.every(([each]) => fields.some((field) => each === field || each.startsWith(`${field}.`)));
  return { wrong, others: said ? null : problem };
}

/** A text of several lines with its label, what is wrong with it, and what it is for. */
export function Entry({ id, label, help, wrong, value, change, ...rest }) {
  return html`<div class="field">
    <label for=${id}>${label}</label>
    <textarea id=${id} spellcheck=${false} aria-describedby=${wrong ? `${id}-wrong ${id}-help` : `${id}-help`} aria-invalid=${wrong ? "true" : undefined}
      value=${value} onInput=${(event) => change(event.currentTarget.value)} ...${rest}></textarea>
    ${wrong && html`<small class="wrong" id=${`${id}-wrong`}>${wrong}</small>`}
    <small id=${`${id}-help`}>${help}</small>
  </div>`;
}

export function Pause({ watcher, lag, close }) {
  const { name } = watcher;
  const headroom = lag?.oplog_headroom_seconds;
  const run = async () => {
    await call("PUT", path(name, "/pause"));
    changed(`${name} is paused`);
  };
  return html`<${Dialog} title="Pause ${name}?" action="Pause" run=${run} close=${close}>
    <p>It finishes what is in flight, keeps its position, and is paused until you resume it.</p>
    <p>Changes made meanwhile wait in MongoDB's oplog${headroom ? `, which now reaches back ${duration(headroom)} before its position` : ""}. If the oplog overtakes that position, they are lost.</p>
  <//>`;
}

export function Resume({ watcher, close }) {
  const { name } = watcher;
  const run = async () => {
    await call("PUT", path(name, "/resume"));
    changed(`${name} is resumed`);
  };
  return html`<${Dialog} title="Resume ${name}?" action="Resume" run=${run} close=${close}>
    <p>It continues from its position and publishes what has happened since.</p>
  <//>`;
}

export function Restart({ watcher, close }) {
  const { name } = watcher;
  const run = async () => {
    await call("POST", path(name, "/restart"));
    changed(`${name} is restarted`);
  };
  return html`<${Dialog} title="Restart ${name}?" action="Restart" run=${run} close=${close}>
    <p>Its task is stopped and started again. It continues from its position; nothing is lost or published twice.</p>
  <//>`;
}

export function Rewind({ watcher, close }) {
  const { name, start, status } = watcher;
  const [to, setTo] = useState("timestamp");
  const [text, setText] = useState("");
  const [resume, setResume] = useState(true);
  const still = ["PAUSED", "FAILED"].includes(status.state);
  const choose = (event) => {
    setTo(event.currentTarget.value);
    setText("");
  };
  const move = () => {
    if (to === "start") return call("DELETE", path(name, "/token"));
    return call("PUT", path(name, "/token"), ["latest", "earliest"].includes(to) ? { at: to } : { [to]: text });
  };
  const run = async () => {
    // Sent to a running watcher too: an invalid position is refused before anything is paused for it.
    const before = still ? null : await move().then(() => null, (problem) => problem);
    if (before !== null && before.status !== 409) throw before;
    if (!still) await call("PUT", path(name, "/pause"));
    try {
      if (still || before !== null) await move();
    } catch (problem) {
      if (!still) await call("PUT", path(name, "/resume")); // as it was
      throw problem;
    }
    if (resume) await call("PUT", path(name, "/resume"));
    changed(`${name} is rewound${resume ? " and resumed" : ""}`);
  };
  const own = typeof start.at === "string" ? start.at : Object.values(start.at)[0];
  return html`<${Dialog} title="Rewind ${name}?" action="Rewind" danger run=${run} close=${close}>
    <p>
      ${still ? "" : "It is paused first, since only a paused watcher can be moved. "}It then continues from another
      position, in a new epoch. If you move it back, it publishes the changes in between again, under new message ids. If
      you move it forward, it never publishes the changes in between.
    </p>
    <label for="move-to">Where to</label>
    <select id="move-to" value=${to} onChange=${choose}>
      <option value="timestamp">a time</option>
      <option value="token">after a resume token</option>
      <option value="earliest">the oplog's beginning (earliest)</option>
      <option value="latest">now (latest)</option>
      <option value="start">its own start (${own})</option>
    </select>
    ${to === "timestamp" &&
    html`<label for="move-value">Time, ISO 8601 with an offset, such as ${new Date(Date.now() - 3600e3).toISOString()}</label>`}
    ${to === "token" && html`<label for="move-value">Resume token, the hexadecimal string that starts with 82</label>`}
    ${["timestamp", "token"].includes(to) &&
    html`<input id="move-value" value=${text} onInput=${(event) => setText(event.currentTarget.value.trim())} />`}
    <label><input type="checkbox" checked=${resume} onChange=${() => setResume(!resume)} /> Resume it afterwards</label>
  <//>`;
}

export function Remove({ watcher, close, removed }) {
  const { name, sink, checkpoint } = watcher;
  const [keep, setKeep] = useState("keep");
  const run = async () => {
    await call("DELETE", path(name, `?checkpoint=${keep}`));
    removed();
    changed(`${name} is removed`);
  };
  const choice = (value, words) => html`<label>
    <input type="radio" name="checkpoint" value=${value} checked=${keep === value} onChange=${() => setKeep(value)} /> ${words}
  </label>`;
  return html`<${Dialog} title="Remove ${name}?" action="Remove" danger run=${run} close=${close}>
    <p>It stops and its definition is deleted. The stream ${sink.stream} and its messages stay.</p>
    <fieldset>
      <legend>Its position${checkpoint && `, in ${checkpoint.database}.${checkpoint.collection}`}</legend>
      ${choice("keep", "keep it: a watcher added under this name continues from there")}
      ${choice("delete", "delete it: a watcher added again begins at its start")}
    </fieldset>
  <//>`;
}

export function Replay({ name, letter, close }) {
  const run = async () => {
    await call("POST", path(name, `/dead-letters/${letter.sequence}/replay`));
    changed(`dead letter ${letter.sequence} was published`);
  };
  return html`<${Dialog} title="Publish dead letter ${letter.sequence}?" action="Publish" run=${run} close=${close}>
    <p>Its change is published now, after everything that is already published, and the dead letter is removed.</p>
  <//>`;
}

export function Discard({ name, letter, close }) {
  const run = async () => {
    await call("DELETE", path(name, `/dead-letters/${letter.sequence}`));
    changed(`dead letter ${letter.sequence} was deleted`);
  };
  return html`<${Dialog} title="Delete dead letter ${letter.sequence}?" action="Delete" danger run=${run} close=${close}>
    <p>Its change (${letter.operation}) will never be on the stream. You cannot undo this.</p>
  <//>`;
}

/** Asks for the API token whenever the server requires one. Calls that ask at the same time share one dialog. */
export function TokenDialog() {
  const [asked, setAsked] = useState(null);
  const text = useRef("");
  useEffect(() => {
    let open = null;
    askWith((reason) => {
      open ??= new Promise((resolve) => {
        text.current = "";
        setAsked({
          reason,
          resolve: (given) => {
            open = null;
            setAsked(null);
            resolve(given);
          },
        });
      });
      return open;
    });
  }, []);
  if (asked === null) return null;
  const run = async () => {
    if (!text.current) throw new Error("no token was entered");
    asked.resolve(text.current);
  };
  return html`<${Dialog} title="API token" action="Use it" run=${run} close=${() => asked.resolve(null)}>
    <p>The server says: ${asked.reason}.</p>
    <label for="api-token">Token (CHANGEWIRE_API_TOKEN)</label>
    <input id="api-token" type="password" autocomplete="off" onInput=${(event) => (text.current = event.currentTarget.value.trim())} />
    <small>Kept in this tab only, until you close it.</small>
  <//>`;
}
