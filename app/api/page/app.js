// The page: the bar on top, what is told once for all views, and which view is shown.

import { forgetToken, hasToken } from "./api.js";
import { TokenDialog } from "./dialogs.js";
import { WatcherForm } from "./form.js";
import { Instances, useInstances } from "./instances.js";
import { decode, html, link, render, State, useEffect, useMemo, useState } from "./lib.js";
import { List } from "./list.js";
import { outages, useLooks } from "./looks.js";
import { Theme } from "./theme.js";
import { WatcherView } from "./watcher.js";

const SERVERS = { mongo: "MongoDB", nats: "NATS", watchers: "Changewire" };

function App() {
  const where = useHash();
  const [, what, name, more] = where.replace(/^#/, "").split("?")[0].split("/").map(decode);
  const seen = useLooks(what === "watchers" ? name : undefined);
  const instances = useInstances();
  const notice = useNotice();
  const down = outages(seen);
  // What follows from an outage quotes it, and the outage is told once.
  const warnings = Object.values(seen.health?.components ?? {}).flatMap((each) => each.warnings ?? []).filter((each) => !down.some(({ reason }) => each.includes(reason)));
  const title = { add: "Add a watcher", instances: "Instances", watchers: name }[what] ?? "Watchers";
  useEffect(() => {
    document.title = `${title} · Changewire`;
  }, [title]);
  return html`
    <a class="skip" href="#content" onClick=${toContent}>Skip to the content</a>
    <${Top} what=${what} health=${seen.health} instances=${instances} />
    <main class="container" id="content" tabindex="-1">
      <div role="status" aria-live="polite">
        ${notice && html`<p class="notice">${notice}</p>`}
        ${seen.unreachable && html`<p class="outage"><strong>Changewire does not answer.</strong> Showing the last known data. ${seen.unreachable}</p>`}
        ${!seen.unreachable && down.map((each) => html`<p class="outage" key=${each.name}><strong>${SERVERS[each.name] ?? each.name} is down.</strong> ${each.reason}</p>`)}
        ${seen.trouble && !down.length && !seen.unreachable && html`<p class="outage"><strong>The watchers cannot be read.</strong> ${seen.trouble}</p>`}
        ${warnings.map((each) => html`<p class="warning" key=${each}>${each}</p>`)}
      </div>
      <div class=${seen.unreachable || seen.trouble ? "stale" : ""}>
        <${View} what=${what} name=${name} more=${more} seen=${seen} instances=${instances} outage=${down.length > 0 || Boolean(seen.unreachable)} />
      </div>
    </main>
    <${TokenDialog} />
  `;
}

function View({ what, name, more, seen, instances, outage }) {
  const { watchers, lags, tick } = seen;
  // Health is asked more often than the list, which need not be made again for it.
  const list = useMemo(() => html`<${List} watchers=${watchers} lags=${lags} tick=${tick} outage=${outage} />`, [watchers, lags, tick, outage]);
  if (what === "add") return html`<${WatcherForm} key="add" known=${seen.watchers} />`;
  if (what === "instances") return html`<${Instances} seen=${instances} />`;
  if (what === "watchers" && name) return html`<${WatcherView} key=${name} name=${name} tab=${more} seen=${seen} outage=${outage} />`;
  return list;
}

function Top({ what, health, instances }) {
  const at = { add: "add", instances: "instances" }[what] ?? "list";
  const here = (view) => (view === at ? "page" : undefined);
  const several = instances.value?.length > 1 || instances.value?.some((each) => each.state !== "active");
  const forget = () => {
    forgetToken();
    dispatchEvent(new CustomEvent("changewire:notice", { detail: "the API token was forgotten" }));
  };
  return html`<header class="top"><div class="container">
    <a class="brand" href=${link.list}><img src="assets/icon.svg" alt="" />Changewire</a>
    <nav aria-label="Page">
      <a href=${link.list} aria-current=${here("list")}>Watchers</a>
      ${several && html`<a href=${link.instances} aria-current=${here("instances")}>Instances</a>`}
      <a href="docs">API</a>
    </nav>
    <div class="side">
      <ul class="health" aria-label="Health">
        ${Object.entries(health?.components ?? {}).map(([name, each]) => html`<li key=${name}>${name} <${State} state=${each.status} /></li>`)}
      </ul>
      ${hasToken() && html`<button type="button" class="small secondary forget" onClick=${forget}>Forget the token</button>`}
      <${Theme} />
      <a class="small add" href=${link.add} aria-current=${here("add")}>Add watcher</a>
    </div>
  </div></header>`;
}

/** The last action, shown for some seconds. */
function useNotice() {
  const [notice, setNotice] = useState(null);
  useEffect(() => {
    let timer = 0;
    const noticed = (event) => {
      setNotice(event.detail);
      clearTimeout(timer);
      timer = setTimeout(() => setNotice(null), 8000);
    };
    addEventListener("changewire:notice", noticed);
    return () => removeEventListener("changewire:notice", noticed);
  }, []);
  return notice;
}

function toContent(event) {
  event.preventDefault();
  document.getElementById("content").focus();
}

function useHash() {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const view = (where) => where.split("/").slice(0, 3).join("/");
    let before = location.hash;
    const changed = () => {
      setHash(location.hash);
      // From tab to tab the reader stays where they are; a new view is read from its beginning.
      if (view(before) !== view(location.hash)) {
        document.getElementById("content").focus({ preventScroll: true });
        scrollTo(0, 0);
      }
      before = location.hash;
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return hash;
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
