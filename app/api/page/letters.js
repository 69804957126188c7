// A watcher's dead letters: to be read, published or deleted.

import { Discard, Replay } from "./actions.js";
import { get, path } from "./api.js";
import { bytes, exact, html, number, Time, Trouble, useState } from "./lib.js";
import { Section, usePoll } from "./poll.js";

export function Letters({ name, outage }) {
  const [after, setAfter] = useState(0);
  const [dialog, setDialog] = useState(null);
  const seen = usePoll(path(name, `/dead-letters?after=${after}`));
  return html`<${Section} id="letters" title="Dead letters" seen=${seen} outage=${outage}>
    ${({ total, dead_letters, after: next }) => html`
      ${total === 0 ? html`<p class="quiet">None: every change was published.</p>` : html`<p>${number(total)} set aside, oldest first.</p>`}
      <ol class="messages">
        ${dead_letters.map((each) => html`<${Letter} key=${each.sequence} name=${name} letter=${each} open=${setDialog} />`)}
      </ol>
      <div class="actions">
        ${after > 0 && html`<button type="button" class="secondary small" onClick=${() => setAfter(0)}>From the beginning</button>`}
        ${next !== null && html`<button type="button" class="secondary small" onClick=${() => setAfter(next)}>Next</button>`}
      </div>
      ${dialog && html`<${dialog.what} name=${name} letter=${dialog.letter} close=${() => setDialog(null)} />`}
    `}
  <//>`;
}

function Letter({ name, letter, open }) {
  const [whole, setWhole] = useState(null);
  const [problem, setProblem] = useState(null);
  const toggled = async (event) => {
    if (!event.currentTarget.open || whole) return;
    try {
      setWhole(await get(path(name, `/dead-letters/${letter.sequence}`), { parse: exact }));
    } catch (error) {
      setProblem(error);
    }
  };
  return html`<li>
    <details onToggle=${toggled}>
      <summary>
        <${Time} at=${letter.time} /> <span>#${letter.sequence}</span> <code>${letter.operation}</code>
        <span>${letter.error}</span> <span class="quiet">${bytes(letter.bytes)}</span>
      </summary>
      <${Trouble} problem=${problem} />
      ${whole && html`<pre>${whole.event === null ? (whole.bson ?? "the event is too large to be shown") : JSON.stringify(whole.event, null, 2)}</pre>`}
      <div class="actions">
        <button type="button" class="small" onClick=${() => open({ what: Replay, letter })}>Publish…</button>
        <button type="button" class="small danger" onClick=${() => open({ what: Discard, letter })}>Delete…</button>
      </div>
    </details>
  </li>`;
}
