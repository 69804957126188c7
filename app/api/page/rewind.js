// Moving a watcher: to a time that is picked, or to one of the other places where it can go on.

import { call, path } from "./api.js";
import { changed, Dialog, Wrong } from "./dialogs.js";
import { duration, html, useState } from "./lib.js";

const AGO = [[900, "15 min ago"], [3600, "1 h ago"], [6 * 3600, "6 h ago"], [24 * 3600, "24 h ago"]];

const two = (value) => String(value).padStart(2, "0");

/** A moment as a picker has it, in the reader's own time zone. */
function local(moment) {
  return `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}T${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
}

/** Seconds that MongoDB's history reaches back from now, about; null where that is not known. */
function reach(lag) {
  return lag?.oplog_headroom_seconds === null || lag?.oplog_headroom_seconds === undefined ? null : lag.oplog_headroom_seconds + (lag.seconds ?? 0);
}

export function Rewind({ watcher, lag, close }) {
  const { name, start, status } = watcher;
  const back = reach(lag);
  const [to, setTo] = useState(back !== null && back < AGO[0][0] ? "earliest" : "timestamp");
  const [picked, setPicked] = useState(() => local(new Date(Date.now() - 900e3)));
  const [token, setToken] = useState("");
  const [resume, setResume] = useState(true);
  const still = ["PAUSED", "FAILED"].includes(status.state);
  const own = typeof start.at === "string" ? start.at : Object.values(start.at)[0];

  const move = () => {
    if (to === "start") return call("DELETE", path(name, "/token"));
    if (to === "token") return call("PUT", path(name, "/token"), { token });
    if (to !== "timestamp") return call("PUT", path(name, "/token"), { at: to });
    const moment = new Date(picked);
    return call("PUT", path(name, "/token"), { timestamp: Number.isNaN(moment.getTime()) ? picked : moment.toISOString() });
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
  const choice = (value, words) => html`<label>
    <input type="radio" name="move-to" value=${value} checked=${to === value} onChange=${() => setTo(value)} /> ${words}
  </label>`;
  return html`<${Dialog} title="Rewind ${name}?" action="Rewind" danger run=${run} close=${close} fields=${["timestamp", "token"]}>
    ${(wrong) => html`
      <p>
        ${still ? "" : "It is paused first, since only a paused watcher can be moved. "}It then continues from another
        position, in a new epoch. If you move it back, it publishes the changes in between again, under new message ids. If
        you move it forward, it never publishes the changes in between.
      </p>
      <fieldset class="choices">
        <legend>Where to</legend>
        ${choice("timestamp", "a moment")}
        ${to === "timestamp" &&
        html`<div class="under">
          <div class="chips" role="toolbar" aria-label="How long ago">
            ${AGO.map(([seconds, words]) => html`<button key=${seconds} type="button" disabled=${back !== null && seconds > back} onClick=${() => setPicked(local(new Date(Date.now() - seconds * 1000)))}>${words}</button>`)}
          </div>
          <div class="field">
            <input id="move-time" type="datetime-local" step="1" aria-label="Moment" aria-describedby="move-reach move-time-wrong" aria-invalid=${wrong.timestamp ? "true" : undefined} value=${picked} onInput=${(event) => setPicked(event.currentTarget.value)} />
            <${Wrong} id="move-time" words=${wrong.timestamp} />
            <small id="move-reach">In your time zone.${back === null ? "" : ` MongoDB's history reaches back about ${duration(back)}.`}</small>
          </div>
        </div>`}
        ${choice("token", "after a change, by its resume token")}
        ${to === "token" &&
        html`<div class="under field">
          <input id="move-token" class="code" aria-label="Resume token" aria-describedby="move-token-help move-token-wrong" aria-invalid=${wrong.token ? "true" : undefined} spellcheck=${false} autocomplete="off" value=${token} onInput=${(event) => setToken(event.currentTarget.value.trim())} />
          <${Wrong} id="move-token" words=${wrong.token} />
          <small id="move-token-help">The hexadecimal string that starts with 82: a message's <code>Nats-Msg-Id</code> up to the colon.</small>
        </div>`}
        ${choice("earliest", "the beginning of MongoDB's history (earliest)")}
        ${choice("latest", "now (latest)")}
        ${choice("start", `its own start (${own})`)}
      </fieldset>
      <label><input type="checkbox" checked=${resume} onChange=${() => setResume(!resume)} /> Resume it afterwards</label>
    `}
  <//>`;
}
