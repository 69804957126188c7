// All watchers at a glance: what is in trouble first, to be searched, filtered and sorted, a thousand of them too.

import { Pause, Remove, Restart, Resume } from "./actions.js";
import { lately, Spark } from "./chart.js";
import { duration, html, link, number, shortened, State, useEffect, useLayoutEffect, useMemo, useRef, useState, watched } from "./lib.js";
import { Menu } from "./menu.js";
import { Rewind } from "./rewind.js";
import { CancelSnapshot, SnapshotBrief, TakeSnapshot } from "./snapshot.js";
import { subjects } from "./subjects.js";

const ORDER = ["FAILED", "RETRYING", "FENCED", "STARTING", "PAUSED", "RUNNING"];
const TROUBLE = ["FAILED", "RETRYING"];
const troubled = ({ status }) => TROUBLE.includes(status.state) || status.as_of !== null;
const severity = (watcher) => (watcher.status.as_of !== null ? 1.5 : ORDER.indexOf(watcher.status.state)) - (watcher.status.snapshot?.state === "failed" ? 0.1 : 0);

// By which a column sorts, and whether the first click sorts from the greatest on.
const COLUMNS = [
  { key: "state", head: "State", of: severity },
  { key: "name", head: "Name", of: ({ name }) => name },
  { key: "flow", head: "From → to", of: ({ source }) => watched(source) },
  { key: "instance", head: "Instance", of: ({ status }) => status.instance ?? "" },
  { key: "rate", head: "Events/s", figure: true, greatest: true, of: ({ status }) => status.rates.last_10s },
  { key: "lag", head: "Lag", figure: true, greatest: true, of: (_watcher, lag) => lag?.seconds ?? -1 },
  { key: "headroom", head: "Headroom", title: "How far the oplog reaches back before the watcher's position", figure: true, of: (_watcher, lag) => lag?.oplog_headroom_seconds ?? Infinity },
  { key: "published", head: "Published", figure: true, greatest: true, of: ({ status }) => status.events.published },
];

/** What is searched, filtered and sorted by: in the address, so that it can be sent to somebody. */
function useQuery() {
  const read = () => Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? ""));
  const [query, setQuery] = useState(read);
  const set = (more) => {
    const now = Object.fromEntries(Object.entries({ ...query, ...more }).filter(([, value]) => value));
    const text = new URLSearchParams(now).toString();
    history.replaceState(null, "", text ? `#/?${text}` : "#/");
    setQuery(now);
  };
  useEffect(() => {
    const changed = () => setQuery(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return [query, set];
}

export function List({ watchers, lags, tick, outage }) {
  const [query, set] = useQuery();
  const [dialog, setDialog] = useState(null);
  const shown = useMemo(() => chosen(watchers ?? [], lags, query), [watchers, lags, query]);
  if (watchers === null) return html`<h1 class="lead">Watchers</h1><p class="quiet">Loading the watchers…</p>`;
  if (watchers.length === 0) return html`<${Empty} />`;
  const instances = [...new Set(watchers.map(({ status }) => status.instance).filter(Boolean))].sort();
  const acted = dialog && watchers.find(({ name }) => name === dialog.name);
  return html`
    <div class="bar">
      <h1>Watchers</h1>
      <${Search} value=${query.q ?? ""} change=${(q) => set({ q })} />
      <${Chips} watchers=${watchers} value=${query.state} choose=${(state) => set({ state })} />
      ${(instances.length > 1 || query.instance) &&
      html`<select aria-label="Instance" value=${query.instance ?? ""} onChange=${(event) => set({ instance: event.currentTarget.value })}>
        <option value="">All instances</option>
        ${instances.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}
      </select>`}
    </div>
    <${Tiles} watchers=${watchers} lags=${lags} />
    <${Rows} shown=${shown} all=${watchers.length} lags=${lags} tick=${tick} query=${query} set=${set} several=${instances.length > 1} outage=${outage} open=${(what, name) => setDialog({ what, name })} />
    ${acted && html`<${dialog.what} watcher=${acted} lag=${lags?.[dialog.name]} close=${() => setDialog(null)} removed=${() => null} />`}
  `;
}

function Empty() {
  return html`<h1 class="lead">Watchers</h1>
    <div class="card welcome">
      <p>There are no watchers yet. <a href=${link.add}>Add the first one</a>: it needs a name, and a database or a collection of it.</p>
    </div>`;
}

function chosen(watchers, lags, { q = "", state, instance, sort = "state", down }) {
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  const text = ({ name, source, sink, status }) => `${name} ${watched(source)} ${sink.stream} ${status.state} ${status.instance ?? ""} ${status.reason ?? ""}`.toLowerCase();
  const fits = (each) =>
    (!instance || each.status.instance === instance) &&
    (!state || (state === "trouble" ? troubled(each) : each.status.state === state)) &&
    (!words.length || words.every((word) => text(each).includes(word)));
  const { of } = COLUMNS.find(({ key }) => key === sort) ?? COLUMNS[0];
  const sign = down ? -1 : 1;
  return watchers
    .filter(fits)
    .map((each) => [of(each, lags?.[each.name]), each])
    .sort(([a, one], [b, other]) => sign * (a < b ? -1 : a > b ? 1 : 0) || (one.name < other.name ? -1 : 1))
    .map(([, each]) => each);
}

function Search({ value, change }) {
  const field = useRef(null);
  useEffect(() => {
    const key = (event) => {
      if (event.key !== "/" || event.target.closest("input, textarea, select, dialog")) return;
      event.preventDefault();
      field.current.focus();
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);
  return html`<input type="search" ref=${field} aria-label="Search the watchers" placeholder="Search name, source, stream ( / )" autocomplete="off" value=${value} onInput=${(event) => change(event.currentTarget.value)} />`;
}

function Chips({ watchers, value, choose }) {
  const counts = new Map(ORDER.map((state) => [state, watchers.filter(({ status }) => status.state === state).length]));
  const trouble = watchers.filter(troubled).length;
  const chip = (state, words, count, bad) => html`<button key=${words} type="button" class=${bad ? "bad" : ""} aria-pressed=${(value ?? "") === state} onClick=${() => choose(state)}>${words} <span>${number(count)}</span></button>`;
  return html`<div class="chips" role="toolbar" aria-label="State">
    ${chip("", "All", watchers.length)} ${(trouble > 0 || value === "trouble") && chip("trouble", "In trouble", trouble, true)}
    ${ORDER.filter((state) => counts.get(state) || value === state).map((state) => chip(state, state[0] + state.slice(1).toLowerCase(), counts.get(state)))}
  </div>`;
}

function Tiles({ watchers, lags }) {
  const sum = (of) => watchers.reduce((total, each) => total + of(each), 0);
  const running = watchers.filter(({ name, status }) => status.state !== "PAUSED" && lags?.[name]);
  const most = (of) => running.map((each) => [of(lags[each.name]), each.name]).filter(([value]) => value !== null).sort(([a], [b]) => b - a)[0];
  const lag = most((each) => each.seconds);
  const headroom = most((each) => (each.oplog_headroom_seconds === null ? null : -each.oplog_headroom_seconds));
  const letters = sum(({ status }) => status.dead_letters ?? 0);
  const failed = watchers.filter(({ status }) => status.state === "FAILED").length;
  const snapshots = watchers.filter(({ status }) => status.snapshot?.state === "running").length;
  return html`<dl class="tiles">
    <div><dt>Watchers</dt><dd>${number(watchers.length)} <small class=${failed ? "bad" : ""}>${failed ? `${number(failed)} failed` : "none failed"}</small></dd></div>
    <div><dt>Events/s</dt><dd>${number(sum(({ status }) => status.rates.last_10s))}</dd></div>
    <div><dt>Published</dt><dd>${number(sum(({ status }) => status.events.published))}</dd></div>
    <div><dt>Most lag</dt><dd>${lag ? duration(lag[0]) : "–"} <small>${lag?.[0] >= 1 ? lag[1] : ""}</small></dd></div>
    <div><dt title="How far the oplog reaches back before the positions, at the least">Least headroom</dt><dd>${headroom ? duration(-headroom[0]) : "–"} <small>${headroom?.[0] > -3600 && watchers.length > 1 ? headroom[1] : ""}</small></dd></div>
    ${letters > 0 && html`<div class="bad"><dt>Dead letters</dt><dd>${number(letters)}</dd></div>`}
    ${snapshots > 0 && html`<div><dt>Snapshots</dt><dd>${number(snapshots)} <small>running</small></dd></div>`}
  </dl>`;
}

// Beyond this many rows only those in sight are drawn.
const ALL = 80;
const AHEAD = 12;
const STEP = 200; // drawn again only after so many pixels: a few rows at a time, so that no frame waits for many

function Rows({ shown, all, lags, tick, query, set, several, outage, open }) {
  const body = useRef(null);
  const heights = useHeights();
  const drawn = useDrawn();
  const [sight, setSight] = useState([0, 2000]);
  useLayoutEffect(() => {
    let waiting = 0;
    const look = () => {
      waiting = 0;
      const top = -body.current.getBoundingClientRect().top;
      const from = Math.floor(top / STEP) * STEP;
      setSight((before) => (before[0] === from && before[1] === innerHeight ? before : [from, innerHeight]));
    };
    const scrolled = () => (waiting ||= requestAnimationFrame(look));
    look();
    addEventListener("scroll", scrolled, { passive: true });
    addEventListener("resize", scrolled);
    return () => {
      cancelAnimationFrame(waiting);
      removeEventListener("scroll", scrolled);
      removeEventListener("resize", scrolled);
    };
  }, []);
  const said = (each) => reason(each, outage);
  const [from, to, above, below] = inSight(shown, (each) => (said(each) ? heights.troubled : heights.row), sight);
  const columns = COLUMNS.filter(({ key }) => several || key !== "instance");
  const sort = query.sort ?? "state";
  const by = ({ key, greatest }) => set(sort === key ? { sort: key, down: query.down ? "" : "1" } : { sort: key, down: greatest ? "1" : "" });
  const padding = (node) => node && Object.assign(node.style, { paddingBlockStart: `${above}px`, paddingBlockEnd: `${below}px` });
  return html`<div class=${several ? "listing several" : "listing"} role="table" aria-label="Watchers" aria-rowcount=${shown.length + 1}>
    <div class="head" role="rowgroup"><div role="row" aria-rowindex="1">
      ${columns.map((each) => {
        const order = sort === each.key ? (query.down ? "descending" : "ascending") : undefined;
        return html`<div key=${each.key} role="columnheader" class=${each.figure ? "figure" : ""} aria-sort=${order} title=${each.title}><button type="button" onClick=${() => by(each)}>${each.head}</button></div>`;
      })}
      <div role="columnheader"><span class="hidden-label">Actions</span></div>
    </div></div>
    <div class="body" role="rowgroup" ref=${(node) => padding((body.current = node))}>
      ${shown.slice(from, to).map((each, index) => drawn({ index: from + index + 2, watcher: each, lag: lags?.[each.name], said: said(each), several }, tick, open))}
      ${shown.length === 0 && html`<div role="row" class="none"><div role="cell">None of ${number(all)} watchers fits. <button type="button" class="small secondary" onClick=${() => set({ q: "", state: "", instance: "" })}>Show all</button></div></div>`}
    </div>
  </div>`;
}

/** Rows that would show what they showed are given to Preact as they were, and it passes them over: scrolling draws new
 * ones alone, and news of a thousand watchers those that have changed. */
function useDrawn() {
  const kept = useRef(new Map());
  return (props, tick, open) => {
    const { watcher, lag } = props;
    const { name } = watcher;
    const before = kept.current.get(name);
    if (before?.tick === tick && Object.entries(props).every(([key, value]) => before.props[key] === value)) return before.row;
    const lines = { rate: lately(name, "rate"), lag: lately(name, "lag") };
    const figures = { lag: duration(lag?.seconds), headroom: duration(lag?.oplog_headroom_seconds), why: lag?.oplog_headroom_why };
    const shows = JSON.stringify([props.index, props.said, props.several, watcher, lines, figures]);
    const row = before?.shows === shows ? before.row : html`<${Row} key=${name} ...${props} lines=${lines} figures=${figures} open=${open} />`;
    if (kept.current.size > 2000) kept.current.clear();
    kept.current.set(name, { props, tick, shows, row });
    return row;
  };
}

/** The rows to draw, and how many pixels those above and below them take. */
function inSight(shown, heightOf, [top, height]) {
  if (shown.length <= ALL) return [0, shown.length, 0, 0];
  let from = 0;
  let above = 0;
  while (from < shown.length && above + heightOf(shown[from]) < top - AHEAD * 50) above += heightOf(shown[from++]);
  let to = from;
  let bottom = above;
  while (to < shown.length && bottom < top + height + STEP + AHEAD * 50) bottom += heightOf(shown[to++]);
  let below = 0;
  for (let at = to; at < shown.length; at++) below += heightOf(shown[at]);
  return [from, to, above, below];
}

/** Pixels of a row, as list.css has them. */
function useHeights() {
  const [narrow, setNarrow] = useState(() => matchMedia("(max-width: 60rem)").matches);
  useEffect(() => {
    const query = matchMedia("(max-width: 60rem)");
    const changed = () => setNarrow(query.matches);
    query.addEventListener("change", changed);
    return () => query.removeEventListener("change", changed);
  }, []);
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  return narrow ? { row: 6.2 * rem, troubled: 8.8 * rem } : { row: 2.9 * rem, troubled: 4.3 * rem };
}

/** What is said below a row. While a server is down the page has said so once; a failed watcher has its own reason. */
function reason({ status }, outage) {
  if (status.as_of !== null) return `the instance ${status.instance} does not answer: as it was then`;
  if (status.snapshot?.state === "failed" && !status.reason) return `snapshot failed: ${status.snapshot.reason}`;
  return outage && status.state !== "FAILED" ? null : status.reason;
}

function Row({ watcher, said, several, lines, figures, open, index }) {
  const { name, source, sink, status } = watcher;
  const rate = status.rates.last_10s;
  const still = status.state === "PAUSED" || watcher.paused || status.state === "FAILED";
  const to = `${sink.stream} (${subjects(watcher, "*")})`;
  return html`<div role="row" aria-rowindex=${index} class=${`row ${status.state.toLowerCase()}${said ? " troubled" : ""}`}>
    <div role="cell" class="state-of"><${State} state=${status.state} /></div>
    <div role="rowheader" class="name-of">
      <a class="name" href=${link.watcher(name)} title=${name}>${name}</a>
    </div>
    <div role="cell" class="flow" title=${`${watched(source)} → ${to}`}>
      <${SnapshotBrief} name=${name} snapshot=${status.snapshot} />
      ${status.dead_letters > 0 && html`<a class="tag bad" href=${link.tab(name, "dead-letters")}>${number(status.dead_letters)} dead letter${status.dead_letters > 1 ? "s" : ""}</a> `}
      ${watched(source)} → ${sink.stream}
    </div>
    ${several && html`<div role="cell" class="instance" title=${status.instance}>${status.instance ?? "–"}</div>`}
    <div role="cell" class="figure rate-of pair-of" data-unit="/s"><${Spark} line=${lines.rate} /> <span class="rate">${number(rate)}</span></div>
    <div role="cell" class="figure lag-of pair-of" data-unit="lag"><${Spark} line=${lines.lag} /> <span>${figures.lag}</span></div>
    <div role="cell" class="figure headroom-of" title=${figures.why ?? ""}>${figures.headroom}</div>
    <div role="cell" class="figure published-of" data-unit="published"><span class="published">${number(status.events.published)}</span></div>
    <div role="cell" class="do"><${Do} watcher=${watcher} still=${still} open=${(what) => open(what, name)} /></div>
    ${said && html`<div role="cell" class="why" title=${said}>${shortened(said)}</div>`}
  </div>`;
}

function Do({ watcher: { name, paused, status }, still, open }) {
  const label = still ? `Resume ${name}…` : `Pause ${name}…`;
  const running = status.snapshot?.state === "running";
  return html`<button type="button" class="icon" aria-label=${label} title=${label} onClick=${() => open(still ? Resume : Pause)}>
      <svg viewBox="0 0 16 16" aria-hidden="true">${still ? html`<path d="M4 2.5v11l9-5.5z" />` : html`<path d="M4 3h3v10H4zM9 3h3v10H9z" />`}</svg>
    </button>
    <${Menu} label=${`More for ${name}`} items=${[
      !paused && status.state !== "PAUSED" && { words: "Restart…", run: () => open(Restart) },
      { words: "Rewind…", run: () => open(Rewind) },
      running ? { words: "Cancel the snapshot…", run: () => open(CancelSnapshot) } : status.state !== "FAILED" && { words: "Take a snapshot…", run: () => open(TakeSnapshot) },
      { words: "Messages", href: link.tab(name, "messages") },
      { words: "Settings", href: link.tab(name, "settings") },
      { words: "Remove…", run: () => open(Remove), danger: true },
    ]} />`;
}
