// One watcher: its status, its actions, and everything known about it.

import { get, path } from "./api.js";
import { Chart } from "./chart.js";
import { Discard, Pause, Remove, Replay, Restart, Resume, Rewind } from "./dialogs.js";
import { bytes, duration, exact, html, link, number, State, Time, Trouble, useState, watched } from "./lib.js";
import { Messages } from "./messages.js";
import { Section, usePoll } from "./poll.js";
import { SnapshotPanel } from "./snapshot.js";

const MODES = {
  fast_ingest: "fast ingest: one batch stays open while there is work",
  atomic: "atomic batches",
  window: "a window of single messages",
  single: "one message at a time",
};
const READS = { shared: "shared with other watchers of its database", own: "its own" };
const FENCES = { stream: ", fenced by the stream's last sequence", subject: ", fenced by the last sequence of its subjects" };

export function WatcherView({ name, watchers, lags, tick }) {
  const [dialog, setDialog] = useState(null);
  if (watchers === null) return html`<p class="quiet">Loading the watchers…</p>`;
  const watcher = watchers.find((each) => each.name === name);
  const close = () => setDialog(null);
  if (!watcher) return html`<h1>${name}</h1><p>There is no watcher with this name. <a href=${link.list}>All watchers</a></p>`;
  const { status } = watcher;
  const lag = lags?.[name];
  const still = status.state === "PAUSED" || watcher.paused;
  const open = (what) => () => setDialog(() => what);
  return html`
    <h1>${name} <${State} state=${status.state} /></h1>
    ${status.reason && html`<p class=${status.state === "FAILED" ? "outage" : "warning"}>${status.reason}</p>`}
    ${status.as_of && html`<p class="warning">The instance ${status.instance} does not answer. This is how the watcher was at <${Time} at=${status.as_of} />.</p>`}
    ${status.notes.map((note) => html`<p class="warning" key=${note}>${note}</p>`)}
    <div class="actions">
      ${still || status.state === "FAILED"
        ? html`<button type="button" onClick=${open(Resume)}>Resume…</button>`
        : html`<button type="button" class="secondary" onClick=${open(Pause)}>Pause…</button>`}
      ${!still && html`<button type="button" class="secondary" onClick=${open(Restart)}>Restart…</button>`}
      <button type="button" class="secondary" onClick=${open(Rewind)}>Rewind…</button>
      <a role="button" class="secondary" href=${link.edit(name)}>Edit</a>
      <button type="button" class="danger" onClick=${open(Remove)}>Remove…</button>
    </div>
    ${dialog && html`<${dialog} watcher=${watcher} lag=${lag} close=${close} removed=${() => (location.hash = link.list)} />`}
    <${Facts} watcher=${watcher} lag=${lag} />
    <div class="pair">
      <div>
        <h2>Events per second</h2>
        <${Chart} name=${name} what="rate" tick=${tick} height=${140} axes label="Events per second, ${number(status.rates.last_10s)} now" />
      </div>
      <div>
        <h2>Lag in seconds</h2>
        <${Chart} name=${name} what="lag" tick=${tick} height=${140} axes label="Lag, ${duration(lag?.seconds)} now" />
      </div>
    </div>
    <${SnapshotPanel} watcher=${watcher} open=${(what) => setDialog(() => what)} />
    <${Messages} key=${name} name=${name} />
    <${History} name=${name} />
    <${Position} name=${name} />
    <${Stream} name=${name} />
    <${Letters} name=${name} />
    <${Configuration} name=${name} />
  `;
}

function Fact({ what, children }) {
  return html`<div><dt>${what}</dt><dd>${children}</dd></div>`;
}

function Facts({ watcher: { source, sink, status }, lag }) {
  const error = status.last_error;
  return html`<dl class="facts">
      <${Fact} what="From">${watched(source)}<//>
      <${Fact} what="To">${sink.stream}, ${sink.subject}<//>
      <${Fact} what="Since"><${Time} at=${status.since} /><//>
      <${Fact} what="Lag">${duration(lag?.seconds)}<//>
      <${Fact} what="Oplog headroom">${lag?.oplog_headroom_why ?? duration(lag?.oplog_headroom_seconds)}<//>
      <${Fact} what="Events per second">${number(status.rates.last_10s)}, ${number(status.rates.last_60s)} over a minute<//>
      <${Fact} what="Published">${number(status.events.published)}, skipped ${number(status.events.skipped)}<//>
      <${Fact} what="Last event"><${Time} at=${lag?.last_event_at} /><//>
      <${Fact} what="Restarts">${number(status.restarts)}<//>
      <${Fact} what="Change stream">${READS[status.reads] ?? "–"}${status.reads_why ? `: ${status.reads_why}` : ""}<//>
      ${status.instance && html`<${Fact} what="Instance">${status.instance}<//>`}
      <${Fact} what="Publish mode">${MODES[status.publish_mode] ?? "–"}${FENCES[status.fence] ?? ""}<//>
    </dl>
    ${error && html`<p class="quiet">Last error, <${Time} at=${error.time} />${error.count > 1 ? `, ${error.count} times` : ""}: ${error.type}: ${error.message}</p>`}`;
}

function History({ name }) {
  const seen = usePoll(path(name, "/history"));
  return html`<${Section} id="history" title="History" seen=${seen}>
    ${(history) => html`<table class="cards">
      <thead><tr><th scope="col">Time</th><th scope="col">State</th><th scope="col">Why</th></tr></thead>
      <tbody>
        ${history.toReversed().map(
          (each) => html`<tr key=${each.time + each.state}>
            <td data-head="Time"><${Time} at=${each.time} /></td>
            <td data-head="State"><${State} state=${each.state} /></td>
            <td data-head="Why"><span>${each.reason ?? "–"}${each.count > 1 && html` <span class="quiet">(${each.count} times, last <${Time} at=${each.last_time} />)</span>`}</span></td>
          </tr>`,
        )}
      </tbody>
    </table>`}
  <//>`;
}

function Position({ name }) {
  const seen = usePoll(path(name, "/token"));
  return html`<${Section} id="position" title="Position" seen=${seen}>
    ${(token) => html`<dl class="facts">
        <${Fact} what="Cluster time"><${Time} at=${token.cluster_time} /><//>
        <${Fact} what="Stream sequence">${number(token.stream_sequence)}<//>
        <${Fact} what="Epoch">${number(token.epoch)}<//>
        <${Fact} what="Stored"><${Time} at=${token.updated_at} /><//>
      </dl>
      <p>Token <code>${token.token ?? "none yet"}</code></p>`}
  <//>`;
}

const limit = (value, none, said) => (value === none ? "none" : said(value));

function Stream({ name }) {
  const seen = usePoll(path(name, "/stream"));
  return html`<${Section} id="stream" title="Stream" seen=${seen}>
    ${(stream) => html`<dl class="facts">
        <${Fact} what="Name">${stream.name}<//>
        <${Fact} what="Subjects">${stream.subjects.join(", ")}<//>
        <${Fact} what="Messages">${number(stream.messages)}<//>
        <${Fact} what="Size">${bytes(stream.bytes)}<//>
        <${Fact} what="Sequences">${number(stream.first_sequence)} to ${number(stream.last_sequence)}<//>
        <${Fact} what="Storage">${stream.storage}, ${stream.retention}, replicas: ${stream.replicas}<//>
        <${Fact} what="Maximum age">${limit(stream.max_age_seconds, 0, duration)}<//>
        <${Fact} what="Maximum size">${limit(stream.max_bytes, -1, bytes)}<//>
      </dl>
      <h3>Consumers</h3>
      <${Consumers} stream=${stream} />`}
  <//>`;
}

function Consumers({ stream }) {
  if (stream.consumers === null) return html`<p class="quiet">${stream.consumers_why}</p>`;
  if (stream.consumers.length === 0) return html`<p class="quiet">None.</p>`;
  return html`<table class="cards">
      <thead>
        <tr><th scope="col">Name</th><th scope="col">Reads</th><th scope="col">Pending</th><th scope="col">Not acknowledged</th><th scope="col">Redelivered</th></tr>
      </thead>
      <tbody>
        ${stream.consumers.map(
          (each) => html`<tr key=${each.name}>
            <th scope="row">${each.name}</th>
            <td data-head="Reads">${each.filter_subjects.join(", ") || "all"}</td>
            <td data-head="Pending" class="figure">${number(each.pending)}</td>
            <td data-head="Not acknowledged" class="figure">${number(each.ack_pending)}</td>
            <td data-head="Redelivered" class="figure">${number(each.redelivered)}</td>
          </tr>`,
        )}
      </tbody>
    </table>
    ${stream.consumer_count > stream.consumers.length && html`<p class="quiet">The first ${stream.consumers.length} of ${number(stream.consumer_count)}.</p>`}`;
}

function Letters({ name }) {
  const [after, setAfter] = useState(0);
  const [dialog, setDialog] = useState(null);
  const seen = usePoll(path(name, `/dead-letters?after=${after}`));
  return html`<${Section} id="letters" title="Dead letters" seen=${seen}>
    ${({ total, dead_letters, after: next }) => html`
      ${total === 0 ? html`<p class="quiet">None: every change was published.</p>` : html`<p>${number(total)} set aside, oldest first.</p>`}
      <ol class="messages">
        ${dead_letters.map((each) => html`<${Letter} key=${each.sequence} name=${name} letter=${each} open=${setDialog} />`)}
      </ol>
      <div class="actions">
        ${after > 0 && html`<button type="button" class="secondary small" onClick=${() => setAfter(0)}>From the beginning</button>`}
        ${next !== null && html`<button type="button" class="secondary small" onClick=${() => setAfter(next)}>Next</button>`}
      </div>
      ${dialog && html`<${dialog.what} name=${name} letter=${dialog.letter} close=${() => setDialog(null)} />`}
    `}
  <//>`;
}

function Letter({ name, letter, open }) {
  const [whole, setWhole] = useState(null);
  const [problem, setProblem] = useState(null);
  const toggled = async (event) => {
    if (!event.currentTarget.open || whole) return;
    try {
      setWhole(await get(path(name, `/dead-letters/${letter.sequence}`), { parse: exact }));
    } catch (error) {
      setProblem(error);
    }
  };
  return html`<li>
    <details onToggle=${toggled}>
      <summary>
        <${Time} at=${letter.time} /> <span>#${letter.sequence}</span> <code>${letter.operation}</code>
        <span>${letter.error}</span> <span class="quiet">${bytes(letter.bytes)}</span>
      </summary>
      <${Trouble} problem=${problem} />
      ${whole && html`<pre>${whole.event === null ? (whole.bson ?? "the event is too large to be shown") : JSON.stringify(whole.event, null, 2)}</pre>`}
      <div class="actions">
        <button type="button" class="small" onClick=${() => open({ what: Replay, letter })}>Publish…</button>
        <button type="button" class="small danger" onClick=${() => open({ what: Discard, letter })}>Delete…</button>
      </div>
    </details>
  </li>`;
}

function Configuration({ name }) {
  const seen = usePoll(path(name), { parse: exact });
  return html`<${Section} id="configuration" title="Configuration" seen=${seen}>
    ${({ status, ...watcher }) => html`<pre>${JSON.stringify(watcher, null, 2)}</pre>`}
  <//>`;
}
