// The instances that share the watchers: what each does, and that it can be told to give its watchers up.

import { call } from "./api.js";
import { changed, Dialog } from "./dialogs.js";
import { html, number, State, Time, useState } from "./lib.js";
import { Section, usePoll } from "./poll.js";

const path = (name, rest = "") => `instances/${encodeURIComponent(name)}/drain${rest}`;

export const useInstances = () => usePoll("instances");

export function Instances({ seen }) {
  const [dialog, setDialog] = useState(null);
  return html`<h1 class="lead">Instances</h1>
    <p class="quiet">They share the watchers: each watcher is run by one of them. Each of them answers for all.</p>
    <${Section} id="instances" title="Instances" seen=${seen} alone>
      ${(found) => html`<table class="cards">
          <thead>
            <tr>
              <th scope="col">Name</th><th scope="col">State</th><th scope="col" class="figure">Watchers</th><th scope="col" class="figure">Events per second</th>
              <th scope="col">Version</th><th scope="col">Running since</th><th scope="col">Seen</th><td></td>
            </tr>
          </thead>
          <tbody>
            ${found.map((each) => html`<${Row} key=${each.name} instance=${each} open=${(what) => setDialog({ what, instance: each })} />`)}
          </tbody>
        </table>
        ${dialog && html`<${dialog.what} instance=${dialog.instance} alone=${found.filter(({ state }) => state === "active").length < 2} close=${() => setDialog(null)} />`}`}
    <//>`;
}

function Row({ instance, open }) {
  const { name, state, reason, self } = instance;
  return html`<tr>
    <th scope="row"><a href=${`#/?instance=${encodeURIComponent(name)}`}>${name}</a>${self && html` <small class="quiet">(this one)</small>`}</th>
    <td data-head="State"><div><${State} state=${state} />${reason && html`<small class="why">${reason}</small>`}</div></td>
    <td data-head="Watchers" class="figure">${number(instance.watchers)}</td>
    <td data-head="Events per second" class="figure">${number(instance.events_per_second)}</td>
    <td data-head="Version">${instance.version}</td>
    <td data-head="Running since"><${Time} at=${instance.since} /></td>
    <td data-head="Seen"><${Time} at=${instance.seen} /></td>
    <td class="figure">
      ${state === "draining" && html`<button type="button" class="small secondary" onClick=${() => open(Undrain)}>Stop draining…</button>`}
      ${["active", "unfit"].includes(state) && html`<button type="button" class="small secondary" onClick=${() => open(Drain)}>Drain…</button>`}
    </td>
  </tr>`;
}

function Drain({ instance: { name, watchers, state }, alone, close }) {
  const force = alone && state === "active";
  const run = async () => {
    await call("PUT", path(name, force ? "?force=true" : ""));
    changed(`${name} hands its watchers over`);
  };
  return html`<${Dialog} title="Drain ${name}?" action="Drain" run=${run} close=${close}>
    <p>It hands its ${number(watchers)} watchers over to the other instances, one after another, and takes no new ones. Nothing is lost or published twice. It goes on answering requests.</p>
    ${force && html`<p class="warning">No other instance can take them now: it goes on running them until there is one.</p>`}
  <//>`;
}

function Undrain({ instance: { name }, close }) {
  const run = async () => {
    await call("DELETE", path(name));
    changed(`${name} takes watchers again`);
  };
  return html`<${Dialog} title="Stop draining ${name}?" action="Stop draining" run=${run} close=${close}>
    <p>It takes its share of the watchers again.</p>
  <//>`;
}
