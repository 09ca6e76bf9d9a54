// Make elements, format numbers and the cells of CSV files. Strings enter the page only as text: nothing here parses a string as HTML.

const byId = (id) => document.getElementById(id);

/** Create an element with properties; children are elements or text. */
function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("data-") || name.startsWith("aria-") || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Create an element of an SVG drawing. */
function svgElement(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** A decimal without exponent, to `digits` significant digits; a dash if it is no finite number. */
function significant(value, digits = 3) {
  if (!isNumber(value)) return "–";
  if (value === 0) return "0";
  if (Math.abs(value) < 1e-6) return value < 0 ? "−<0.000001" : "<0.000001";
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: places, minimumFractionDigits: Math.min(places, 3) });
}

const fixed = (value, places = 3) => (isNumber(value) ? value.toFixed(places) : "–");
const percent = (value, digits = 3) => (isNumber(value) ? significant(100 * value, digits) : "–");
const between = (low, high, show) => (isNumber(low) && isNumber(high) ? `${show(low)} to ${show(high)}` : "–");
const probability = (value) => (!isNumber(value) ? "–" : value < 1e-300 ? "<1e-300" : value < 0.001 ? value.toExponential(1) : value.toFixed(3));
const yesNo = (value) => (value === true ? "yes" : value === false ? "no" : "–");

/** Text on one line: line ends and tabs as visible characters, cut after `maxLength` characters. */
function oneLine(text, maxLength = 200) {
  const shown = text.replace(/\n/g, "↵").replace(/\t/g, "⇥");
  return shown.length > maxLength ? `${[...shown.slice(0, 2 * maxLength)].slice(0, maxLength).join("")}…` : shown;
}

/** A value as a cell of a CSV file: without control characters, never run as a formula, quoted if needed. As `plain_cell` in report/formats.py. */
function csvCell(value, name) {
  if (value === null || value === undefined) return "";
  if (/^[pq]_value$/.test(name) && value > 0 && value < 1e-4) return value.toExponential(2).replace(/e-(\d)$/, "e-0$1");
  if (typeof value === "number") return value.toLocaleString("en", { useGrouping: false, maximumSignificantDigits: 8 });
  if (typeof value !== "string") return String(value);
  const plain = value.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "");
  const safe = /^[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\t\n]/.test(plain) ? `'${plain}` : plain;
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
