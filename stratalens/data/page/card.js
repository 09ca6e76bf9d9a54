// The card of one feature: a dialog with its statistics, evidence and examples.

const BEFORE_PEAK = 28;
const AFTER_PEAK = 20;
const sideName = (side) => (side === 0 ? data.domain : "general");
let openRow = null;
let keepScrollOnClose = false;

/** Open a card; `addHistory`: the back button closes it; `keepScroll`: closing it does not scroll to the row. */
function openCard(row, { addHistory = true, keepScroll = keepScrollOnClose } = {}) {
  if (!row) return;
  openRow = row;
  keepScrollOnClose = keepScroll;
  changeState({ feature: row.id }, { addHistory });
  byId("card-title").replaceChildren(`Layer ${row.hookpoint}, feature ${row.feature_number}: `, el("bdi", {}, oneLine(row.label)));
  byId("card-body").replaceChildren(...cardParts(row));
  hideTip();
  if (!byId("card").open) byId("card").showModal();
  byId("card").scrollTop = 0;
  byId("card-title").focus({ preventScroll: true });
  const at = shown.indexOf(row);
  byId("card-previous").disabled = at <= 0;
  byId("card-next").disabled = at < 0 ? shown.length === 0 : at === shown.length - 1;
}

function stepCard(by) {
  const at = shown.indexOf(openRow);
  const next = at < 0 ? shown[0] : shown[at + by];
  if (next) openCard(next, { addHistory: false });
}

function onCardClosed() {
  const row = openRow;
  const keepScroll = keepScrollOnClose;
  openRow = null;
  keepScrollOnClose = false;
  changeState({ feature: "" });
  if (!row) return;
  while (drawnRows < shown.length && shown.indexOf(row) >= drawnRows) appendRows(BATCH);
  document.querySelector(`tr[data-feature="${row.id}"] a`)?.focus({ preventScroll: keepScroll });
}

function cardParts(row) {
  const card = row.card;
  return [
    summary(row),
    el("div", { className: "columns" }, statistics(row), histogram(row)),
    partsOfText(card),
    validations(card),
    listed("card-token-test", "Its tokens alone", card.tokenTest),
    listed("card-effects", "The model without it", card.effectLines),
    card.examples ? words(row) : el("p", { className: "note" }, "There is no evidence on this feature yet: run stratalens label RESULT_DIR."),
    neighboursOf(row),
    ...(card.examples ? examples(row) : []),
  ].filter(Boolean);
}

function summary(row) {
  const lines = [];
  lines.push(el("p", { id: "card-claims" }, row.card.passed.some((passed) => passed !== null) ? badges(row) : "Put to no test: there were too few documents to hold any out."));
  lines.push(el("p", {}, `Rank ${row.rank} in its layer, ${row.at + 1} of ${rows.length} across layers.`));
  const source = row.label_source === "evidence" ? "Label from the evidence" : `Label by ${row.label_source}`;
  const scored = isNumber(row.detection_auroc)
    ? `: predicts which passages fire the feature with AUROC ${fixed(row.detection_auroc, 2)} (${between(row.detection_low, row.detection_high, (v) => fixed(v, 2))}) on ${row.detection_examples} passages that were not used to make it, judged by ${row.label_judge}; the label of another feature reaches ${fixed(row.control_auroc, 2)}.`
    : ": not scored.";
  lines.push(el("p", { dir: "auto" }, source, scored, isNumber(row.fuzzing_auroc) ? ` Fuzzing AUROC ${fixed(row.fuzzing_auroc, 2)}.` : "", row.label_note ? ` ${oneLine(row.label_note, 400)}` : ""));
  if (row.flagList.length) lines.push(el("ul", { className: "flags" }, ...row.flagList.map((flag) => el("li", {}, el("strong", {}, flag.replaceAll("_", " ")), `: ${data.flags[flag] || flag}`))));
  return el("div", { className: "summary" }, ...lines);
}

function statistics(row) {
  const line = (name, value, full, low, high, show) => {
    const interval = show ? between(low, high, show) : "";
    return el("tr", {}, el("th", { scope: "row" }, name), el("td", { className: "number", title: full ?? "" }, value), el("td", { className: "number", title: show ? between(low, high, String) : "" }, interval));
  };
  const head = el("tr", {}, el("th", { scope: "col" }, "Statistic"), el("th", { scope: "col", className: "number" }, "Value"), el("th", { scope: "col", className: "number" }, "95% interval"));
  const lines = [
    line("Share of norm, %", percent(row.normalised_specialization), 100 * row.normalised_specialization, 100 * row.normalised_low, 100 * row.normalised_high, significant),
    line("Specialization", significant(row.specialization), row.specialization, row.specialization_low, row.specialization_high, significant),
    line(`Mean activation, ${data.domain}`, significant(row.domain_activation), row.domain_activation),
    line("Mean activation, general", significant(row.general_activation), row.general_activation),
    line("AUROC of documents", fixed(row.auroc), row.auroc, row.auroc_low, row.auroc_high, fixed),
    ...(data.kindsOfText > 1 ? [line("AUROC without regard to kinds", fixed(row.pooled_auroc), row.pooled_auroc)] : []),
    ...(isNumber(row.transfer_rank) ? [line("Transfer rank", row.transfer_rank)] : []),
    line("Hedges' g", significant(row.hedges_g), row.hedges_g),
    line(`${data.domain} share`, fixed(row.domain_share), row.domain_share),
    line("q-value (p-value)", `${probability(row.q_value)} (${probability(row.p_value)})`, `${row.q_value} (${row.p_value})`),
    line(`Density on ${data.domain} tokens, %`, percent(row.domain_density), 100 * row.domain_density),
    line("Density on general tokens, %", percent(row.general_density), 100 * row.general_density),
    line("Specialization, discovery half", significant(row.discovery_specialization), row.discovery_specialization),
    ...(isNumber(row.top_n_probability) ? [line("Selected again, % of redraws", percent(row.top_n_probability), 100 * row.top_n_probability)] : []),
    ...(isNumber(row.lexicon_share_input) ? [line("Activation on lexicon terms, %", percent(row.lexicon_share_input), 100 * row.lexicon_share_input)] : []),
    ...(isNumber(row.lexicon_share_output) ? [line("Activation just before them, %", percent(row.lexicon_share_output), 100 * row.lexicon_share_output)] : []),
    ...(row.card.effect ? [line("Loss without it, domain less general, nats a token", significant(row.card.effect[1]), row.card.effect[1], row.card.effect[2], row.card.effect[3], significant)] : []),
    ...(isNumber(row.attribution) ? [line("The same by attribution", significant(row.attribution), row.attribution)] : []),
    ...(isNumber(row.seed_match) ? [line("Best cosine in an SAE of another seed", fixed(row.seed_match), row.seed_match)] : []),
  ];
  return el("table", { id: "card-statistics" }, el("caption", {}, "Statistics"), el("thead", {}, head), el("tbody", {}, ...lines));
}

/** AUROC within each kind of text and for each source, if there are several. */
function partsOfText(card) {
  const table = (id, title, first, parts) => {
    if (!parts?.length) return null;
    const head = [first, "AUROC", "95% interval", `${data.domain} documents`, "general documents"];
    const lines = parts.map(([name, side, auroc, low, high, domain, general]) =>
      el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, oneLine(name)), side ? ` (${side === "domain" ? data.domain : side})` : ""),
        ...[fixed(auroc), between(low, high, fixed), domain, general].map((value) => el("td", { className: "number" }, value))));
    return wide(title, el("table", { id }, el("caption", {}, title), el("thead", {}, el("tr", {}, ...head.map((name, at) => el("th", { scope: "col", className: at ? "number" : "" }, name)))), el("tbody", {}, ...lines)));
  };
  const tables = [
    table("card-kinds", "AUROC by kind of text", "Kind", card.kinds),
    table("card-sources", "AUROC by source, against the other side's documents of the same kinds", "Source", card.sources),
  ].filter(Boolean);
  return tables.length ? el("div", { className: "columns" }, ...tables) : null;
}

/** How the feature does on other texts. */
function validations(card) {
  if (!card.validations) return null;
  const head = ["Text", "Transfers", "Effect", "AUROC", "95% interval", "q-value"];
  const lines = card.validations.map(([name, transfers, effect, auroc, low, high, q]) => {
    const values = transfers === null ? ["not tested", "–", "–", "–", "–"] : [yesNo(transfers), significant(effect), fixed(auroc), between(low, high, fixed), probability(q)];
    return el("tr", {}, el("th", { scope: "row" }, name), ...values.map((value) => el("td", { className: "number" }, value)));
  });
  const title = el("caption", {}, "On other texts", el("span", {}, " transfers: same sign, q < 0.05, AUROC above 0.6 and its interval above 0.5"));
  return wide("On other texts", el("table", { id: "card-validations" }, title, el("thead", {}, el("tr", {}, ...head.map((name, at) => el("th", { scope: "col", className: at ? "number" : "" }, name)))), el("tbody", {}, ...lines)));
}

/** Lines on the token test, or on what removing the feature does. */
function listed(id, title, lines) {
  if (!lines?.length) return null;
  return el("section", {}, el("h3", {}, title), el("ul", { id, className: "note listed" }, ...lines.map((line) => el("li", { dir: "auto" }, oneLine(line, 2000)))));
}

/** A table that scrolls by itself where the card is narrower. */
function wide(title, table) {
  return el("div", { className: "wide", role: "region", "aria-label": title, tabIndex: 0 }, table);
}

const SVG = { width: 460, height: 232, left: 44, right: 10, top: 10, bottom: 44 };

/** Histogram of passages by mean activation: domain passages upwards, general ones downwards. */
function histogram(row) {
  const { low, binsPerDecade } = data.histogram;
  const sides = row.card.histogram.map(([silent, fired]) => {
    const total = silent + fired.reduce((sum, n) => sum + n, 0);
    return { silent: total ? silent / total : 0, fired: fired.map((n) => (total ? n / total : 0)), total };
  });
  const used = sides[0].fired.map((_, at) => at).filter((at) => sides.some((side) => side.fired[at] > 0));
  const figure = el("figure", { id: "card-histogram" });
  const description = sides.map((side, at) => `silent in ${percent(side.silent, 2)}% of ${side.total.toLocaleString("en")} ${sideName(at)} passages`).join(", ");
  figure.append(el("figcaption", {}, "Passages by mean activation ", el("span", {}, description)));
  if (!used.length) return figure;
  const first = Math.floor(used[0] / binsPerDecade) * binsPerDecade;
  const last = Math.ceil((used.at(-1) + 1) / binsPerDecade) * binsPerDecade;
  const highestShare = Math.max(...sides.flatMap((side) => side.fired));
  const middle = SVG.top + (SVG.height - SVG.top - SVG.bottom) / 2;
  const scale = (middle - SVG.top) / highestShare;
  const step = (SVG.width - SVG.left - SVG.right) / (last - first);
  const svg = svgElement("svg", { viewBox: `0 0 ${SVG.width} ${SVG.height}`, role: "img", "aria-label": `Histogram of passages by mean activation: ${description}` });
  sides.forEach((side, at) => {
    for (let bin = first; bin < last; bin++) {
      const height = side.fired[bin] * scale;
      if (!height) continue;
      const from = low * 10 ** (bin / binsPerDecade);
      const bar = svgElement("rect", { class: at === 0 ? "domain" : "general", x: SVG.left + (bin - first) * step + 0.5, width: Math.max(1, step - 1), y: at === 0 ? middle - height : middle, height });
      bar.append(svgElement("title", {}, `${percent(side.fired[bin], 2)}% of ${sideName(at)} passages at ${significant(from, 2)} to ${significant(from * 10 ** (1 / binsPerDecade), 2)}`));
      svg.append(bar);
    }
    const y = at === 0 ? SVG.top + 4 : 2 * middle - SVG.top;
    svg.append(svgElement("text", { x: SVG.left - 6, y: y + 4, "text-anchor": "end" }, `${percent(highestShare, 2)}%`));
    svg.append(svgElement("text", { x: SVG.width - SVG.right, y: y + 4, "text-anchor": "end", class: `side ${at === 0 ? "domain" : "general"}` }, sideName(at)));
  });
  svg.append(svgElement("line", { x1: SVG.left, x2: SVG.width - SVG.right, y1: middle, y2: middle, class: "axis" }));
  for (let bin = first; bin <= last; bin += binsPerDecade) {
    const x = SVG.left + (bin - first) * step;
    svg.append(svgElement("text", { x, y: SVG.height - SVG.bottom + 20, "text-anchor": "middle" }, significant(low * 10 ** (bin / binsPerDecade), 1)));
  }
  svg.append(svgElement("text", { x: (SVG.left + SVG.width) / 2, y: SVG.height - 6, "text-anchor": "middle" }, "mean activation over the passage (logarithmic)"));
  figure.append(svg);
  return figure;
}

function words(row) {
  const { tokens, concepts, phrases, promoted, suppressed } = row.card;
  const item = ([text, value, more], show, title) => el("li", { title: title(value, more) }, el("bdi", { className: "piece" }, oneLine(text, 60)), ` ${show(value, more)}`);
  const list = (name, entries, show, title, note) =>
    entries && entries.length ? el("section", {}, el("h3", {}, name, el("span", {}, note)), el("ul", { className: "pieces" }, ...entries.map((entry) => item(entry, show, title)))) : null;
  const firesOn = (value, background) => `${percent(value, 2)}%${background > 0 ? `, ×${significant(value / background, 2)}` : ""}`;
  const logit = (value, more) => `${value} standard deviations; logit ${more}`;
  return el(
    "div",
    { className: "words" },
    list("Fires on", tokens, firesOn, (value, background) => `${100 * value}% of its activation, ${100 * background}% of all tokens`, "tokens by share of the feature's activation; ×: how many times their share of all tokens"),
    list("Concepts", concepts, (value) => fixed(value, 2), (value) => `lower bound of AUROC by sentence: ${value}`, "lower bound of AUROC by sentence"),
    list("Phrases", phrases, (value) => fixed(value, 2), (value) => `lower bound of AUROC by sentence: ${value}`, "lower bound of AUROC by sentence"),
    list("Promotes next", promoted, (value) => fixed(value, 2), logit, "tokens whose logit it raises most compared with other latents, in standard deviations"),
    list("Suppresses next", suppressed, (value) => fixed(value, 2), logit, "tokens whose logit it lowers most, in the same units"),
  );
}

function neighboursOf(row) {
  if (!row.card.neighbours.length) return null;
  const items = row.card.neighbours.map(([layer, feature, correlation]) => {
    const other = rowById.get(`${layer}/${feature}`);
    return el("li", {}, el("a", { href: addressOf({ ...state, feature: other.id }) }, `${other.id} `, el("bdi", {}, oneLine(other.label, 80))), ` r = ${fixed(correlation, 2)}`);
  });
  const note = "the reported feature of each other layer whose values per document correlate best, within each side";
  return el("section", { id: "card-neighbours" }, el("h3", {}, "In other layers", el("span", {}, note)), el("ul", {}, ...items));
}

function examples(row) {
  const all = row.card.examples;
  if (!all.length) return [el("p", { className: "note" }, "This result was made without examples, so no text is shown.")];
  const highest = Math.max(...all.flatMap(([, , fired]) => fired.filter((_, at) => at % 2 === 1)), 0);
  const parts = [];
  for (const [kind, title] of Object.entries(data.kinds)) {
    const sides = [0, 1].map((side) => all.filter((one) => one[0] === kind && data.passages[one[1]][0] === side));
    if (!sides.some((own) => own.length)) continue;
    const columns = sides.map((own, side) => (own.length ? el("div", { className: "side" }, el("h4", { className: side === 0 ? "domain" : "general" }, `${sideName(side)} text`), ...own.map((one) => example(one, highest))) : null));
    parts.push(el("section", {}, el("h3", {}, title), el("div", { className: "sides" }, ...columns.filter(Boolean))));
  }
  return [el("div", { id: "card-examples" }, ...parts)];
}

function example([, passage, fired], highest) {
  const [, half, tokens] = data.passages[passage];
  const activations = new Map();
  for (let at = 0; at < fired.length; at += 2) activations.set(fired[at], fired[at + 1]);
  let peak = 0;
  for (const [at, value] of activations) if (value > (activations.get(peak) ?? -1)) peak = at;
  const whole = () => tokens.map((token, at) => tokenSpan(token, activations.get(at) ?? 0, highest));
  const [start, stop] = [Math.max(0, peak - BEFORE_PEAK), Math.min(tokens.length, peak + AFTER_PEAK)];
  const strongest = activations.size ? `max ${significant(activations.get(peak))} on “${oneLine(tokens[peak].trim() || "white space", 30)}”` : "silent";
  const text = el("p", { className: "passage", dir: "auto" }, ...(start ? ["…"] : []), ...whole().slice(start, stop), ...(stop < tokens.length ? ["…"] : []));
  const head = el("p", { className: "example-head" }, el("bdi", {}, strongest), data.split ? `, ${half ? "confirmation" : "discovery"} half` : "");
  if (start || stop < tokens.length) {
    const more = el("button", { type: "button", className: "plain", "aria-expanded": "false" }, "whole passage");
    more.addEventListener("click", () => {
      text.replaceChildren(...whole());
      more.remove();
    });
    head.append(more);
  }
  return el("div", { className: "example" }, head, text);
}

function tokenSpan(token, activation, highest) {
  const span = el("span", { className: "token", "data-activation": activation }, token.replace(/\n/g, "↵\n"));
  if (activation > 0) {
    span.classList.add("fires");
    span.style.setProperty("--heat", (0.12 + 0.88 * (activation / highest)).toFixed(3));
  }
  return span;
}

function showTip(span) {
  const tip = byId("tip");
  tip.textContent = `${oneLine(span.textContent.trim(), 40)}: ${significant(Number(span.dataset.activation), 4)}`;
  tip.hidden = false;
  const box = span.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left), innerWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 6;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 8 ? above : box.bottom + 6}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}

function startCard() {
  const card = byId("card");
  const onToken = (event) => {
    const span = event.target.closest?.(".token.fires");
    if (span) showTip(span);
    else hideTip();
  };
  for (const kind of ["pointerover", "click"]) byId("card-body").addEventListener(kind, onToken);
  byId("card-body").addEventListener("pointerleave", hideTip);
  card.addEventListener("scroll", hideTip, { passive: true });
  card.addEventListener("close", onCardClosed);
  card.addEventListener("click", (event) => event.target === card && card.close());
  byId("card-close").addEventListener("click", () => card.close());
  byId("card-next").addEventListener("click", () => stepCard(1));
  byId("card-previous").addEventListener("click", () => stepCard(-1));
  card.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowRight" || event.key === "j") stepCard(1);
    else if (event.key === "ArrowLeft" || event.key === "k") stepCard(-1);
    else return;
    event.preventDefault();
  });
}
