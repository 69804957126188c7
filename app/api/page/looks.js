// What the page knows: health, and either all watchers with their lags or the one that is looked at, asked again and again.

import { get, path } from "./api.js";
import { sample } from "./chart.js";
import { useEffect, useState } from "./lib.js";

const INTERVAL = 2000;
const EACH = 6; // milliseconds more between two lists for each watcher beyond those of an interval: an open page stays cheap

/**
 * The current state. `name`: the watcher that is looked at; without one, all.
 *
 * `watchers` and `lags` hold all, as they were when the list was last shown; `one` and `lag` the one watcher, `missing`
 * its name where there is none. `unreachable` and `trouble` say why nothing newer is known.
 */
export function useLooks(name) {
  const [seen, setSeen] = useState({ watchers: null, lags: null, one: null, lag: null, missing: null, health: null, unreachable: null, trouble: null, tick: 0 });
  const add = (more) => setSeen((before) => ({ ...before, ...more }));
  useEffect(() => {
    // Requests of their own: one that is slow in an outage must not keep the page from showing the outage.
    return repeat(async () => {
      try {
        add({ health: await get("healthz", { fine: [503] }), unreachable: null });
      } catch (error) {
        add({ unreachable: error.message });
      }
    });
  }, []);
  useEffect(() => {
    let lags = null;
    let count = 0;
    const lag = async () => {
      lags = await get(name ? path(name, "/lag") : "lag").catch(() => lags); // /healthz gives the reason
      add(name ? { lag: lags && { name, ...lags } } : { lags });
      return count * EACH;
    };
    const watchers = async () => {
      try {
        const found = await get(name ? path(name) : "watchers");
        const listed = name ? [found] : found;
        sample(listed, name ? { [name]: lags } : lags, !name);
        setSeen((before) => ({ ...before, ...(name ? { one: found, missing: null } : { watchers: found }), trouble: null, tick: before.tick + 1 }));
        count = listed.length;
      } catch (error) {
        add(error.status === 404 ? { missing: name, trouble: null } : { trouble: error.message });
      }
      return count * EACH;
    };
    const ends = [lag, watchers].map(repeat);
    return () => ends.forEach((end) => end());
  }, [name]);
  return seen;
}

/** The servers that are down, with the reasons; and what is wrong beyond single watchers, which say that themselves. */
export function outages({ health }) {
  const down = Object.entries(health?.components ?? {}).filter(([, each]) => each.status !== "UP");
  return down.filter(([name, each]) => name !== "watchers" || !(each.failed || each.retrying)).map(([name, each]) => ({ name, reason: each.reason }));
}

/**
 * Look now, after each change, and again and again while the tab is visible; one at a time. `look` may say after how many
 * milliseconds the next look is due at the earliest. Returns a function that ends it.
 */
export function repeat(look) {
  let over = false;
  let busy = false;
  let again = false;
  let timer = 0;
  const now = async () => {
    clearTimeout(timer);
    again = busy;
    if (busy || over || document.hidden) return;
    busy = true;
    const pause = await look();
    busy = false;
    if (!over) timer = setTimeout(now, again ? 0 : Math.max(INTERVAL, pause ?? 0));
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
