// Line charts over time, drawn by uPlot, each with a legend that shows values, a text description and a table.

import { el, find, moment, svg, table } from "./dom.js";

const DASHES = [[], [8, 5], [2, 4], [12, 4, 2, 4], [5, 3], [1, 3]];
const ARMS = ["champion", "challenger", "control", "not_eligible", "not scored", "shadow"];
const charts = [];

/** A line's look: arms always have theirs, others by their place. */
export function look(at) {
  return { color: `--s${(at % 6) + 1}`, dash: DASHES[at % 6] };
}

export function armLook(arm, at = 0) {
  const place = ARMS.indexOf(arm);
  return look(place < 0 ? at : place);
}

export class Chart {
  /** `format` renders a value as text; `zero` makes the axis start at 0; `top` is the lowest value at which it may end. */
  constructor(id, { format, axis = format, zero = true, top = null, steps = false, empty = "No data yet." }) {
    this.figure = find(id);
    this.plotArea = this.figure.querySelector(".plot");
    this.legend = this.figure.querySelector(".legend");
    this.details = this.figure.querySelector("details");
    this.reading = this.figure.querySelector(".reading");
    this.title = this.figure.querySelector("strong").textContent;
    Object.assign(this, { format, axis, zero, top, steps, empty });
    this.lines = [];
    this.marks = [];
    this.times = [];
    this.shape = "";
    this.details.addEventListener("toggle", () => this.fillTable());
    this.plotArea.addEventListener("keydown", (event) => this.onKey(event));
    this.plotArea.addEventListener("blur", () => this.uplot?.setCursor({ left: -10, top: -10 }));
    new ResizeObserver(() => this.resize()).observe(this.plotArea);
    charts.push(this);
  }

  /** `lines` are {label, times, values, low?, high?, look}, times in ms; `marks` are {value, label}. */
  update(lines, marks = []) {
    const kept = lines.filter((line) => line.times.length);
    this.times = [...new Set(kept.flatMap((line) => line.times))].sort((a, b) => a - b);
    const place = new Map(this.times.map((time, at) => [time, at]));
    // Undefined, not null: where only another line has a moment, a line goes on to its next one.
    const aligned = (line, name) => {
      const values = new Array(this.times.length).fill(undefined);
      line.times.forEach((time, at) => { values[place.get(time)] = line[name][at]; });
      return values;
    };
    this.lines = kept.map((line) => ({
      ...line,
      values: aligned(line, "values"),
      low: line.low ? aligned(line, "low") : null,
      high: line.high ? aligned(line, "high") : null,
    }));
    this.marks = marks;
    this.draw();
    this.showLegend(null);
    this.describe();
    if (this.details.open) this.fillTable();
  }

  data() {
    const columns = [this.times.map((time) => time / 1000)];
    for (const line of this.lines) {
      columns.push(line.values);
      if (line.low) columns.push(line.high, line.low);
    }
    for (const mark of this.marks) columns.push(this.times.map(() => mark.value));
    return columns;
  }

  draw() {
    if (this.times.length < 2) {
      this.uplot?.destroy();
      this.uplot = null;
      this.shape = "";
      this.plotArea.replaceChildren(el("p", { class: "empty" }, this.times.length ? "Waiting for a second data point." : this.empty));
      return;
    }
    const shape = JSON.stringify([this.lines.map((line) => [line.label, line.look, !!line.low]), this.marks.length]);
    if (this.uplot && shape === this.shape) {
      this.uplot.setData(this.data());
      return;
    }
    this.uplot?.destroy();
    this.plotArea.replaceChildren();
    this.shape = shape;
    this.uplot = new uPlot(this.options(), this.data(), this.plotArea);
  }

  options() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const size = parseFloat(style.fontSize);
    const series = [{}];
    const bands = [];
    for (const line of this.lines) {
      const stroke = color(line.look.color);
      const paths = this.steps ? uPlot.paths.stepped({ align: 1 }) : undefined;
      series.push({ stroke, width: 2, dash: line.look.dash, points: { show: false }, spanGaps: false, paths });
      if (line.low) {
        bands.push({ series: [series.length, series.length + 1], fill: `${stroke}26` });
        series.push({ stroke: "transparent", width: 0, points: { show: false } }, { stroke: "transparent", width: 0, points: { show: false } });
      }
    }
    for (const _ of this.marks) series.push({ stroke: color("--bad"), width: 1.5, dash: [3, 5], points: { show: false } });
    const font = `${Math.round(size * 0.75)}px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: color("--tick"), font, ticks: { show: false } };
    return {
      ...this.extent(),
      series,
      bands,
      legend: { show: false },
      padding: [10, size * 1.7, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { y: { range: (_u, low, high) => this.range(low, high) } },
      axes: [
        { ...axis, grid: { show: false }, space: size * 5.5, values: (_u, ticks) => ticks.map((tick) => tickText(tick, ticks)), size: size * 1.9, gap: 6 },
        { ...axis, grid: { stroke: color("--grid"), width: 1 }, space: size * 2.4, values: (_u, ticks) => ticks.map((tick) => this.axis(tick)), size: size * 3.6, gap: 8 },
      ],
      hooks: { setCursor: [(u) => this.showLegend(u.cursor.idx)] },
    };
  }

  range(low, high) {
    if (low === null) return [0, 1];
    const bottom = this.zero ? Math.min(0, low) : low;
    const top = Math.max(high, this.top ?? high);
    const room = (top - bottom || Math.abs(top) || 1) * 0.08;
    return [this.zero && bottom === 0 ? 0 : bottom - room, top + room];
  }

  extent() {
    const box = this.plotArea.getBoundingClientRect();
    return { width: Math.max(120, Math.floor(box.width)), height: Math.max(80, Math.floor(box.height)) };
  }

  resize() {
    const { width, height } = this.extent();
    if (this.uplot && (this.uplot.width !== width || this.uplot.height !== height)) this.uplot.setSize({ width, height });
  }

  redraw() {
    this.shape = "";
    this.draw();
    this.showLegend(null);
  }

  last(values) {
    return values.findLastIndex((value) => value !== null && value !== undefined);
  }

  showLegend(at) {
    const items = this.lines.map((line) => {
      const value = line.values[at ?? this.last(line.values)];
      return el("li", {}, swatch(line.look), line.label, el("b", {}, value === null || value === undefined ? "–" : this.format(value)));
    });
    for (const mark of this.marks) {
      items.push(el("li", {}, swatch({ color: "--bad", dash: [3, 4] }), mark.label, el("b", {}, this.format(mark.value))));
    }
    if (at !== null && at !== undefined && this.times[at]) items.push(el("li", {}, `at ${moment(this.times[at])}`));
    this.legend.replaceChildren(...items);
  }

  describe() {
    const descriptions = this.lines.map((line) => {
      const values = line.values.filter((value) => value !== null && value !== undefined);
      if (!values.length) return `${line.label}: no data`;
      return `${line.label}: latest ${this.format(values.at(-1))}, minimum ${this.format(Math.min(...values))}, maximum ${this.format(Math.max(...values))}`;
    });
    const marks = this.marks.map((mark) => `${mark.label} ${this.format(mark.value)}`);
    const text = descriptions.length ? `${[...descriptions, ...marks].join("; ")}.` : this.empty;
    this.plotArea.setAttribute("aria-label", `${this.title}. ${text} Use the left and right arrow keys to read single values. The table below has the same data.`);
  }

  onKey(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || !this.uplot) return;
    event.preventDefault();
    const last = this.times.length - 1;
    const at = Math.min(last, Math.max(0, (this.uplot.cursor.idx ?? last) + moves[event.key]));
    this.uplot.setCursor({ left: this.uplot.valToPos(this.times[at] / 1000, "x"), top: 10 });
    this.reading.textContent = `${moment(this.times[at])}: ` + this.lines.map((line) =>
      `${line.label} ${line.values[at] === null || line.values[at] === undefined ? "no data" : this.format(line.values[at])}`).join(", ");
  }

  fillTable() {
    if (!this.details.open) return;
    const columns = [{ label: "Time", cell: (at) => moment(this.times[at]) }];
    for (const line of this.lines) {
      columns.push({ label: line.label, kind: "number", cell: (at) => {
        const value = line.values[at];
        if (value === null || value === undefined) return "–";
        const interval = line.low && line.low[at] !== null ? ` (${this.format(line.low[at])} to ${this.format(line.high[at])})` : "";
        return this.format(value) + interval;
      } });
    }
    const newest = this.times.map((_, at) => at).reverse().slice(0, 60);
    this.details.querySelector(".scroll").replaceChildren(table(columns, newest, { class: "", caption: `${this.title}, newest first` }));
  }
}

/** A short line as it is drawn: its colour and its dashes. */
export function swatch(look) {
  return svg("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" },
    svg("line", { x1: 1, x2: 25, y1: 5, y2: 5, "stroke-width": 2.5, class: `stroke-${look.color.slice(2)}`, "stroke-dasharray": look.dash.join(" ") || null }));
}

function tickText(seconds, ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 60;
  return step >= 86_400 ? moment(seconds * 1000, false).split(",")[0] : moment(seconds * 1000, step < 60).split(", ").at(-1);
}

document.addEventListener("themechange", () => { for (const chart of charts) chart.redraw(); });
