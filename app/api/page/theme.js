// Light, dark, or as the system has it; remembered by this browser.

import { html, useState } from "./lib.js";

const KEY = "changewire-theme";

function apply(theme) {
  if (theme === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
  dispatchEvent(new Event("changewire:theme"));
}

const known = () => (["light", "dark"].includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "system");

apply(known());

export function Theme() {
  const [theme, setTheme] = useState(known());
  const choose = (event) => {
    localStorage.setItem(KEY, event.currentTarget.value);
    setTheme(event.currentTarget.value);
    apply(event.currentTarget.value);
  };
  return html`<select aria-label="Colours" value=${theme} onChange=${choose}>
    <option value="system">System</option>
    <option value="light">Light</option>
    <option value="dark">Dark</option>
  </select>`;
}
