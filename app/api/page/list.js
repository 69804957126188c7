// All watchers at a glance.

import { Chart } from "./chart.js";
import { Instances } from "./instances.js";
import { duration, html, link, number, State, watched } from "./lib.js";
import { SnapshotBrief } from "./snapshot.js";

export function List({ watchers, lags, tick }) {
  if (watchers === null) return html`<p class="quiet">Loading the watchers…</p>`;
  const several = new Set(watchers.map((each) => each.status.instance)).size > 1;
  return html`
    <h1>Watchers</h1>
    ${watchers.length === 0
      ? html`<p>There are no watchers yet. <a href=${link.add}>Add the first one</a>: it needs a name, and a database or a collection of it.</p>`
      : html`<table class="cards">
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">State</th>
              ${several && html`<th scope="col">Instance</th>`}
              <th scope="col">Events per second</th>
              <th scope="col">Lag</th>
              <th scope="col">Oplog headroom</th>
              <th scope="col">Published</th>
            </tr>
          </thead>
          <tbody>
            ${watchers.map((each) => html`<${Row} key=${each.name} watcher=${each} lag=${lags?.[each.name]} tick=${tick} several=${several} />`)}
          </tbody>
        </table>`}
    <${Instances} />
  `;
}

function Row({ watcher, lag, tick, several }) {
  const { name, source, sink, status } = watcher;
  const rate = status.rates.last_10s;
  const why = status.reason ?? status.notes[0];
  return html`<tr>
    <th scope="row">
      <a href=${link.watcher(name)}>${name}</a>
      <div class="quiet"><small>${watched(source)} → ${sink.stream}</small></div>
    </th>
    <td data-head="State"><div><${State} state=${status.state} />${why && html`<small class="why">${why}</small>`}<${SnapshotBrief} name=${name} snapshot=${status.snapshot} /></div></td>
    ${several && html`<td data-head="Instance">${status.instance ?? "–"}</td>`}
    <td data-head="Events per second" class="figure">
      <span class="rate">${number(rate)}</span> <${Chart} name=${name} what="rate" tick=${tick} label="Events per second of ${name}, ${number(rate)} now" />
    </td>
    <td data-head="Lag" class="figure">
      ${duration(lag?.seconds)} <${Chart} name=${name} what="lag" tick=${tick} label="Lag of ${name}, ${duration(lag?.seconds)} now" />
    </td>
    <td data-head="Oplog headroom" class="figure" title=${lag?.oplog_headroom_why ?? ""}>${duration(lag?.oplog_headroom_seconds)}</td>
    <td data-head="Published" class="figure published">${number(status.events.published)}</td>
  </tr>`;
}
