// A button that opens a menu of actions, by mouse and by keyboard.

import { html, useLayoutEffect, useRef, useState } from "./lib.js";

/** `items`: each with `words` and either `href` or `run`; `danger` marks what cannot be undone. False ones are left out. */
export function Menu({ label, items }) {
  // 0 where it is closed. Each opening has a number: what is heard of an earlier one comes late and changes nothing.
  const [open, setOpen] = useState(0);
  const openings = useRef(0);
  const button = useRef(null);
  const menu = useRef(null);

  useLayoutEffect(() => {
    if (!open) return undefined;
    const shown = menu.current;
    const from = [scrollX, scrollY]; // an event may still come of a scroll before: giving the focus back is one
    const hide = () => {
      if (shown.isConnected && (scrollX !== from[0] || scrollY !== from[1])) shown.hidePopover();
    };
    shown.showPopover(); // closes with Escape and a click elsewhere, and gives the focus back, by itself
    const place = button.current.getBoundingClientRect();
    const { width, height } = shown.getBoundingClientRect();
    shown.style.left = `${Math.max(8, Math.min(place.right - width, innerWidth - width - 8))}px`;
    shown.style.top = `${place.bottom + height + 8 > innerHeight ? Math.max(8, place.top - height - 4) : place.bottom + 4}px`;
    shown.firstElementChild.focus({ preventScroll: true });
    addEventListener("scroll", hide, { passive: true });
    return () => removeEventListener("scroll", hide);
  }, [open]);

  const toggled = (event) => event.newState === "closed" && setOpen((now) => (now === open ? 0 : now));
  const key = (event) => {
    const all = [...menu.current.children];
    const at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1 + all.length, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Tab") menu.current.hidePopover();
    if (to === undefined) return;
    event.preventDefault();
    all[to % all.length].focus();
  };
  const chosen = (run) => () => {
    menu.current.hidePopover(); // first, so that a dialog gives the focus back to the button
    run?.();
  };
  return html`<button type="button" class="icon" ref=${button} aria-label=${label} title=${label} aria-haspopup="menu" aria-expanded=${open > 0} onClick=${() => setOpen(++openings.current)}>
      <svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="3" cy="8" r="1.5" /><circle cx="8" cy="8" r="1.5" /><circle cx="13" cy="8" r="1.5" /></svg>
    </button>
    ${open > 0 &&
    html`<div class="menu" key=${open} role="menu" aria-label=${label} popover="auto" ref=${menu} onToggle=${toggled} onKeyDown=${key}>
      ${items.filter(Boolean).map(({ words, href, run, danger }) =>
        href
          ? html`<a key=${words} role="menuitem" tabindex="-1" href=${href} onClick=${chosen()}>${words}</a>`
          : html`<button key=${words} type="button" role="menuitem" tabindex="-1" class=${danger ? "danger" : ""} onClick=${chosen(run)}>${words}</button>`,
      )}
    </div>`}`;
}
