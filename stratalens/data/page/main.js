// Start the page: theme, table, filters, card, charts, and the view that the address asks for.

const THEMES = ["light", "dark"];
const PAPER_PIXELS = 660;
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
  window.addEventListener("beforeprint", drawForPaper);
  showTheme();
}

/** Paper is white and narrow, and charts do not follow style sheets: redraw them before and after printing. */
function drawForPaper() {
  const chosen = document.documentElement.dataset.theme;
  const draw = (width) => document.body.dataset.charts === "ready" && drawCharts(width);
  document.documentElement.dataset.theme = "light";
  draw(PAPER_PIXELS);
  const restore = () => {
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
    draw();
  };
  window.addEventListener("afterprint", restore, { once: true });
}

function followAddress() {
  readAddress();
  showFilters();
  drawTable();
  const row = rowById.get(state.feature);
  if (row) openCard(row, { addHistory: false });
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
