// Small live charts, drawn by uPlot, and their samples, which this tab keeps since it was opened.

import { html, useEffect, useRef, useState } from "./lib.js";

const KEPT = 300;
const LEAST = 60; // seconds, from the left edge to the right
const samples = new Map();

/** Remember the current rate and lag of each watcher. `lags` may lack any of them. */
export function sample(watchers, lags) {
  const now = Date.now() / 1000;
  const names = new Set(watchers.map((each) => each.name));
  for (const name of samples.keys()) if (!names.has(name)) samples.delete(name);
  for (const { name, status } of watchers) {
    const kept = samples.get(name) ?? { time: [], rate: [], lag: [] };
    samples.set(name, kept);
    kept.time.push(now);
    kept.rate.push(status.rates.last_10s);
    kept.lag.push(lags?.[name]?.seconds ?? null);
    if (kept.time.length > KEPT) for (const each of Object.values(kept)) each.shift();
  }
}

/** A chart of `rate` or `lag` of a watcher; `tick` changes with each sample. The number itself is beside it as text. */
export function Chart({ name, what, label, tick, width = 120, height = 32, axes = false }) {
  const place = useRef(null);
  const plot = useRef(null);
  const [theme, setTheme] = useState(0);
  useEffect(() => {
    const changed = () => setTheme((before) => before + 1);
    const system = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("changewire:theme", changed);
    system.addEventListener("change", changed);
    return () => {
      removeEventListener("changewire:theme", changed);
      system.removeEventListener("change", changed);
    };
  }, []);
  const data = () => {
    const kept = samples.get(name);
    return kept ? [kept.time, kept[what]] : [[], []];
  };
  useEffect(() => {
    const box = place.current;
    const style = getComputedStyle(box);
    const ink = style.getPropertyValue("--chart-ink").trim();
    const axis = { stroke: style.color, grid: { stroke: style.getPropertyValue("--chart-grid").trim(), width: 1 }, size: 44 };
    const options = {
      width: axes ? box.clientWidth : width,
      height,
      legend: { show: false },
      cursor: { show: false },
      padding: axes ? undefined : [2, 2, 2, 2],
      scales: { x: { time: true, range: (_u, min, max) => [Math.min(min, max - LEAST), max] }, y: { range: (_u, _min, max) => [0, Math.max(max ?? 0, 1) * 1.1] } },
      axes: axes ? [{ ...axis, size: 30 }, axis] : [{ show: false }, { show: false }],
      series: [{}, { stroke: ink, fill: `${ink}33`, width: 1.5, points: { show: false } }],
    };
    plot.current = new window.uPlot(options, data(), box);
    const resized = new ResizeObserver(() => {
      if (axes) plot.current.setSize({ width: box.clientWidth, height });
    });
    resized.observe(box);
    return () => {
      resized.disconnect();
      plot.current.destroy();
    };
  }, [name, what, theme]);
  useEffect(() => plot.current.setData(data()), [tick]);
  return html`<div class=${axes ? "chart wide" : "chart"} role="img" aria-label=${label} ref=${place}></div>`;
}
