// What every dialog is made of, and the one that asks for the token.

import { askWith } from "./api.js";
import { html, Trouble, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";

/** Announce a change: the page asks the service again and shows `text`. */
export function changed(text) {
  dispatchEvent(new CustomEvent("changewire:notice", { detail: text }));
  dispatchEvent(new Event("changewire:changed"));
}

/**
 * A modal dialog. `run` does the action; the dialog closes unless that throws.
 *
 * `children` may be a function of what is wrong, by field: of those in `fields`, which show it themselves.
 */
export function Dialog({ title, action, back = "Cancel", danger, run, close, fields = [], children }) {
  const dialog = useRef(null);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  useLayoutEffect(() => {
    const shown = dialog.current;
    shown.showModal();
    return () => shown.close(); // gives the focus back to where it was
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await run();
      close();
    } catch (error) {
      setProblem(error);
      setBusy(false);
    }
  };
  const cancel = (event) => {
    event.preventDefault();
    close();
  };
  useEffect(() => dialog.current.querySelector("[aria-invalid=true]")?.focus(), [problem]);
  const { wrong, others } = placed(problem, fields);
  return html`<dialog ref=${dialog} onCancel=${cancel} aria-labelledby="dialog-title">
    <article>
      <form onSubmit=${submit} novalidate>
        <h2 id="dialog-title">${title}</h2>
        ${typeof children === "function" ? children(wrong) : children}
        <${Trouble} problem=${others} />
        <footer>
          <button type="button" class="secondary" onClick=${cancel}>${back}</button>
          <button type="submit" class=${danger ? "danger" : ""} aria-busy=${busy} disabled=${busy}>${action}</button>
        </footer>
      </form>
    </article>
  </dialog>`;
}

/** What is wrong, by field; and what is to be said elsewhere, because no field is there for it. */
function placed(problem, fields) {
  const given = Object.entries(problem?.fields ?? {});
  const of = (field) => given.filter(([each]) => each === field || each.startsWith(`${field}.`)).map(([, words]) => words);
  const wrong = Object.fromEntries(fields.map((field) => [field, of(field).join("; ")]));
  const said = Object.values(wrong).filter((words) => words !== "").length > 0 && given.every(([each]) => fields.some((field) => each === field || each.startsWith(`${field}.`)));
  return { wrong, others: said ? null : problem };
}

/** What is wrong with the field of this id, which names it in its `aria-describedby`. */
export function Wrong({ id, words }) {
  return words ? html`<small class="wrong" id=${`${id}-wrong`}>${words}</small>` : null;
}

/** A text of several lines with its label, what is wrong with it, and what it is for. */
export function Entry({ id, label, help, wrong, value, change, ...rest }) {
  return html`<div class="field">
    <label for=${id}>${label}</label>
    <textarea id=${id} spellcheck=${false} aria-describedby=${wrong ? `${id}-wrong ${id}-help` : `${id}-help`} aria-invalid=${wrong ? "true" : undefined}
      value=${value} onInput=${(event) => change(event.currentTarget.value)} ...${rest}></textarea>
    <${Wrong} id=${id} words=${wrong} />
    <small id=${`${id}-help`}>${help}</small>
  </div>`;
}

/** Asks for the API token whenever the server requires one. Calls that ask at the same time share one dialog. */
export function TokenDialog() {
  const [asked, setAsked] = useState(null);
  const text = useRef("");
  useEffect(() => {
    let open = null;
    askWith((reason) => {
      open ??= new Promise((resolve) => {
        text.current = "";
        setAsked({
          reason,
          resolve: (given) => {
            open = null;
            setAsked(null);
            resolve(given);
          },
        });
      });
      return open;
    });
  }, []);
  if (asked === null) return null;
  const run = async () => {
    if (!text.current) throw new Error("no token was entered");
    asked.resolve(text.current);
  };
  return html`<${Dialog} title="API token" action="Use it" run=${run} close=${() => asked.resolve(null)}>
    <p>The server says: ${asked.reason}.</p>
    <label for="api-token">Token (CHANGEWIRE_API_TOKEN)</label>
    <input id="api-token" type="password" autocomplete="off" onInput=${(event) => (text.current = event.currentTarget.value.trim())} />
    <small>Kept in this tab only, until you close it.</small>
  <//>`;
}
