// A watcher's stream and who reads from it.

import { path } from "./api.js";
import { bytes, duration, Fact, html, number } from "./lib.js";
import { Section, usePoll } from "./poll.js";

const limit = (value, none, said) => (value === none ? "none" : said(value));

export function Stream({ name, outage }) {
  const seen = usePoll(path(name, "/stream"));
  return html`<${Section} id="consumers" title="Consumers" seen=${seen} outage=${outage}>${(stream) => html`<${Consumers} stream=${stream} />`}<//>
    <${Section} id="stream" title="Stream" seen=${{ ...seen, problem: null }}>
      ${(stream) => html`<dl class="facts">
        <${Fact} what="Name">${stream.name}<//>
        <${Fact} what="Subjects">${stream.subjects.join(", ")}<//>
        <${Fact} what="Messages">${number(stream.messages)}<//>
        <${Fact} what="Size">${bytes(stream.bytes)}<//>
        <${Fact} what="Sequences">${number(stream.first_sequence)} to ${number(stream.last_sequence)}<//>
        <${Fact} what="Storage">${stream.storage}, ${stream.replicas === 1 ? "1 replica" : `${stream.replicas} replicas`}<//>
        <${Fact} what="Retention">${stream.retention}<//>
        <${Fact} what="Maximum age">${limit(stream.max_age_seconds, 0, duration)}<//>
        <${Fact} what="Maximum size">${limit(stream.max_bytes, -1, bytes)}<//>
      </dl>`}
    <//>`;
}

function Consumers({ stream }) {
  if (stream.consumers === null) return html`<p class="quiet">${stream.consumers_why}</p>`;
  if (stream.consumers.length === 0) return html`<p class="quiet">None: nobody reads from the stream by a consumer.</p>`;
  return html`<table class="cards">
      <thead>
        <tr>
          <th scope="col">Name</th><th scope="col">Reads</th><th scope="col" class="figure">Delivered up to</th><th scope="col" class="figure">Pending</th>
          <th scope="col" class="figure">Not acknowledged</th><th scope="col" class="figure">Redelivered</th>
        </tr>
      </thead>
      <tbody>
        ${stream.consumers.map(
          (each) => html`<tr key=${each.name}>
            <th scope="row">${each.name}</th>
            <td data-head="Reads">${each.filter_subjects.join(", ") || "all"}</td>
            <td data-head="Delivered up to" class="figure">${number(each.delivered_sequence)}</td>
            <td data-head="Pending" class="figure">${number(each.pending)}</td>
            <td data-head="Not acknowledged" class="figure">${number(each.ack_pending)}</td>
            <td data-head="Redelivered" class="figure">${number(each.redelivered)}</td>
          </tr>`,
        )}
      </tbody>
    </table>
    ${stream.consumer_count > stream.consumers.length && html`<p class="quiet">The first ${stream.consumers.length} of ${number(stream.consumer_count)}.</p>`}`;
}
