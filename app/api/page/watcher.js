// One watcher: how it is, what can be done with it, and a tab for each thing that is known about it.

import { Pause, Remove, Restart, Resume } from "./actions.js";
import { WatcherForm } from "./form.js";
import { Letters } from "./letters.js";
import { exact, html, link, number, shortened, State, Time, useState, watched } from "./lib.js";
import { Menu } from "./menu.js";
import { Messages } from "./messages.js";
import { Overview } from "./overview.js";
import { path } from "./api.js";
import { Section, usePoll } from "./poll.js";
import { Rewind } from "./rewind.js";
import { CancelSnapshot, TakeSnapshot } from "./snapshot.js";
import { Stream } from "./stream.js";

const TABS = [["", "Overview"], ["messages", "Messages"], ["consumers", "Consumers"], ["dead-letters", "Dead letters"], ["history", "History"], ["settings", "Settings"]];

export function WatcherView({ name, tab = "", seen, outage }) {
  const [dialog, setDialog] = useState(null);
  if (tab === "edit") tab = "settings";
  const listed = seen.watchers?.find((each) => each.name === name);
  const watcher = seen.one?.name === name ? seen.one : listed;
  if (seen.missing === name) return html`<h1>${name}</h1><p>There is no watcher with this name. <a href=${link.list}>All watchers</a></p>`;
  if (!watcher) return html`<h1>${name}</h1><p class="quiet">Loading the watcher…</p>`;
  const lag = seen.lag?.name === name ? seen.lag : seen.lags?.[name];
  const { status } = watcher;
  const open = (what) => setDialog(() => what);
  return html`
    <p class="crumbs"><a href=${link.list}>Watchers</a> / ${watched(watcher.source)} → ${watcher.sink.stream}</p>
    <div class="spread">
      <h1>${name} <${State} state=${status.state} /></h1>
      <${Actions} watcher=${watcher} open=${open} />
    </div>
    <${Tabs} name=${name} tab=${tab} letters=${status.dead_letters} />
    <${Said} status=${status} outage=${outage} />
    ${dialog && html`<${dialog} watcher=${watcher} lag=${lag} close=${() => setDialog(null)} removed=${() => (location.hash = link.list)} />`}
    ${tab === "messages" && html`<${Messages} key=${name} name=${name} outage=${outage} />`}
    ${tab === "consumers" && html`<${Stream} name=${name} outage=${outage} />`}
    ${tab === "dead-letters" && html`<${Letters} name=${name} outage=${outage} />`}
    ${tab === "history" && html`<${History} name=${name} />`}
    ${tab === "settings" && html`<${Settings} name=${name} known=${seen.watchers} />`}
    ${!TABS.slice(1).some(([each]) => each === tab) && html`<${Overview} watcher=${watcher} lag=${lag} tick=${seen.tick} open=${open} outage=${outage} />`}
  `;
}

/** Errors after which a watcher continues only from a position that somebody gives it. */
const LOST = ["HistoryLost", "PositionUndecidable", "ScopeMismatch"];

function Actions({ watcher: { name, paused, status }, open }) {
  const lost = status.state === "FAILED" && LOST.includes(status.last_error?.type);
  const still = status.state === "PAUSED" || paused;
  const snapshot = status.snapshot?.state === "running";
  return html`<div class="actions">
    ${still || status.state === "FAILED"
      ? html`<button type="button" class=${lost ? "secondary" : undefined} onClick=${() => open(Resume)}>Resume…</button>`
      : html`<button type="button" class="secondary" onClick=${() => open(Pause)}>Pause…</button>`}
    <button type="button" class=${lost ? undefined : "secondary"} onClick=${() => open(Rewind)}>Rewind…</button>
    ${!still && html`<button type="button" class="secondary" onClick=${() => open(Restart)}>Restart…</button>`}
    <${Menu} label=${`More for ${name}`} items=${[
      snapshot ? { words: "Cancel the snapshot…", run: () => open(CancelSnapshot) } : status.state !== "FAILED" && { words: "Take a snapshot…", run: () => open(TakeSnapshot) },
      { words: "Edit", href: link.tab(name, "settings") },
      { words: "Remove…", run: () => open(Remove), danger: true },
    ]} />
  </div>`;
}

function Tabs({ name, tab, letters }) {
  const at = TABS.some(([each]) => each === tab) ? tab : "";
  return html`<nav class="tabs" aria-label=${name}>
    ${TABS.map(([each, words]) => html`<a key=${each} href=${each ? link.tab(name, each) : link.watcher(name)} aria-current=${each === at ? "page" : undefined}>
      ${words}${each === "dead-letters" && letters > 0 && html` <span class="tag bad">${number(letters)}</span>`}
    </a>`)}
  </nav>`;
}

/** Why it is as it is, once: an outage of a server is said above, for all. */
function Said({ status, outage }) {
  return html`
    ${status.reason && !(outage && status.state !== "FAILED") && html`<p class=${status.state === "FAILED" ? "outage" : "warning"} title=${status.reason}>${shortened(status.reason)}</p>`}
    ${status.as_of && html`<p class="warning">The instance ${status.instance} does not answer. This is how the watcher was at <${Time} at=${status.as_of} />.</p>`}
    ${status.notes.map((note) => html`<p class="warning" key=${note}>${note}</p>`)}
  `;
}

function History({ name }) {
  const seen = usePoll(path(name, "/history"));
  return html`<${Section} id="history" title="History" seen=${seen}>
    ${(history) => html`<table class="cards happened">
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

/** What it is told to do: a form to change it, and the whole of it as JSON. */
function Settings({ name, known }) {
  const seen = usePoll(path(name), { parse: exact });
  return html`<${WatcherForm} key=${name} name=${name} known=${known} />
    <${Section} id="configuration" title="Configuration as JSON" seen=${seen}>
      ${({ status, ...watcher }) => html`<pre>${JSON.stringify(watcher, null, 2)}</pre>`}
    <//>`;
}
