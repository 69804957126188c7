// Small live charts, drawn by uPlot, and their samples, which this tab keeps since it was opened.

import { html, useEffect, useRef, useState } from "./lib.js";

const KEPT = 300;
const LEAST = 60; // seconds, from the left edge to the right
const LEAST_MOST = { rate: 1, lag: 5 }; // what reaches the top of a small chart at the least: noise stays low
const samples = new Map();

/** Remember the current rate and lag of each watcher. `lags` may lack any of them; `all`: there are no others. */
export function sample(watchers, lags, all) {
  const now = Date.now() / 1000;
  const names = new Set(watchers.map((each) => each.name));
  for (const name of samples.keys()) if (all && !names.has(name)) samples.delete(name);
  for (const { name, status } of watchers) {
    const kept = samples.get(name) ?? { time: [], rate: [], lag: [] };
    samples.set(name, kept);
    kept.time.push(now);
    kept.rate.push(status.rates.last_10s);
    kept.lag.push(lags?.[name]?.seconds ?? null);
    if (kept.time.length > KEPT) for (const each of Object.values(kept)) each.shift();
  }
}

const SPARK = { width: 60, height: 20, seconds: 120 };
const STILL = `M0,${SPARK.height - 1}L${SPARK.width},${SPARK.height - 1}`;

/** The last two minutes of `rate` or `lag` as an SVG path; empty where too little is known. While nothing happens it is
 * always the same, so that a row in which nothing has changed need not be drawn again. */
export function lately(name, what) {
  const kept = samples.get(name);
  if (!kept) return "";
  const { width, height, seconds } = SPARK;
  const end = kept.time.at(-1);
  const from = Math.max(0, kept.time.findIndex((time) => time >= end - seconds));
  const most = Math.max(LEAST_MOST[what], ...kept[what].slice(from).map((value) => value ?? 0));
  const points = [];
  let still = true;
  for (let at = from; at < kept.time.length; at++) {
    const value = kept[what][at];
    if (value === null) continue;
    still &&= value === 0;
    const x = width - ((end - kept.time[at]) / seconds) * width;
    points.push(`${x.toFixed(1)},${(height - 1 - (value / most) * (height - 3)).toFixed(1)}`);
  }
  if (points.length < 2) return "";
  return still ? STILL : `M${points.join("L")}`;
}

/** Such a path as a line without axes. */
export function Spark({ line }) {
  if (!line) return html`<svg class="spark" aria-hidden="true"></svg>`;
  const { width, height } = SPARK;
  const left = line.slice(1).split(",")[0];
  return html`<svg class="spark" viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" aria-hidden="true">
    <path class="area" d="${line}L${width},${height}L${left},${height}Z" /><path d=${line} />
  </svg>`;
}

/** A chart with axes of `rate` or `lag` of a watcher. The number itself is beside it as text. */
export function Chart({ name, what, label, tick, height = 150 }) {
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
    const now = Date.now() / 1000;
    return kept ? [kept.time, kept[what]] : [[now - LEAST, now], [null, null]]; // a minute of which nothing is known
  };
  useEffect(() => {
    const box = place.current;
    const style = getComputedStyle(box);
    const ink = style.caretColor; // resolved colours, where variables are not: a canvas knows no light-dark()
    const axis = { stroke: style.color, grid: { stroke: style.outlineColor, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif", size: 40 };
    const options = {
      width: box.clientWidth,
      height,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 26, 0, 0],
      scales: { x: { time: true, range: (_u, min, max) => [Math.min(min, max - LEAST), max] }, y: { range: (_u, _min, max) => [0, Math.max(max ?? 0, 1) * 1.1] } },
      axes: [{ ...axis, size: 26, values: (_u, times) => times.map((time) => new Date(time * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" })), space: 90 }, axis],
      series: [{}, { stroke: ink, fill: style.textDecorationColor, width: 1.5, points: { show: false } }],
    };
    plot.current = new window.uPlot(options, data(), box);
    const resized = new ResizeObserver(() => {
      plot.current.setSize({ width: box.clientWidth, height });
    });
    resized.observe(box);
    return () => {
      resized.disconnect();
      plot.current.destroy();
    };
  }, [name, what, theme]);
  useEffect(() => plot.current.setData(data()), [tick]);
  return html`<div class="chart" role="img" aria-label=${label} ref=${place}></div>`;
}
