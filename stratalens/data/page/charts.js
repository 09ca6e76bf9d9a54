// The charts. Plotly interprets some HTML tags in strings, so strings of the data are escaped before it gets them.

/** Share of norm, in percent, up to which the inverse hyperbolic sine scale is nearly linear. */
const LINEAR_PERCENT = 0.1;
const ACROSS_RANKS = 10;
const FOREST_FEATURES = 25;
const escapeTags = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const asinhScaled = (value) => Math.asinh(value / LINEAR_PERCENT);
const TICKS = [-30, -10, -3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3, 10, 30];
const jitter = (at) => ((at * 0.618034) % 1) - 0.5;
const narrow = () => innerWidth < 700;
const ofLayer = (layer) => rows.filter((row) => row.hookpoint === layer);

async function loadPlotly() {
  const packed = Uint8Array.from(atob(byId("charts-library").textContent), (ch) => ch.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(el("script", { textContent: await new Response(stream).text() }));
}

function palette() {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(name).trim();
  const scale = named("--layers").split(" ");
  const colour = (layer) => scale[Math.round((data.hookpoints.indexOf(layer) / Math.max(1, data.hookpoints.length - 1)) * (scale.length - 1))];
  return { text: named("--text"), faint: named("--faint"), line: named("--line"), surface: named("--surface"), colour, scale };
}

function hover(row) {
  return [
    `<b>${row.id}</b> ${escapeTags(oneLine(row.label, 70))}`,
    `share of norm ${percent(row.normalised_specialization)}% (${between(row.normalised_low, row.normalised_high, percent)})`,
    `AUROC ${fixed(row.auroc)}, ${row.confirmed === true ? "confirmed" : row.confirmed === false ? "not confirmed" : "not tested on held-out documents"}`,
  ].join("<br>");
}

function points(own, x, y, more = {}) {
  return { type: "scatter", mode: "markers", x, y, customdata: own.map((row) => row.id), text: own.map(hover), hoverinfo: "text", ...more };
}

function marker(own, layer, colours) {
  return { size: 8, color: own.map((row) => (row.confirmed === false ? colours.surface : colours.colour(layer))), line: { width: 1.5, color: colours.colour(layer) } };
}

function layout(colours, more) {
  const axis = { gridcolor: colours.line, zerolinecolor: colours.faint, linecolor: colours.line, automargin: true };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: colours.text },
    margin: { l: 56, r: 12, t: 34, b: 44 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.faint, activecolor: colours.text },
    hoverlabel: { align: "left", bgcolor: colours.surface, bordercolor: colours.faint, font: { color: colours.text } },
    showlegend: false,
    dragmode: narrow() ? false : "zoom",
    ...more,
  };
  base.xaxis = { ...axis, ...more.xaxis };
  base.yaxis = { ...axis, ...more.yaxis };
  return base;
}

const titled = (text) => ({ title: { text, standoff: 8 } });
const legend = { showlegend: true, legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, font: { size: 11 } } };

function layersChart(colours) {
  const traces = data.hookpoints.flatMap((layer, position) => {
    const own = ofLayer(layer);
    const y = own.map((row) => asinhScaled(100 * row.normalised_specialization));
    const box = { type: "box", y, x: own.map(() => position), boxpoints: false, width: 0.7, hoverinfo: "skip", line: { color: colours.faint, width: 1.2 }, fillcolor: "rgba(0,0,0,0)" };
    return [box, points(own, own.map((_, at) => position + 0.5 * jitter(at)), y, { marker: marker(own, layer, colours) })];
  });
  const ticks = { tickvals: TICKS.map(asinhScaled), ticktext: TICKS.map(String) };
  const xaxis = { zeroline: false, tickvals: data.hookpoints.map((_, at) => at), ticktext: data.hookpoints.map(String), ...titled("layer") };
  return [traces, layout(colours, { xaxis, yaxis: { ...ticks, ...titled("share of norm, %") } })];
}

function activationsChart(colours) {
  const { background } = data;
  const positive = [...background.general, ...background.domain, ...rows.flatMap((row) => [row.general_activation, row.domain_activation])].filter((value) => value > 0);
  const floor = Math.max(1e-4, positive.length ? positive.sort((a, b) => a - b)[Math.floor(positive.length * 0.02)] : 1e-4);
  const top = Math.max(...positive, 1) * 1.3;
  const clipped = (values) => values.map((value) => Math.max(floor, value));
  const others = { type: "scatter", mode: "markers", name: "other latents", x: clipped(background.general), y: clipped(background.domain), text: background.number.map((number, at) => `latent ${background.hookpoint[at]}/${number}, not reported`), hoverinfo: "text", marker: { size: 3, color: colours.faint, opacity: 0.5 } };
  const own = data.hookpoints.map((layer) => {
    const chosen = ofLayer(layer);
    return points(chosen, clipped(chosen.map((row) => row.general_activation)), clipped(chosen.map((row) => row.domain_activation)), { name: `layer ${layer}`, marker: { ...marker(chosen, layer, colours), color: colours.colour(layer) } });
  });
  const equal = { type: "scatter", mode: "lines", x: [floor, top], y: [floor, top], line: { color: colours.faint, dash: "dash", width: 1 }, hoverinfo: "skip", showlegend: false };
  const range = [Math.log10(floor) - 0.1, Math.log10(top)];
  const log = { type: "log", range, dtick: 1 };
  return [[others, equal, ...own], layout(colours, { ...legend, xaxis: { ...log, ...titled("mean activation on general text") }, yaxis: { ...log, ...titled(`mean activation on ${data.domain} text`) } })];
}

function acrossChart(colours) {
  const ranks = Array.from({ length: ACROSS_RANKS }, (_, at) => at + 1);
  const at = (layer, rank) => rows.find((row) => row.hookpoint === layer && row.rank === rank);
  const grid = ranks.map((rank) => data.hookpoints.map((layer) => at(layer, rank)));
  const each = (show) => grid.map((line) => line.map((row) => (row ? show(row) : null)));
  const heat = { type: "heatmap", x: data.hookpoints.map((layer) => `layer ${layer}`), y: ranks.map(String), z: each((row) => asinhScaled(100 * row.normalised_specialization)), customdata: each((row) => row.id), text: each((row) => String(row.feature_number)), hovertext: each(hover), hoverinfo: "text", texttemplate: "%{text}", showscale: !narrow(), xgap: 2, ygap: 2, colorscale: colours.scale.map((colour, position) => [position / (colours.scale.length - 1), colour]), colorbar: { thickness: 10, outlinewidth: 0, tickvals: TICKS.map(asinhScaled), ticktext: TICKS.map((tick) => `${tick}%`) } };
  return [[heat], layout(colours, { yaxis: { autorange: "reversed", type: "category", ...titled("rank in its layer") }, xaxis: { type: "category" } })];
}

function densityChart(colours) {
  const { background } = data;
  const clipped = (value) => Math.max(1e-3, 100 * value);
  const density = (row) => clipped((row.domain_density + row.general_density) / 2);
  const others = { type: "scatter", mode: "markers", name: "other latents", x: background.density.map(clipped), y: background.auroc, text: background.number.map((number, at) => `latent ${background.hookpoint[at]}/${number}, not reported`), hoverinfo: "text", marker: { size: 3, color: colours.faint, opacity: 0.5 } };
  const own = data.hookpoints.map((layer) => {
    const chosen = ofLayer(layer);
    return points(chosen, chosen.map(density), chosen.map((row) => row.auroc), { name: `layer ${layer}`, marker: marker(chosen, layer, colours) });
  });
  const line = (more) => ({ type: "line", line: { color: colours.faint, width: 1, dash: "dash" }, ...more });
  const shapes = [line({ x0: 50, x1: 50, yref: "paper", y0: 0, y1: 1 }), line({ xref: "paper", x0: 0, x1: 1, y0: 0.5, y1: 0.5 })];
  return [[others, ...own], layout(colours, { ...legend, shapes, xaxis: { type: "log", tickformat: "~g", dtick: 1, ...titled("density: tokens on which it fires, %") }, yaxis: { zeroline: false, ...titled("AUROC") } })];
}

function forestChart(colours) {
  const best = rows.slice(0, FOREST_FEATURES);
  const width = narrow() ? 0 : 48;
  const traces = data.hookpoints.map((layer) => {
    const own = best.filter((row) => row.hookpoint === layer);
    const value = own.map((row) => 100 * row.normalised_specialization);
    const error = { type: "data", symmetric: false, array: own.map((row, at) => 100 * row.normalised_high - value[at]), arrayminus: own.map((row, at) => value[at] - 100 * row.normalised_low), color: colours.colour(layer), thickness: 2, width: 0 };
    return points(own, value, own.map((row) => best.indexOf(row)), { name: `layer ${layer}`, error_x: error, marker: marker(own, layer, colours) });
  });
  const label = (row) => (width ? `${escapeTags(oneLine(row.label, width))}  <b>${row.id}</b>` : row.id);
  const yaxis = { tickvals: best.map((_, at) => at), ticktext: best.map(label), range: [best.length - 0.5, -0.5], showgrid: false, zeroline: false };
  return [traces, layout(colours, { ...legend, yaxis, xaxis: { ...titled("share of norm, %"), zeroline: true } })];
}

const CHARTS = { "chart-layers": layersChart, "chart-activations": activationsChart, "chart-across": acrossChart, "chart-density": densityChart, "chart-forest": forestChart };
const CONFIG = { responsive: true, displaylogo: false, plotlyServerURL: "", modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "toImage", "zoomIn2d", "zoomOut2d"] };

/** Redraw all charts, as wide as their boxes or `width` pixels wide. */
function drawCharts(width) {
  const colours = palette();
  return Promise.all(
    Object.entries(CHARTS).map(([id, build]) => {
      const [traces, arranged] = build(colours);
      return window.Plotly.react(id, traces, width ? { ...arranged, width } : arranged, CONFIG);
    }),
  );
}

async function startCharts() {
  try {
    await loadPlotly();
    await drawCharts();
    for (const id of Object.keys(CHARTS)) byId(id).on("plotly_click", ({ points: [point] }) => openCard(rowById.get(point.customdata), { keepScroll: true }));
    document.body.dataset.charts = "ready";
  } catch (error) {
    document.body.dataset.charts = "unavailable";
    byId("charts-note").textContent = `This browser cannot draw the charts (${error.message}); static figures are in the folder of this file.`;
  }
}
