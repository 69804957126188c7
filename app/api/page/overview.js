// The first tab of a watcher: its figures, what goes where, its charts, its snapshot and its position.

import { path } from "./api.js";
import { Chart } from "./chart.js";
import { duration, Fact, html, link, number, Time, watched } from "./lib.js";
import { Section, usePoll } from "./poll.js";
import { SnapshotPanel } from "./snapshot.js";
import { subjects } from "./subjects.js";

const MODES = {
  fast_ingest: "fast ingest: one batch stays open while there is work",
  atomic: "atomic batches",
  window: "a window of single messages",
  single: "one message at a time",
};
const HEADROOM = "How far the oplog reaches back before the watcher's position";
const READS = { shared: "shared with other watchers of its database", own: "its own" };
const FENCES = { stream: ", fenced by the stream's last sequence", subject: ", fenced by the last sequence of its subjects" };

export function Overview({ watcher, lag, tick, open, outage }) {
  const { name, status } = watcher;
  return html`
    <dl class="tiles">
      <div><dt>Events/s</dt><dd>${number(status.rates.last_10s)} <small title="The mean of the last minute">1 min: ${number(status.rates.last_60s)}</small></dd></div>
      <div><dt>Lag</dt><dd>${duration(lag?.seconds)}</dd></div>
      <div title=${lag?.oplog_headroom_why ?? HEADROOM}><dt>Headroom</dt><dd>${duration(lag?.oplog_headroom_seconds)}</dd></div>
      <div><dt>Published</dt><dd class="published">${number(status.events.published)} <small>${number(status.events.skipped)} skipped</small></dd></div>
      ${status.dead_letters > 0 && html`<div class="bad"><dt>Dead letters</dt><dd><a href=${link.tab(name, "dead-letters")}>${number(status.dead_letters)}</a></dd></div>`}
      <div><dt>Last event</dt><dd><${Time} at=${lag?.last_event_at} /></dd></div>
    </dl>
    <${Flow} watcher=${watcher} />
    <div class="two">
      <div class="card">
        <h2>Events per second</h2>
        <${Chart} name=${name} what="rate" tick=${tick} label="Events per second, ${number(status.rates.last_10s)} now" />
      </div>
      <div class="card">
        <h2>Lag in seconds</h2>
        <${Chart} name=${name} what="lag" tick=${tick} label="Lag, ${duration(lag?.seconds)} now" />
      </div>
    </div>
    <${SnapshotPanel} watcher=${watcher} open=${open} />
    <div class="two">
      <${Work} watcher=${watcher} lag=${lag} />
      <${Position} name=${name} outage=${outage} />
    </div>
  `;
}

/** From where to where, with the subjects as they are on the stream. */
function Flow({ watcher }) {
  const { source, sink } = watcher;
  const patterns = [...source.include.map((each) => `only ${each}`), ...source.exclude.map((each) => `not ${each}`)];
  return html`<section class="card flow-of" aria-label="From and to">
    <div>
      <span class="quiet">MongoDB</span> <strong>${watched(source)}</strong>
      ${patterns.length > 0 && html`<small class="quiet">${patterns.join(", ")}</small>`}
      ${source.pipeline.length > 0 && html`<small class="quiet">through a pipeline of ${source.pipeline.length} stage${source.pipeline.length > 1 ? "s" : ""}</small>`}
    </div>
    <svg viewBox="0 0 24 12" aria-hidden="true"><path d="M1 6h20M16 1l6 5-6 5" /></svg>
    <div>
      <span class="quiet">Stream</span> <strong>${sink.stream}</strong>
      <span class="subjects">${sink.operations.map((each) => html`<code key=${each}>${subjects(watcher, each)}</code> `)}</span>
    </div>
  </section>`;
}

function Work({ watcher: { status }, lag }) {
  const error = status.last_error;
  return html`<section class="card" aria-labelledby="work">
    <h2 id="work">How it works</h2>
    <dl class="facts">
      <${Fact} what="In this state since"><${Time} at=${status.since} /><//>
      <${Fact} what="Restarts">${number(status.restarts)}<//>
      ${status.instance && html`<${Fact} what="Instance">${status.instance}<//>`}
      <${Fact} what="Change stream" wide>${READS[status.reads] ?? "–"}${status.reads_why ? `: ${status.reads_why}` : ""}<//>
      <${Fact} what="Publish mode" wide>${MODES[status.publish_mode] ?? "–"}${FENCES[status.fence] ?? ""}<//>
      ${lag?.oplog_headroom_why && html`<${Fact} what="Oplog headroom" wide>${lag.oplog_headroom_why}<//>`}
      ${error && html`<${Fact} what="Last error" wide><${Time} at=${error.time} />${error.count > 1 ? `, ${error.count} times` : ""}: ${error.type}: ${error.message}<//>`}
    </dl>
  </section>`;
}

function Position({ name, outage }) {
  const seen = usePoll(path(name, "/token"));
  return html`<${Section} id="position" title="Position" seen=${seen} outage=${outage}>
    ${(token) => html`<dl class="facts">
      <${Fact} what="Cluster time"><${Time} at=${token.cluster_time} /><//>
      <${Fact} what="Stream sequence">${number(token.stream_sequence)}<//>
      <${Fact} what="Epoch">${number(token.epoch)}<//>
      <${Fact} what="Stored"><${Time} at=${token.updated_at} /><//>
      <${Fact} what="Resume token" wide><code class="long">${token.token ?? "none yet"}</code><//>
    </dl>`}
  <//>`;
}
