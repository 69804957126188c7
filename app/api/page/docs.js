// The page at /docs: every call of openapi.json, to be read and tried. Light or dark as the page at / has it.

const chosen = localStorage.getItem("changewire-theme");
const system = matchMedia("(prefers-color-scheme: dark)");

function paint() {
  document.documentElement.classList.toggle("dark-mode", chosen === "dark" || (chosen !== "light" && system.matches));
}

paint();
system.addEventListener("change", paint);

window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  presets: [window.SwaggerUIBundle.presets.apis],
});
