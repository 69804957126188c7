// A watcher's snapshot: how far it is, and what begins and cancels it.

import { call, path, Problem } from "./api.js";
import { changed, Dialog, Entry } from "./dialogs.js";
import { duration, exact, Fact, html, number, State, Time, useState, watched } from "./lib.js";

/** Documents per second: lately where it runs, in the mean where it is over; null where that is not known. */
function rateOf(snapshot) {
  if (snapshot.state === "running") return snapshot.rows_per_second;
  const took = (Date.parse(snapshot.finished_at) - Date.parse(snapshot.started_at)) / 1000;
  return took > 0 ? snapshot.documents / took : null;
}

/** Documents of all that there are, about; null where nobody knows how many. */
function shareOf({ state, documents, estimated_total: total }) {
  if (state === "done") return 1;
  return total ? Math.min(documents / total, 0.999) : null;
}

// Seconds beyond which an estimate says only that it goes slowly now, which the rate beside it says better.
const TOO_FAR = 30 * 86400;

const percent = (share) => `${Math.floor(share * 100)}\u00a0%`;

function Bar({ name, snapshot }) {
  const share = shareOf(snapshot);
  const label = `Snapshot of ${name}`;
  // Without a value a bar is in motion: that is for one that runs, not for one that ended nobody knows how far.
  if (share === null && snapshot.state !== "running") return null;
  return html`<progress aria-label=${label} max="1" value=${share ?? undefined}></progress>`;
}

/** In the list: only while it runs, or where it failed. */
export function SnapshotBrief({ name, snapshot }) {
  if (!snapshot || !["running", "failed"].includes(snapshot.state)) return null;
  if (snapshot.state === "failed") return html`<span class="tag bad">snapshot failed</span> `;
  const share = shareOf(snapshot);
  const said = share === null ? `${number(snapshot.documents)} documents` : percent(share);
  return html`<span class="tag snapshot"><${Bar} name=${name} snapshot=${snapshot} />snapshot ${said}</span> `;
}

/** In the watcher's view: everything about the run, and the action that fits. `open` gets the dialog to show. */
export function SnapshotPanel({ watcher, open }) {
  const { name, status } = watcher;
  const { snapshot } = status;
  return html`<section class="card" aria-labelledby="snapshot">
    <h2 id="snapshot">Snapshot ${snapshot && html`<${State} state=${snapshot.state} />`}</h2>
    ${snapshot ? html`<${Run} name=${name} snapshot=${snapshot} />` : html`<p class="quiet">None was taken: only changes are published. A snapshot publishes the documents that exist already.</p>`}
    <div class="actions">
      ${snapshot?.state === "running"
        ? html`<button type="button" class="small secondary" onClick=${() => open(CancelSnapshot)}>Cancel the snapshot…</button>`
        : html`<button type="button" class="small secondary" disabled=${status.state === "FAILED"} onClick=${() => open(TakeSnapshot)}>Take a snapshot…</button>`}
      ${status.state === "FAILED" && snapshot?.state !== "running" && html`<span class="quiet">A failed watcher takes no snapshot.</span>`}
    </div>
  </section>`;
}

function Run({ name, snapshot }) {
  const { documents, estimated_total: total, collections, collection } = snapshot;
  const share = shareOf(snapshot);
  const left = snapshot.estimated_end === null ? null : Math.max(0, (Date.parse(snapshot.estimated_end) - Date.now()) / 1000);
  const soon = left !== null && left < TOO_FAR ? `, ${duration(left)} left` : "";
  return html`
    ${snapshot.reason && html`<p class=${snapshot.state === "failed" ? "outage" : "warning"}>${snapshot.reason}</p>`}
    ${snapshot.waits && html`<p class="quiet">It waits: ${snapshot.waits}.</p>`}
    <div class="snapshot">
      <${Bar} name=${name} snapshot=${snapshot} />
      <p>
        <strong class="documents">${number(documents)}</strong>${total !== null && snapshot.state !== "done" && ` of about ${number(total)}`} documents
        ${share !== null && snapshot.state === "running" && ` (${percent(share)}${soon})`}
      </p>
    </div>
    <dl class="facts">
      ${snapshot.state === "running" && html`<${Fact} what="Reading">${collection ?? "–"}<//>`}
      <${Fact} what=${collections.length === 1 ? "Collection" : "Collections"}>${collections.join(", ") || "–"}<//>
      <${Fact} what="Documents per second">${number(rateOf(snapshot))}<//>
      <${Fact} what="Requested"><${Time} at=${snapshot.requested_at} />${snapshot.kind === "initial" && ", with the watcher"}<//>
      <${Fact} what="Began"><${Time} at=${snapshot.started_at} /><//>
      ${snapshot.finished_at && html`<${Fact} what="Ended"><${Time} at=${snapshot.finished_at} /><//>`}
      <${Fact} what="Run"><code>${snapshot.run}</code><//>
      ${snapshot.filter && html`<${Fact} what="Filter"><code>${JSON.stringify(snapshot.filter)}</code><//>`}
    </dl>`;
}

export function TakeSnapshot({ watcher, close }) {
  const { name, source, status } = watcher;
  const [filter, setFilter] = useState("");
  const [collections, setCollections] = useState("");
  const wide = !source.collection;
  const run = async () => {
    const names = collections.split("\n").map((line) => line.trim()).filter((line) => line !== "");
    await call("POST", path(name, "/snapshot"), { filter: parsed(filter), collections: names });
    changed(`a snapshot of ${name} was begun`);
  };
  return html`<${Dialog} title="Take a snapshot of ${name}?" action="Begin" run=${run} close=${close} fields=${["filter", "collections"]}>
    ${(wrong) => html`
      <p>
        Each document that exists in ${wide ? "what it watches" : watched(source)} is published once, with the operation
        <code>snapshot</code>, at its exact place among the changes. A consumer that applies all messages in their order ends
        with the collection as it is. One message <code>snapshot_done</code> comes at the end.
      </p>
      <p>Changes are published meanwhile. Nothing is written to what it watches. If something crashes, it goes on where it was.</p>
      ${status.state === "PAUSED" && html`<p class="warning">The watcher is paused: the snapshot begins when you resume it.</p>`}
      ${wide &&
      html`<${Entry} id="snapshot-collections" label="Collections" wrong=${wrong.collections} rows="3" placeholder=${`${source.database ?? "shop"}.orders`}
        help="One on each line, with the database. Empty: all that the watcher reads." value=${collections} change=${setCollections} />`}
      <${Entry} id="snapshot-filter" label="Filter, as JSON" wrong=${wrong.filter} rows="4" placeholder='{"status": "open"}'
        help="A query as MongoDB's find takes it, in Extended JSON. Empty: every document." value=${filter} change=${setFilter} />
    `}
  <//>`;
}

function parsed(text) {
  if (text.trim() === "") return null;
  try {
    return exact(text);
  } catch (error) {
    throw new Problem(0, { detail: "the filter is not JSON", errors: [{ field: "filter", detail: `is not JSON: ${error.message}` }] });
  }
}

export function CancelSnapshot({ watcher: { name, status }, close }) {
  const run = async () => {
    await call("DELETE", path(name, "/snapshot"));
    changed(`the snapshot of ${name} is cancelled`);
  };
  return html`<${Dialog} title="Cancel the snapshot of ${name}?" action="Cancel the snapshot" back="Let it go on" danger run=${run} close=${close}>
    <p>The ${number(status.snapshot?.documents)} documents that are published stay on the stream. The others are not published, and a new snapshot begins from the beginning. Changes are published as before.</p>
  <//>`;
}
