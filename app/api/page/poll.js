// A part of a view that asks the service again and again for what it shows.

import { get } from "./api.js";
import { html, useEffect, useState } from "./lib.js";

const INTERVAL = 4000;

/** The answer of a call, asked again every few seconds and after each change. */
export function usePoll(where, options) {
  const [seen, setSeen] = useState({ value: null, problem: null });
  useEffect(() => {
    let over = false;
    let timer = 0;
    const look = async () => {
      clearTimeout(timer);
      try {
        const value = document.hidden ? undefined : await get(where, options);
        if (!over && value !== undefined) setSeen({ value, problem: null });
      } catch (problem) {
        if (!over) setSeen((before) => ({ ...before, problem }));
      }
      if (!over) timer = setTimeout(look, INTERVAL);
    };
    look();
    addEventListener("changewire:changed", look);
    return () => {
      over = true;
      clearTimeout(timer);
      removeEventListener("changewire:changed", look);
    };
  }, [where]);
  return seen;
}

/** A card with its heading; where it is `alone` on its view, that has the same one. What cannot be asked while a server is down says only that: the page has said why. */
export function Section({ id, title, seen, outage, alone, children }) {
  return html`<section class=${seen.problem ? "card stale" : "card"} aria-labelledby=${id}>
    <h2 id=${id} class=${alone ? "hidden-label" : ""}>${title}</h2>
    ${seen.problem && (outage ? html`<p class="quiet">Not available until the outage is over.</p>` : html`<p class="warning">${seen.problem.message}</p>`)}
    ${seen.value !== null && children(seen.value)}
  </section>`;
}
