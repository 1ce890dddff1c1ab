// Elements and text. Text only ever becomes text: nothing here, and nothing that uses it, sets HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a child that is no node becomes text, null is left out. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

export const find = (id) => document.getElementById(id);

/** Sets the text of an element if it differs: screen readers announce every change. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Rows of a table's body; `columns` are {label, head, kind, cell}, the first one heads its row. */
export function rows(body, columns, items) {
  body.replaceChildren(...items.map((item) => {
    const row = el("tr", item.rowClass ? { class: item.rowClass } : {});
    columns.forEach((column, at) => {
      const tag = at === 0 ? "th" : "td";
      const scope = at === 0 ? { scope: "row" } : { "data-label": column.label };
      row.append(el(tag, { ...scope, class: column.kind }, column.cell(item)));
    });
    return row;
  }));
}

/** A whole table, its columns as in `rows`. */
export function table(columns, items, options = {}) {
  const head = el("tr", {}, columns.map((column) => el("th", { scope: "col", class: column.kind }, column.head ?? column.label)));
  const body = el("tbody");
  rows(body, columns, items);
  return el("table", { class: options.class ?? "cards" },
    options.caption ? el("caption", {}, options.caption) : null, el("thead", {}, head), body);
}

export function verdict(kind, text) {
  return el("span", { class: `verdict ${kind}` }, text);
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value) {
  return value === null || value === undefined ? "–" : whole.format(value);
}

export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value >= 100 || value === 0 ? whole.format(value) : value.toPrecision(value < 10 ? 2 : 3);
}

export function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${(value * 100).toFixed(digits)}%`;
}

export function signed(value, digits = 1) {
  if (value === null || value === undefined) return "–";
  return `${value >= 0 ? "+" : "−"}${Math.abs(value * 100).toFixed(digits)}%`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value >= 1000 ? `${Number((value / 1000).toFixed(2))} s` : `${Math.round(value)} ms`;
}

export function number(value, digits = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const clockMinute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const dayAndYear = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const zoned = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", timeZoneName: "short" });

/** The local time zone of a moment, such as UTC or CEST. */
export function timeZone(ms) {
  return zoned.formatToParts(new Date(ms)).find((part) => part.type === "timeZoneName").value;
}

/** A moment in local time, with the day if it is not today, and the year if it is not the current one. */
export function moment(ms, seconds = true) {
  const at = new Date(ms);
  const time = (seconds ? clock : clockMinute).format(at);
  const now = new Date();
  if (at.toDateString() === now.toDateString()) return time;
  return `${(at.getFullYear() === now.getFullYear() ? day : dayAndYear).format(at)}, ${time}`;
}

export function ago(ms, now) {
  const seconds = Math.max(0, (now - ms) / 1000);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function words(name) {
  return name.replaceAll("_", " ");
}

/** The name of a KPI, its unit left to the values. */
export function kpiName(kpi) {
  return words(kpi.replace(/_s$/, ""));
}

/** A function that renders values of a KPI as text, shorter for an axis. */
export function kpiText(kpi, isAxis = false) {
  if (kpi.endsWith("_rate")) return (value) => percent(value, isAxis ? (value && value < 0.1 ? 1 : 0) : 2);
  if (kpi.endsWith("_s")) return (value) => value === null ? "–" : `${value.toFixed(0)} s`;
  return (value) => value === null ? "–" : value.toFixed(isAxis ? 0 : 2);
}
