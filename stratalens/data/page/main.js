// Start: theme, address, table, card, charts.

const THEMES = ["light", "dark"];
const systemTheme = matchMedia("(prefers-color-scheme: dark)");
const theme = () => document.documentElement.dataset.theme || (systemTheme.matches ? "dark" : "light");

function showTheme() {
  const other = THEMES[1 - THEMES.indexOf(theme())];
  byId("theme").textContent = other === "dark" ? "Dark" : "Light";
  byId("theme").setAttribute("aria-label", `Change to the ${other} theme`);
  if (document.body.dataset.charts === "ready") drawCharts();
}

function startTheme() {
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = THEMES[1 - THEMES.indexOf(theme())];
    showTheme();
  });
  systemTheme.addEventListener("change", showTheme);
  window.addEventListener("beforeprint", printLight);
  showTheme();
}

/** Paper is white: colours that were drawn, not styled, are drawn anew for it, and again after it. */
function printLight() {
  const chosen = document.documentElement.dataset.theme;
  if (theme() === "light") return;
  document.documentElement.dataset.theme = "light";
  showTheme();
  const restore = () => {
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
    showTheme();
  };
  window.addEventListener("afterprint", restore, { once: true });
}

function followAddress() {
  readAddress();
  showFilters();
  drawTable();
  const row = rowOf.get(state.feature);
  if (row) openCard(row, { step: false });
  else if (byId("card").open) byId("card").close();
}

startTheme();
drawHead();
fillFilters();
followScrolling();
startCard();
followAddress();
window.addEventListener("hashchange", followAddress);
requestAnimationFrame(() => setTimeout(startCharts));
