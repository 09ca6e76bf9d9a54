// Elements and numbers. Text enters the page as text alone: nothing here reads a string as HTML.

const byId = (id) => document.getElementById(id);

/** An element with properties; children are elements or text. */
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("data-") || name.startsWith("aria-") || name === "role" || name === "scope") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element of an SVG drawing. */
function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Plain decimals to so many significant digits; a dash for no number. */
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
const small = (value) => (!isNumber(value) ? "–" : value < 1e-300 ? "<1e-300" : value < 0.001 ? value.toExponential(1) : value.toFixed(3));
const yesNo = (value) => (value === true ? "yes" : value === false ? "no" : "–");

/** Text as it stands on one line: white space shown, long words cut. */
function oneLine(text, most = 200) {
  const shown = text.replace(/\n/g, "↵").replace(/\t/g, "⇥");
  return shown.length > most ? `${[...shown.slice(0, 2 * most)].slice(0, most).join("")}…` : shown;
}
