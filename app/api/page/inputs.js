// What the fields of the form are entered with: one for each kind of schema.

import { optionOf } from "./labels.js";
import { exact, html, useState } from "./lib.js";

/** A description, in which back-quotes mark code. */
export function Words({ text }) {
  return (text ?? "").replace(/([^\n])\n(?!\n)/g, "$1 ").split("`").map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));
}

export function kind(schema) {
  if (schema.anyOf?.some((each) => each.properties)) return Place;
  if (schema.anyOf?.some((each) => each.type === "string" && !each.enum)) return Optional;
  if (schema.anyOf || schema.enum) return Choice;
  if (schema.type === "boolean") return Tick;
  if (schema.type === "integer" || schema.type === "number") return Num;
  if (schema.type === "array" && schema.items?.enum) return Ticks;
  if (schema.type === "array" && schema.items?.type === "string") return Lines;
  return schema.type === "string" ? Text : Json;
}

/** How wide it is: the end of a class. */
export const kindOf = (input) => ({ Num: "number", Choice: "choice", Place: "choice", Json: "long", Lines: "name" })[input.name] ?? "name";

function Text({ schema, value, change, common, required }) {
  return html`<input type="text" ...${common} value=${value ?? ""} required=${required} placeholder=${schema.examples?.[0] ?? ""} onInput=${(event) => change(event.currentTarget.value)} />`;
}

/** A text that may be left out. */
function Optional({ change, ...rest }) {
  return html`<${Text} change=${(text) => change(text === "" ? null : text)} ...${rest} />`;
}

/** Several texts, one on each line. */
function Lines({ schema, value, change, common }) {
  const [text, setText] = useState(() => (value ?? []).join("\n"));
  const entered = (event) => {
    setText(event.currentTarget.value); // an empty line is one that is being written
    change(event.currentTarget.value.split("\n").map((line) => line.trim()).filter((line) => line !== ""));
  };
  return html`<textarea ...${common} rows=${Math.min(12, text.split("\n").length + 1)} spellcheck=${false} placeholder=${schema.examples?.[0]?.join("\n") ?? ""} value=${text} onInput=${entered}></textarea>`;
}

function Num({ value, change, common }) {
  const [text, setText] = useState(() => String(value?.rawJSON ?? value ?? ""));
  const entered = (event) => {
    setText(event.currentTarget.value); // at each key: what is drawn meanwhile must not set it back
    const number = event.currentTarget.value.trim();
    change(number === "" || Number.isNaN(Number(number)) ? number : Number(number)); // what is none the service shall see
  };
  return html`<input type="text" inputmode="decimal" ...${common} value=${text} onInput=${entered} />`;
}

export function Tick({ label, value, change, common: { class: _class, ...common } }) {
  return html`<label><input type="checkbox" ...${common} checked=${Boolean(value)} onChange=${(event) => change(event.currentTarget.checked)} /> ${label}</label>`;
}

function Choice({ path, schema, value, change, common }) {
  const values = (schema.anyOf ?? [schema]).flatMap((each) => each.enum ?? [null]);
  const chosen = (event) => change(values[event.currentTarget.selectedIndex]);
  return html`<select ...${common} onChange=${chosen}>
    ${values.map((each) => html`<option key=${each} value=${each ?? "none"} selected=${each === value}>${optionOf(path, each)}</option>`)}
  </select>`;
}

export function Ticks({ schema, label, value, change, common }) {
  const chosen = value ?? [];
  const toggle = (each) => change(chosen.includes(each) ? chosen.filter((one) => one !== each) : [...chosen, each]);
  return html`<div role="group" aria-labelledby=${`${common.id}-label`} aria-describedby=${common["aria-describedby"]}>
    <span id=${`${common.id}-label`}>${label}</span>
    <div class="ticks">
      ${schema.items.enum.map((each) => html`<label key=${each}><input type="checkbox" aria-invalid=${common["aria-invalid"]} checked=${chosen.includes(each)} onChange=${() => toggle(each)} /> ${each}</label>`)}
    </div>
  </div>`;
}

/** One of some words, or an object with one text, such as `{"timestamp": …}`. */
function Place({ path, schema, value, change, common }) {
  const words = schema.anyOf.flatMap((each) => each.enum ?? []);
  const texts = schema.anyOf.flatMap((each) => Object.keys(each.properties ?? {}));
  const now = value !== null && typeof value === "object" ? Object.keys(value)[0] : value;
  const choose = (event) => {
    const chosen = event.currentTarget.value;
    change(words.includes(chosen) ? chosen : { [chosen]: "" });
  };
  return html`<select ...${common} value=${now} onChange=${choose}>
      ${[...words, ...texts].map((each) => html`<option key=${each} selected=${each === now} value=${each}>${optionOf(path, each)}</option>`)}
    </select>
    ${texts.includes(now) &&
    html`<input type="text" class="w-name" aria-label=${optionOf(path, now)} placeholder=${now === "timestamp" ? "2026-01-01T00:00:00Z" : ""} value=${value[now]} onInput=${(event) => change({ [now]: event.currentTarget.value.trim() })} />`}`;
}

/** Whatever has no form of its own is entered as JSON. */
function Json({ value, change, common }) {
  const [text, setText] = useState(() => JSON.stringify(value ?? null, null, 2));
  const [fault, setFault] = useState(null);
  const entered = (event) => {
    setText(event.currentTarget.value);
    try {
      change(exact(event.currentTarget.value));
      setFault(null);
    } catch (error) {
      change(event.currentTarget.value); // the service refuses it too, should it be sent like this
      setFault(`is not JSON: ${error.message}`);
    }
  };
  return html`<textarea ...${common} rows=${Math.min(12, text.split("\n").length + 1)} spellcheck=${false} value=${text} onInput=${entered}></textarea>
    ${fault && html`<small class="wrong">${fault}</small>`}`;
}
