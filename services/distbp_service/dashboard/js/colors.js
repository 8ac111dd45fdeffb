// Colors of curves come from the style sheet, so that light and dark have their own.

export const SERIES = 6;

export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export const seriesColor = (index) => color(`series-${(index % SERIES) + 1}`);

/** Calls when light changes to dark or back, however it came about. */
export function onThemeChange(call, signal) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", call, { signal });
  addEventListener("theme-changed", call, { signal });
}

const NAMES = { auto: "as the system", light: "light", dark: "dark" };
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

export function themeButton(button) {
  const now = () => document.documentElement.dataset.theme ?? "auto";
  const show = () => {
    button.textContent = SIGNS[now()];
    button.setAttribute("aria-label", `Colors: ${NAMES[now()]}. Change`);
    button.title = `Colors: ${NAMES[now()]} (t)`;
  };
  button.addEventListener("click", () => {
    const next = { auto: "light", light: "dark", dark: "auto" }[now()];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("distbp.theme", next);
    } catch {
      // it holds for this page only
    }
    show();
    dispatchEvent(new Event("theme-changed"));
  });
  show();
}
