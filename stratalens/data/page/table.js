// The table of features.

/** Rows that are added to the table at a time, as the reader scrolls. */
const BATCH = 100;
const COLUMNS = [
  { name: "layer", title: "Layer", number: true, key: (row) => data.hookpoints.indexOf(row.hookpoint), show: (row) => row.hookpoint },
  { name: "feature", title: "Feature", number: true, key: (row) => row.feature_number, show: (row) => row.feature_number },
  { name: "rank", title: "Rank", hint: "Rank in its layer", number: true, less: true, key: (row) => row.rank, show: (row) => row.rank },
  { name: "label", title: "Label", key: (row) => row.label, show: (row) => oneLine(row.label) },
  { name: "claims", title: "Tests", hint: "Which tests it was put to; sorted by how many it passed", number: true, key: (row) => row.card.passed.filter((passed) => passed === true).length, show: badges },
  { name: "normalised", title: "Share of norm, %", hint: "Specialization as a share of the mean norm at the hookpoint", number: true, key: (row) => row.normalised_specialization, full: (row) => 100 * row.normalised_specialization, show: (row) => percent(row.normalised_specialization) },
  { name: "interval", title: "95% interval", hint: "Of the share of norm; sorted by its lower limit", number: true, less: true, key: (row) => row.normalised_low, full: (row) => between(100 * row.normalised_low, 100 * row.normalised_high, String), show: (row) => between(row.normalised_low, row.normalised_high, percent) },
  { name: "specialization", title: "Specialization", hint: `Mean activation on ${data.domain} text minus that on general text`, number: true, less: true, key: (row) => row.specialization, full: (row) => row.specialization, show: (row) => significant(row.specialization) },
  { name: "domain", title: `Act. ${data.domain}`, hint: `Mean activation on ${data.domain} text`, number: true, less: true, key: (row) => row.domain_activation, full: (row) => row.domain_activation, show: (row) => significant(row.domain_activation) },
  { name: "general", title: "Act. general", hint: "Mean activation on general text", number: true, less: true, key: (row) => row.general_activation, full: (row) => row.general_activation, show: (row) => significant(row.general_activation) },
  { name: "auroc", title: "AUROC", hint: `How well this feature distinguishes ${data.domain} from general documents`, number: true, key: (row) => row.auroc, full: (row) => `${row.auroc}, 95% interval ${between(row.auroc_low, row.auroc_high, String)}`, show: (row) => fixed(row.auroc) },
  { name: "transfer", title: "Transfer rank", hint: "Place among all live latents of its layer by the order that carries over best to other text, on the half that selects", number: true, less: true, key: (row) => row.transfer_rank, full: (row) => row.transfer_rank, show: (row) => row.transfer_rank ?? "–" },
  { name: "score", title: "Domain score", hint: `AUROC times the ${data.domain} share of its activation`, number: true, less: true, key: (row) => row.domain_score, full: (row) => row.domain_score, show: (row) => fixed(row.domain_score) },
  { name: "q", title: "q-value", hint: "Benjamini-Hochberg over all reported features", number: true, less: true, key: (row) => row.q_value, full: (row) => row.q_value, show: (row) => probability(row.q_value) },
  { name: "detection", title: "Label AUROC", hint: "How well the label predicts which passages fire the feature, on text that was not used to make it", number: true, less: true, key: (row) => row.detection_auroc, full: (row) => row.detection_auroc, show: (row) => fixed(row.detection_auroc, 2) },
  ...(data.effects
    ? [{ name: "effect", title: "Loss without it, nats", hint: `Next-token loss when it is removed: change on ${data.domain} text less that on general text, nats a token`, number: true, less: true, key: (row) => row.card.effect?.[1], full: (row) => (row.card.effect ? `${row.card.effect[1]}, 95% interval ${between(row.card.effect[2], row.card.effect[3], String)}` : "not removed by itself"), show: (row) => significant(row.card.effect?.[1], 2) }]
    : []),
  { name: "flags", title: "Flags", less: true, key: (row) => row.flags, show: (row) => row.flagList.map((flag) => flag.replaceAll("_", " ")).join(", ") },
];
/** A badge for each test that a feature was put to. */
function badges(row) {
  const own = data.claims.map((claim, at) => {
    const passed = row.card.passed[at];
    if (passed === null) return null;
    const told = { transfers: `transfers ${row.transfers}`, token_test: passed ? claim.title : row.token_test, causal: passed ? claim.title : row.effect }[claim.column] ?? claim.title;
    return el("span", { className: `badge ${passed ? "passed" : "failed"}`, title: `${passed ? "passed" : "failed"}: ${claim.says}` }, told);
  });
  return el("span", { className: "badges" }, ...own.filter(Boolean));
}

const classes = (column) => [column.number && column.name !== "claims" && "number", column.less && "less", column.name === "label" && "label"].filter(Boolean).join(" ");

let shown = [];
let drawnRows = 0;

function drawHead() {
  const cells = COLUMNS.map((column) => {
    const button = el("button", { type: "button", "data-sort": column.name, title: column.hint || "" }, column.title);
    button.addEventListener("click", () => {
      const again = state.sort === column.name;
      const first = column.number && !["layer", "feature", "rank", "transfer", "q"].includes(column.name) ? "" : "up";
      changeState({ sort: column.name, order: again ? (state.order === "up" ? "" : "up") : first });
      drawTable();
    });
    return el("th", { scope: "col", className: classes(column) }, button);
  });
  byId("feature-table").tHead.replaceChildren(el("tr", {}, ...cells));
}

function tableRow(row) {
  const cells = COLUMNS.map((column) => {
    const cell = el("td", { className: classes(column) });
    if (column.full) cell.title = String(column.full(row));
    if (column.name === "label") {
      cell.append(el("a", { href: addressOf({ ...state, feature: row.id }), dir: "auto" }, column.show(row)));
      if (row.label.length > 200) cell.title = row.label.slice(0, 2000);
    } else {
      const shown = column.show(row);
      cell.append(shown instanceof Node ? shown : String(shown));
    }
    return cell;
  });
  const tr = el("tr", { "data-feature": row.id }, ...cells);
  return tr;
}

function appendRows(count) {
  const batch = document.createDocumentFragment();
  const until = Math.min(shown.length, drawnRows + count);
  for (; drawnRows < until; drawnRows++) batch.append(tableRow(shown[drawnRows]));
  byId("feature-table").tBodies[0].append(batch);
}

function drawTable() {
  shown = filteredRows();
  drawnRows = 0;
  byId("feature-table").tBodies[0].replaceChildren();
  appendRows(BATCH);
  byId("table-scroll").scrollTop = 0;
  byId("shown-count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} ${rows.length === 1 ? "feature" : "features"}`;
  byId("feature-table").classList.toggle("empty", shown.length === 0);
  for (const button of document.querySelectorAll("#feature-table [data-sort]")) {
    const direction = state.sort === button.dataset.sort ? (state.order === "up" ? "ascending" : "descending") : "none";
    button.parentElement.setAttribute("aria-sort", direction);
  }
}

function followScrolling() {
  const scroll = byId("table-scroll");
  const near = () => {
    if (drawnRows < shown.length && scroll.scrollTop + scroll.clientHeight > scroll.scrollHeight - 600) appendRows(BATCH);
  };
  scroll.addEventListener("scroll", near, { passive: true });
  window.addEventListener("beforeprint", () => appendRows(shown.length));
}

const FILTERS = { q: "search", label: "filter-label", layer: "filter-layer", flag: "filter-flag", test: "filter-test" };

function fillFilters() {
  const option = (value, text) => el("option", { value }, text);
  const flags = [...new Set(rows.flatMap((row) => row.flagList))].sort();
  byId("filter-layer").replaceChildren(option("", "all"), ...data.hookpoints.map((layer) => option(layer, layer)));
  byId("filter-flag").replaceChildren(option("", "all"), option("none", "no flag"), ...flags.map((flag) => option(flag, flag.replaceAll("_", " "))));
  const verdicts = data.claims.filter((claim) => claim.tested).flatMap((claim) => ["passed", "failed"].map((verdict) => option(`${claim.column} ${verdict}`, `${claim.title}: ${verdict}`)));
  byId("filter-test").replaceChildren(option("", "all"), ...verdicts);
  for (const [name, id] of Object.entries(FILTERS)) {
    byId(id).addEventListener("input", () => {
      changeState({ [name]: byId(id).value });
      drawTable();
    });
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => {
    changeState(Object.fromEntries(Object.keys(FILTERS).map((name) => [name, ""])));
    setTimeout(drawTable);
  });
  byId("download-csv").addEventListener("click", downloadCsv);
}

function showFilters() {
  for (const [name, id] of Object.entries(FILTERS)) byId(id).value = state[name];
}

function downloadCsv() {
  const published = (name) => (/^domain_(activation|firing_rate|density|max_activation)$/.test(name) ? name.replace("domain", data.domain) : name);
  const head = columnNames.map((name) => csvCell(published(name))).join(",");
  const lines = shown.map((row) => columnNames.map((name) => csvCell(row[name], name)).join(","));
  const text = [head, ...lines].join("\n");
  const address = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" }));
  el("a", { href: address, download: "features.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
