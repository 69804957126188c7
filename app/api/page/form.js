// Adding and changing a watcher, by a form made from the schema in openapi.json: a new field of the service appears here
// by itself. The service says what is wrong, at the field that it names.

import { call, get, path } from "./api.js";
import { changed } from "./dialogs.js";
import { kind, kindOf, Tick, Ticks, Words } from "./inputs.js";
import { FIRST, labelOf, moreOf, unitOf, widthOf } from "./labels.js";
import { exact, html, link, Trouble, useEffect, useRef, useState } from "./lib.js";
import { defaults, leaves, objectOrNothing, partOf, pruned, resolve, within, without } from "./schemas.js";
import { previewed } from "./subjects.js";
import { useSuggestions } from "./suggestions.js";

const SCHEMA = "NewWatcher";

/** `name`: the watcher to change; without it one is added. `known`: all watchers, to suggest what they use as well. */
export function WatcherForm({ name, known: watchers }) {
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
  return html`${name === undefined && html`<h1 class="lead">Add a watcher</h1>`}
    <${Trouble} problem=${problem} />
    ${known && html`<${Loaded} name=${name} watchers=${watchers} ...${known} />`}`;
}

function Loaded({ name, document: openapi, watcher, watchers }) {
  const schemas = openapi.components.schemas;
  const root = schemas[SCHEMA];
  const [value, setValue] = useState(() => (name === undefined ? defaults(root, schemas) : watcher));
  const [problem, setProblem] = useState(null);
  const [fine, setFine] = useState(null);
  const [busy, setBusy] = useState(false);
  const suggestions = useSuggestions(watchers, value.source?.database);
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
      const body = name === undefined ? (without(value, defaults(root, schemas)) ?? {}) : value;
      await sent(name, body, dry);
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
    locked=${name === undefined ? [] : ["name"]} open=${false} suggestions=${suggestions}
  />`;
  return html`<form class="described" ref=${form} onSubmit=${submit} novalidate>
    ${fields}
    <${Preview} value=${value} usual=${name === undefined ? defaults(root, schemas) : null} />
    <${Elsewhere} problem=${problem} root=${root} schemas=${schemas} />
    ${fine && html`<p role="status" class="quiet">${fine}</p>`}
    ${name !== undefined && html`<p class="quiet">Saving restarts the watcher; it continues from its position.</p>`}
    <div class="actions submit">
      <button type="submit" disabled=${busy} aria-busy=${busy}>${name === undefined ? "Add" : "Save"}</button>
      <button type="button" class="secondary" disabled=${busy} onClick=${() => send(true)}>Check only</button>
      <a role="button" class="secondary" href=${name === undefined ? link.list : link.watcher(name)}>Cancel</a>
    </div>
  </form>`;
}

/** Add or change the watcher. Raises Problem, with everything that is wrong. */
async function sent(name, body, dry) {
  const send = (what, query) => (name === undefined ? call("POST", `watchers${query}`, what) : call("PUT", path(name, query), what));
  try {
    await send(body, dry ? "?dry_run=true" : "");
  } catch (problem) {
    // A value of the wrong kind is found before the others are looked at: what is left without it is tried as well.
    const wrong = Object.keys(problem.fields ?? {});
    if (problem.status === 422 && wrong.length && !wrong.some((field) => within(field, "source") || within(field, "name"))) {
      const more = await send(pruned(body, wrong), "?dry_run=true").then(() => null, (found) => found);
      problem.fields = { ...more?.fields, ...problem.fields };
    }
    throw problem;
  }
}

/** Where its messages will be, as far as that is known. */
function Preview({ value, usual }) {
  const found = previewed(value, usual);
  if (found === null) return null;
  return html`<p class="preview"><span class="quiet">It will publish to the stream</span> <strong>${found.stream}</strong> <span class="subjects">${found.subjects.map((each) => html`<code key=${each}>${each}</code>`)}</span></p>`;
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
    ${left.length ? left.map(([field, words]) => html`<div key=${field}>${labelOf(field)} ${words}</div>`) : problem.message}
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
  const leads = ([key, member]) => required.has(key) || member["x-first"] || FIRST.has(`${at}.${key}`) || members.length < 3;
  if (!at) {
    // What it is called, then each part on a card of its own, then what is about the whole.
    const part = ([, member]) => partOf(member, rest.schemas);
    // One that exists is paused and resumed by the buttons above.
    const kept = rest.locked.length ? ["name", "paused"] : ["name"];
    const about = members.filter((each) => !part(each) && !kept.includes(each[0]));
    const named = ([key]) => key === "name" && !rest.locked.includes(key);
    return html`${members.filter(named).map(draw)} ${members.filter(part).map(draw)}
      ${about.length > 0 && html`<fieldset class="part"><legend>Besides</legend>${about.map(draw)}</fieldset>`}`;
  }
  const first = members.filter(leads);
  const others = members.filter((each) => !leads(each));
  const marked = Object.keys(rest.wrong).some((field) => others.some(([key]) => within(field, `${at}.${key}`)));
  return html`<div class="row">${first.map(draw)}</div>
  ${others.length > 0 &&
  html`<details open=${open || marked}>
    <summary>${moreOf(at, first.length)}</summary>
    ${others.map(draw)}
  </details>`}`;
}

function Field({ name, path: at, schema: given, schemas, required, locked, value, change, wrong, open, ...rest }) {
  const schema = resolve(given, schemas);
  if (schema.properties) {
    return html`<fieldset class="part">
      <legend>${labelOf(at)}</legend>
      <p class="quiet"><${Words} text=${schema.description} /></p>
      <${Members} schema=${schema} schemas=${schemas} path=${at} value=${value} change=${change} wrong=${wrong} locked=${locked} open=${open} ...${rest} />
    </fieldset>`;
  }
  const id = `field-${at}`;
  const optional = objectOrNothing(schema, schemas);
  if (optional) {
    const props = { id, name, path: at, schema, optional, schemas, locked, value, change, wrong, ...rest };
    return html`<${ObjectOrNothing} ...${props} />`;
  }
  const words = Object.entries(wrong).filter(([field]) => within(field, at)).map(([, each]) => each).join("; ");
  const described = [words && `${id}-wrong`, schema.description && `${id}-help`].filter(Boolean).join(" ") || undefined;
  const Input = kind(schema);
  const unit = unitOf(at);
  const some = rest.suggestions?.[at];
  const common = { id, "aria-describedby": described, "aria-invalid": words ? "true" : undefined, disabled: locked.includes(at), class: widthOf(at, kindOf(Input)), list: some?.length ? `${id}-known` : undefined };
  const label = html`${labelOf(at)}${unit ? html` <span class="quiet">(${unit})</span>` : ""}${required ? html` <span class="quiet">(required)</span>` : ""}`;
  return html`<div class="field">
    ${Input === Ticks || Input === Tick ? null : html`<label for=${id}>${label}</label>`}
    <${Input} path=${at} schema=${schema} schemas=${schemas} label=${label} value=${value} change=${change} common=${common} required=${required} />
    ${common.list && html`<datalist id=${common.list}>${some.map((each) => html`<option key=${each} value=${each} />`)}</datalist>`}
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
  return html`<fieldset class="part">
    <legend>${labelOf(at)}</legend>
    <div class="field">
      <label><input type="checkbox" id=${id} aria-describedby=${described} aria-invalid=${words ? "true" : undefined} checked=${has} onChange=${toggle} /> <${Words} text=${optional.description} /></label>
      ${words && html`<small class="wrong" id=${`${id}-wrong`}>${words}</small>`}
      <small id=${`${id}-help`}><${Words} text=${schema.description} /></small>
    </div>
    ${has && html`<${Members} schema=${optional} schemas=${schemas} path=${at} value=${value} change=${change} wrong=${wrong} open=${false} ...${rest} />`}
  </fieldset>`;
}
