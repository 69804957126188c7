// What every part of the page uses: Preact with htm in place of JSX, and how values are written.

import { h } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { render } from "./vendor/preact.js";
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";

// Whatever is put into a template becomes text or a property, never markup: nothing here has to be escaped by hand.
export const html = htm.bind(h);

const NONE = "–";

/** A number with as many digits as help: 0.25, 3.4, 1,234. */
export function number(value, digits) {
  if (value === null || value === undefined) return NONE;
  const wanted = digits ?? (Math.abs(value) < 10 && !Number.isInteger(value) ? 1 : 0);
  return value.toLocaleString("en", { maximumFractionDigits: wanted });
}

/** Seconds in a readable unit: 0.4 s, 12 s, 3 min, 5 h, 2 d. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const steps = [[86400 * 2, 86400, "d"], [7200, 3600, "h"], [120, 60, "min"]];
  for (const [from, unit, name] of steps) if (seconds >= from) return `${Math.floor(seconds / unit)}\u00a0${name}`;
  return `${number(seconds, seconds < 10 ? 1 : 0)}\u00a0s`;
}

/** What a watcher reads: `shop.orders`, `shop.*` for a whole database, `*.*` for the deployment. */
export const watched = (source) => `${source.database ?? "*"}.${source.collection ?? "*"}`;

/** Without the middle of resume tokens, which would push the words out of sight. */
export const shortened = (text) => text.replace(/\b(82[0-9A-F]{8})[0-9A-F]{16,}/gi, "$1…");

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 1000 && at < units.length - 1) [value, at] = [value / 1000, at + 1];
  return `${number(value)}\u00a0${units[at]}`;
}

/** A moment (ISO 8601 or nothing) in the reader's own time zone, with the exact one to hover over. */
export function Time({ at }) {
  if (!at) return html`<span>${NONE}</span>`;
  const moment = new Date(at);
  const today = moment.toDateString() === new Date().toDateString();
  const time = moment.toLocaleTimeString();
  return html`<time datetime=${at} title=${at}>${today ? time : `${moment.toLocaleDateString()} ${time}`}</time>`;
}

export const State = ({ state }) => html`<span class="state ${String(state).toLowerCase()}">${state}</span>`;

/** An error, in the server's words. */
export function Trouble({ problem }) {
  return problem ? html`<p class="trouble" role="alert">${problem.message ?? String(problem)}</p>` : null;
}

/** JSON in which no number changes on its way through the browser: those beyond 53 bits, and 1.0 beside 1. */
export function exact(text) {
  if (!JSON.rawJSON) return JSON.parse(text);
  return JSON.parse(text, (_key, value, context) =>
    typeof value === "number" && context?.source !== undefined && context.source !== String(value)
      ? JSON.rawJSON(context.source)
      : value,
  );
}

/** A part of an address as text; as it is where it is not encoded properly. */
export function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const link = {
  list: "#/",
  add: "#/add",
  instances: "#/instances",
  watcher: (name) => `#/watchers/${encodeURIComponent(name)}`,
  tab: (name, tab) => `#/watchers/${encodeURIComponent(name)}/${tab}`,
};

export function Fact({ what, wide, children }) {
  return html`<div class=${wide ? "wide" : ""}><dt>${what}</dt><dd>${children}</dd></div>`;
}
