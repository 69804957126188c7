// The page: the header of every view, which view is shown, and the requests to the service every two seconds.

import { forgetToken, get, hasToken } from "./api.js";
import { sample } from "./chart.js";
import { TokenDialog } from "./dialogs.js";
import { WatcherForm } from "./form.js";
import { html, link, render, State, useEffect, useState } from "./lib.js";
import { List } from "./list.js";
import { sampleSnapshots } from "./snapshot.js";
import { Theme } from "./theme.js";
import { WatcherView } from "./watcher.js";

const INTERVAL = 2000;

function App() {
  const where = useHash();
  const seen = useLooks();
  const notice = useNotice();
  const forget = () => {
    forgetToken();
    dispatchEvent(new CustomEvent("changewire:notice", { detail: "the API token was forgotten" }));
  };
  const down = Object.entries(seen.health?.components ?? {}).filter(([, each]) => each.status !== "UP");
  const warnings = Object.values(seen.health?.components ?? {}).flatMap((each) => each.warnings ?? []);
  return html`
    <a class="skip" href="#content" onClick=${toContent}>Skip to the content</a>
    <header class="top container">
      <a class="brand" href=${link.list}>Changewire</a>
      <ul class="health" aria-label="Health">
        ${Object.entries(seen.health?.components ?? {}).map(([name, each]) => html`<li key=${name}>${name} <${State} state=${each.status} /></li>`)}
      </ul>
      <nav aria-label="Page">
        <a href=${link.list}>Watchers</a>
        <a href=${link.add}>Add</a>
        <a href="docs">API</a>
        ${hasToken() && html`<button type="button" class="small secondary" onClick=${forget}>Forget the token</button>`}
        <${Theme} />
      </nav>
    </header>
    <main class="container" id="content" tabindex="-1">
      <div role="status" aria-live="polite">
        ${notice && html`<p class="notice">${notice}</p>`}
        ${seen.unreachable && html`<p class="outage"><strong>Changewire does not answer.</strong> Showing the last known data. ${seen.unreachable}</p>`}
        ${!seen.unreachable && down.map(([name, each]) => html`<p class="outage" key=${name}><strong>${name} is down.</strong> ${each.reason}</p>`)}
        ${warnings.map((each) => html`<p class="warning" key=${each}>${each}</p>`)}
        ${seen.trouble && !down.length && html`<p class="outage"><strong>The watchers cannot be read.</strong> ${seen.trouble}</p>`}
      </div>
      <div class=${seen.unreachable || seen.trouble ? "stale" : ""}><${View} where=${where} seen=${seen} /></div>
    </main>
    <${TokenDialog} />
  `;
}

function View({ where, seen }) {
  const [, what, name, more] = where.replace(/^#/, "").split("/").map(decode);
  const title = { add: "Add a watcher", watchers: name }[what] ?? "Watchers";
  useEffect(() => {
    document.title = `${title} · Changewire`;
  }, [title]);
  if (what === "add") return html`<${WatcherForm} key="add" />`;
  if (what === "watchers" && more === "edit") return html`<${WatcherForm} key=${`edit ${name}`} name=${name} />`;
  if (what === "watchers" && name) return html`<${WatcherView} key=${name} name=${name} ...${seen} />`;
  return html`<${List} ...${seen} />`;
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
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
    const changed = () => {
      setHash(location.hash);
      document.getElementById("content").focus({ preventScroll: true }); // so that a reader begins with the new view
      scrollTo(0, 0);
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return hash;
}

/** The current state: health, watchers and lags, each asked again every two seconds while the tab is visible. */
function useLooks() {
  const [seen, setSeen] = useState({ watchers: null, lags: null, health: null, unreachable: null, trouble: null, tick: 0 });
  useEffect(() => {
    const add = (more) => setSeen((before) => ({ ...before, ...more }));
    // Separate requests: one that is slow in an outage must not keep the page from showing the outage.
    const health = async () => {
      try {
        add({ health: await get("healthz", { fine: [503] }), unreachable: null });
      } catch (error) {
        add({ unreachable: error.message });
      }
    };
    let lags = null;
    const lag = async () => {
      lags = await get("lag").catch(() => lags); // /healthz gives the reason
      add({ lags });
    };
    const watchers = async () => {
      try {
        const found = await get("watchers");
        sample(found, lags);
        sampleSnapshots(found);
        setSeen((before) => ({ ...before, watchers: found, trouble: null, tick: before.tick + 1 }));
      } catch (error) {
        add({ trouble: error.message });
      }
    };
    const ends = [health, lag, watchers].map(repeat);
    return () => ends.forEach((end) => end());
  }, []);
  return seen;
}

/** Look now, after each change, and every two seconds while the tab is visible; one at a time. Returns a function that ends it. */
function repeat(look) {
  let over = false;
  let busy = false;
  let again = false;
  let timer = 0;
  const now = async () => {
    clearTimeout(timer);
    again = busy;
    if (busy || over || document.hidden) return;
    busy = true;
    await look();
    busy = false;
    timer = setTimeout(now, again ? 0 : INTERVAL);
  };
  now();
  document.addEventListener("visibilitychange", now);
  addEventListener("changewire:changed", now);
  return () => {
    over = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", now);
    removeEventListener("changewire:changed", now);
  };
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
