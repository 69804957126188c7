// What can be done with a watcher or a dead letter: each dialog says what will happen before it happens.

import { call, path } from "./api.js";
import { changed, Dialog } from "./dialogs.js";
import { duration, html, useState } from "./lib.js";

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
  const { name, status } = watcher;
  const run = async () => {
    await call("PUT", path(name, "/resume"));
    changed(`${name} is resumed`);
  };
  return html`<${Dialog} title="Resume ${name}?" action="Resume" run=${run} close=${close}>
    <p>${status.state === "FAILED" ? "It tries again to continue" : "It continues"} from its position and publishes what has happened since.</p>
    ${status.state === "FAILED" && html`<p>If the reason is still there, it fails again${status.reason ? html`: <em>${status.reason}</em>` : ""}.</p>`}
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
