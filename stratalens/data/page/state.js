// The data of the page, which features are shown in which order, and how that is kept in the page's address.

const data = JSON.parse(byId("data").textContent);
const columnNames = Object.keys(data.features);
const rows = (data.features.feature_number || []).map((_, at) => {
  const row = { at, card: data.cards[at], hookpoint: data.places[at] };
  for (const name of columnNames) row[name] = data.features[name][at];
  row.id = `${row.hookpoint}/${row.feature_number}`;
  row.flagList = row.flags ? row.flags.split("; ") : [];
  row.passages = (row.card.examples || []).map((example) => example[1]);
  return row;
});
const rowById = new Map(rows.map((row) => [row.id, row]));
const passageText = data.passages.map(([, , tokens]) => tokens.join("").toLowerCase());

const DEFAULTS = { q: "", label: "", layer: "", flag: "", test: "", sort: "", order: "", feature: "" };
let state = { ...DEFAULTS };

function readAddress() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  state = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) if (parameters.has(name)) state[name] = parameters.get(name);
}

/** The address fragment of a view: all that differs from the default. */
function addressOf(view) {
  const kept = Object.entries(view).filter(([name, value]) => value !== DEFAULTS[name]);
  return `#${new URLSearchParams(kept)}`;
}

/** Change the state and the address; with `addHistory`, the back button undoes the change. */
function changeState(changes, { addHistory = false } = {}) {
  state = { ...state, ...changes };
  const address = addressOf(state);
  if (address === location.hash || (address === "#" && !location.hash)) return;
  if (addHistory) history.pushState(null, "", address);
  else history.replaceState(null, "", address === "#" ? location.pathname + location.search : address);
}

/** Whether a feature has the verdict of a test that a filter names, such as `transfers failed`. */
function verdictOf(row, wanted) {
  const [column, verdict] = wanted.split(" ");
  const at = data.claims.findIndex((claim) => claim.column === column);
  return row.card.passed[at] === (verdict === "passed");
}

/** The features that pass the filters, in the chosen order. */
function filteredRows() {
  const query = state.q.trim().toLowerCase();
  const label = state.label.trim().toLowerCase();
  const matches = query && passageText.map((text) => text.includes(query));
  const chosen = rows.filter(
    (row) =>
      (!state.layer || row.hookpoint === state.layer) &&
      (!state.flag || (state.flag === "none" ? !row.flagList.length : row.flagList.includes(state.flag))) &&
      (!state.test || verdictOf(row, state.test)) &&
      (!label || row.label.toLowerCase().includes(label)) &&
      (!query || row.id === query || row.label.toLowerCase().includes(query) || row.passages.some((at) => matches[at])),
  );
  const column = COLUMNS.find((one) => one.name === state.sort);
  return column ? sorted(chosen, column, state.order === "up") : chosen;
}

/** Sort by a column; features without a value come last in both directions, equal ones keep the order of the result. */
function sorted(chosen, column, ascending) {
  const key = (row) => column.key(row);
  const missing = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);
  const sign = ascending ? 1 : -1;
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const keyed = chosen.map((row) => [key(row), row]);
  keyed.sort(([a, one], [b, other]) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b) || one.at - other.at;
    const order = typeof a === "string" ? compare(a, b) : a - b;
    return sign * order || one.at - other.at;
  });
  return keyed.map(([, row]) => row);
}
