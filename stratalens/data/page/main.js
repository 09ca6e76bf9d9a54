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
  showTheme();
}

function followAddress() {
  readAddress();
  showFilters();
  drawTable();
  const row = rowOf.get(state.feature);
  if (row) openCard(row, false);
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
