// The chosen theme, before anything is painted; without a choice the system's.
"use strict";
const themes = ["auto", "light", "dark"];
let theme = "auto";
try {
  theme = localStorage.getItem("theme") || "auto";
} catch { /* storage may be off: the choice then lasts as long as the page */ }

function applyTheme() {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

applyTheme();
document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const name = () => { button.textContent = `Theme: ${theme}`; };
  name();
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("theme", theme); } catch { /* see above */ }
    applyTheme();
    name();
    document.dispatchEvent(new Event("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.dispatchEvent(new Event("themechange"));
  });
});
