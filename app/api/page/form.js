// Adding and changing a watcher, by a form made from the schema in openapi.json: a new field of the service appears here
// by itself. The service says what is wrong, at the field that it names.

import { call, get, path } from "./api.js";
import { changed } from "./dialogs.js";
import { exact, html, link, Trouble, useEffect, useRef, useState } from "./lib.js";

const SCHEMA = "NewWatcher";

/** `name`: the watcher to change; without it one is added. */
export function WatcherForm({ name }) {
  const [known, setKnown] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    const load = async () => {
      const document = await get("openapi.json");
      const { status, ...watcher } = name === undefined ? {} : await get(path(name), { parse: exact });
      setKnown({ document, watcher });
    };
    load().catch(setProblem);
  }, [name]);
  return html`<h1>${name === undefined ? "Add a watcher" : `Change ${name}`}</h1>
    <${Trouble} problem=${problem} />
    ${known && html`<${Loaded} name=${name} ...${known} />`}`;
}

function Loaded({ name, document: openapi, watcher }) {
  const schemas = openapi.components.schemas;
  const root = schemas[SCHEMA];
  const [value, setValue] = useState(() => (name === undefined ? defaults(root, schemas) : watcher));
  const [problem, setProblem] = useState(null);
  const [fine, setFine] = useState(null);
  const [busy, setBusy] = useState(false);
  const form = useRef(null);
  const wrong = problem?.fields ?? {};

  useEffect(() => {
    // Where something is wrong is where to go on; what lies in a closed part was opened for it.
    form.current.querySelector("[aria-invalid=true]")?.focus();
  }, [problem]);

  const send = async (dry) => {
    setBusy(true);
    setProblem(null);
    setFine(null);
    try {
      const query = dry ? "?dry_run=true" : "";
      const body = name === undefined ? (without(value, defaults(root, schemas)) ?? {}) : value;
      await (name === undefined ? call("POST", `watchers${query}`, body) : call("PUT", path(name, query), body));
      if (dry) {
        setFine("Checked with MongoDB and NATS: this would work. Nothing was changed.");
      } else {
        changed(name === undefined ? `${body.name} was added` : `${name} was changed`);
        location.hash = link.watcher(name ?? body.name);
      }
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  const submit = (event) => {
    event.preventDefault();
    send(false);
  };
  const fields = html`<${Members}
    schema=${root} schemas=${schemas} path="" value=${value} change=${setValue} wrong=${wrong}
    locked=${name === undefined ? [] : ["name"]} open=${name !== undefined}
  />`;
  return html`<form class="described" ref=${form} onSubmit=${submit} novalidate>
    ${fields}
    <${Elsewhere} problem=${problem} root=${root} schemas=${schemas} />
    ${fine && html`<p role="status" class="quiet">${fine}</p>`}
    ${name !== undefined && html`<p class="quiet">Saving restarts the watcher; it continues from its position.</p>`}
    <div class="actions">
      <button type="submit" disabled=${busy} aria-busy=${busy}>${name === undefined ? "Add" : "Save"}</button>
      <button type="button" class="secondary" disabled=${busy} onClick=${() => send(true)}>Check only</button>
      <a role="button" class="secondary" href=${name === undefined ? link.list : link.watcher(name)}>Cancel</a>
    </div>
  </form>`;
}

/** Problems that belong to no field of the form. */
function Elsewhere({ problem, root, schemas }) {
  if (!problem) return null;
  const places = leaves(root, schemas, "");
  const left = Object.entries(problem.fields ?? {}).filter(([field]) => !places.some((place) => within(field, place)));
  if (Object.keys(problem.fields ?? {}).length && !left.length) {
    return html`<p class="trouble" role="alert">Nothing was changed: see the marked fields.</p>`;
  }
  return html`<div class="trouble" role="alert">
    ${left.length ? left.map(([field, words]) => html`<div key=${field}>${field} ${words}</div>`) : problem.message}
  </div>`;
}

/** The fields of an object: those that have to be there first, the others in a part that can be opened. */
function Members({ schema, path: at, value, change, open, ...rest }) {
  const members = Object.entries(schema.properties);
  const required = new Set(schema.required ?? []);
  const draw = ([key, member]) => html`<${Field}
    key=${key} name=${key} path=${at ? `${at}.${key}` : key} schema=${member} required=${required.has(key)} open=${open}
    value=${value?.[key]} change=${(now) => change((before) => ({ ...before, [key]: typeof now === "function" ? now(before?.[key]) : now }))} ...${rest}
  />`;
  const leads = ([key, member]) => required.has(key) || !at || member["x-first"];
  const first = members.filter(leads);
  const others = members.filter((each) => !leads(each));
  const marked = Object.keys(rest.wrong).some((field) => others.some(([key]) => within(field, `${at}.${key}`)));
  return html`${first.map(draw)}
  ${others.length > 0 &&
  html`<details open=${open || marked}>
    <summary>${first.length ? `More of ${at}` : `Settings of ${at}`}</summary>
    ${others.map(draw)}
  </details>`}`;
}

function Field({ name, path: at, schema: given, schemas, required, locked, value, change, wrong, open, ...rest }) {
  const schema = resolve(given, schemas);
  if (schema.properties) {
    return html`<fieldset>
      <legend>${name}</legend>
      <p class="quiet"><${Words} text=${schema.description} /></p>
      <${Members} schema=${schema} schemas=${schemas} path=${at} value=${value} change=${change} wrong=${wrong} locked=${locked} open=${open} ...${rest} />
    </fieldset>`;
  }
  const id = `field-${at}`;
  const optional = objectOrNothing(schema, schemas);
  if (optional) {
    const props = { id, name, path: at, schema, optional, schemas, locked, value, change, wrong };
    return html`<${ObjectOrNothing} ...${props} />`;
  }
  const words = Object.entries(wrong).filter(([field]) => within(field, at)).map(([, each]) => each).join("; ");
  const described = [words && `${id}-wrong`, schema.description && `${id}-help`].filter(Boolean).join(" ") || undefined;
  const common = { id, "aria-describedby": described, "aria-invalid": words ? "true" : undefined, disabled: locked.includes(at) };
  const Input = kind(schema);
  const label = html`${name}${required ? html` <span class="quiet">(required)</span>` : ""}`;
  return html`<div class="field">
    ${Input === Ticks || Input === Tick ? null : html`<label for=${id}>${label}</label>`}
    <${Input} schema=${schema} schemas=${schemas} label=${label} value=${value} change=${change} common=${common} required=${required} />
    ${words && html`<small class="wrong" id=${`${id}-wrong`}>${words}</small>`}
    ${schema.description && html`<small id=${`${id}-help`}><${Words} text=${schema.description} /></small>`}
  </div>`;
}

/** An object that may be left out: a box to tick, and below it the object's fields. */
function ObjectOrNothing({ id, name, path: at, schema, optional, schemas, value, change, wrong, ...rest }) {
  const [last, setLast] = useState(null); // comes back with the tick
  const toggle = (event) => {
    if (!event.currentTarget.checked) setLast(value);
    change(event.currentTarget.checked ? (last ?? defaults(optional, schemas)) : null);
  };
  const has = value !== null && value !== undefined;
  const mine = Object.entries(wrong).filter(([field]) => (has ? field === at : within(field, at))); // else a field below says it
  const words = mine.map(([, each]) => each).join("; ");
  const described = [words && `${id}-wrong`, `${id}-help`].filter(Boolean).join(" ");
  return html`<fieldset>
    <legend>${name}</legend>
    <div class="field">
      <label><input type="checkbox" id=${id} aria-describedby=${described} aria-invalid=${words ? "true" : undefined} checked=${has} onChange=${toggle} /> <${Words} text=${optional.description} /></label>
      ${words && html`<small class="wrong" id=${`${id}-wrong`}>${words}</small>`}
      <small id=${`${id}-help`}><${Words} text=${schema.description} /></small>
    </div>
    ${has && html`<${Members} schema=${optional} schemas=${schemas} path=${at} value=${value} change=${change} wrong=${wrong} open=${false} ...${rest} />`}
  </fieldset>`;
}

/** A description, in which back-quotes mark code. */
function Words({ text }) {
  return (text ?? "").replace(/([^\n])\n(?!\n)/g, "$1 ").split("`").map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));
}

// What a field is entered with

function kind(schema) {
  if (schema.anyOf?.some((each) => each.properties)) return Place;
  if (schema.anyOf?.some((each) => each.type === "string" && !each.enum)) return Optional;
  if (schema.anyOf || schema.enum) return Choice;
  if (schema.type === "boolean") return Tick;
  if (schema.type === "integer" || schema.type === "number") return Num;
  if (schema.type === "array" && schema.items?.enum) return Ticks;
  if (schema.type === "array" && schema.items?.type === "string") return Lines;
  return schema.type === "string" ? Text : Json;
}

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

function Tick({ label, value, change, common }) {
  return html`<label><input type="checkbox" ...${common} checked=${Boolean(value)} onChange=${(event) => change(event.currentTarget.checked)} /> ${label}</label>`;
}

function Choice({ schema, value, change, common }) {
  const values = (schema.anyOf ?? [schema]).flatMap((each) => each.enum ?? [null]);
  const chosen = (event) => change(values[event.currentTarget.selectedIndex]);
  return html`<select ...${common} onChange=${chosen}>
    ${values.map((each) => html`<option key=${each} selected=${each === value}>${each ?? "none"}</option>`)}
  </select>`;
}

function Ticks({ schema, label, value, change, common }) {
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
function Place({ schema, value, change, common }) {
  const words = schema.anyOf.flatMap((each) => each.enum ?? []);
  const texts = schema.anyOf.flatMap((each) => Object.keys(each.properties ?? {}));
  const now = value !== null && typeof value === "object" ? Object.keys(value)[0] : value;
  const choose = (event) => {
    const chosen = event.currentTarget.value;
    change(words.includes(chosen) ? chosen : { [chosen]: "" });
  };
  return html`<select ...${common} value=${now} onChange=${choose}>
      ${[...words, ...texts].map((each) => html`<option key=${each} selected=${each === now} value=${each}>${each}</option>`)}
    </select>
    ${texts.includes(now) &&
    html`<input type="text" aria-label=${now} value=${value[now]} onInput=${(event) => change({ [now]: event.currentTarget.value.trim() })} />`}`;
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

// Schemas and values

function resolve(schema, schemas) {
  const name = schema.$ref?.split("/").at(-1);
  return name === undefined ? schema : { ...schemas[name], ...(schema.default === undefined ? {} : { default: schema.default }) };
}

/** The schema of an object that may be null; null where it is something else. */
function objectOrNothing(schema, schemas) {
  if (!schema.anyOf?.some((each) => each.type === "null")) return null;
  return schema.anyOf.map((each) => resolve(each, schemas)).find((each) => each.properties) ?? null;
}

function defaults(schema, schemas) {
  const resolved = resolve(schema, schemas);
  if (!resolved.properties) return structuredClone(resolved.default);
  const found = Object.entries(resolved.properties).map(([key, each]) => [key, defaults(each, schemas)]);
  return Object.fromEntries(found);
}

/** What differs from the defaults: a start that nobody has written must not count as written. */
function without(value, usual) {
  if (value !== null && typeof value === "object" && usual !== null && typeof usual === "object" && !Array.isArray(value)) {
    const found = Object.entries(value).map(([key, each]) => [key, without(each, usual[key])]).filter(([, each]) => each !== undefined);
    return found.length ? Object.fromEntries(found) : undefined;
  }
  return JSON.stringify(value) === JSON.stringify(usual) ? undefined : value;
}

function leaves(schema, schemas, at) {
  const resolved = resolve(schema, schemas);
  if (!resolved.properties) return [at];
  return Object.entries(resolved.properties).flatMap(([key, each]) => leaves(each, schemas, at ? `${at}.${key}` : key));
}

const within = (field, place) => field === place || field.startsWith(`${place}.`);
