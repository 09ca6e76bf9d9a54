// What the page knows, which features are shown in which order, and how that stands in the address.

const data = JSON.parse(byId("data").textContent);
const names = Object.keys(data.features);
const rows = (data.features.feature_number || []).map((_, at) => {
  const row = { at, card: data.cards[at] };
  for (const name of names) row[name] = data.features[name][at];
  row.id = `${row.layer}/${row.feature_number}`;
  row.flagList = row.flags ? row.flags.split("; ") : [];
  row.passages = (row.card.examples || []).map((example) => example[1]);
  return row;
});
const rowOf = new Map(rows.map((row) => [row.id, row]));
const passageText = data.passages.map(([, , tokens]) => tokens.join("").toLowerCase());

const DEFAULTS = { q: "", label: "", layer: "", flag: "", confirmed: "", sort: "", order: "", feature: "" };
let state = { ...DEFAULTS };

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) if (given.has(name)) state[name] = given.get(name);
}

/** The fragment of a state: what differs from the default. */
function addressOf(wanted) {
  const kept = Object.entries(wanted).filter(([name, value]) => value !== DEFAULTS[name]);
  return `#${new URLSearchParams(kept)}`;
}

/** Take a change over into the address; a step that the back button undoes where a card opens or closes. */
function change(changes, step = false) {
  state = { ...state, ...changes };
  const address = addressOf(state);
  if (address === location.hash || (address === "#" && !location.hash)) return;
  if (step) history.pushState(null, "", address);
  else history.replaceState(null, "", address === "#" ? location.pathname + location.search : address);
}

/** The features that pass the filters, in the chosen order. */
function shownRows() {
  const query = state.q.trim().toLowerCase();
  const label = state.label.trim().toLowerCase();
  const holds = query && passageText.map((text) => text.includes(query));
  const chosen = rows.filter(
    (row) =>
      (!state.layer || String(row.layer) === state.layer) &&
      (!state.flag || (state.flag === "none" ? !row.flagList.length : row.flagList.includes(state.flag))) &&
      (!state.confirmed || yesNo(row.confirmed) === state.confirmed) &&
      (!label || row.label.toLowerCase().includes(label)) &&
      (!query || row.id === query || row.label.toLowerCase().includes(query) || row.passages.some((at) => holds[at])),
  );
  const column = COLUMNS.find((one) => one.name === state.sort);
  return column ? sorted(chosen, column, state.order === "up") : chosen;
}

/** Ordered by a column; features without a value stand last either way, equals keep the order of the result. */
function sorted(chosen, column, rising) {
  const key = (row) => column.key(row);
  const missing = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);
  const sign = rising ? 1 : -1;
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const keyed = chosen.map((row) => [key(row), row]);
  keyed.sort(([a, one], [b, other]) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b) || one.at - other.at;
    const order = typeof a === "string" ? compare(a, b) : a - b;
    return sign * order || one.at - other.at;
  });
  return keyed.map(([, row]) => row);
}
