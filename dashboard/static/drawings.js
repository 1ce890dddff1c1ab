// Everything but line charts: histograms, intervals, share bars, strips.

import { el, find, percent, svg, table } from "./dom.js";

/** Bars over bins in a figure: a first series filled, a second one as an outline; {label, shares} each. */
export function histogram(id, series, bins) {
  const figure = find(id);
  const plot = figure.querySelector(".plot");
  if (!bins.length) {
    plot.replaceChildren(el("p", { class: "empty" }, "No data yet."));
    plot.setAttribute("aria-label", "No data yet.");
    figure.querySelector("details").ontoggle = null;
    figure.querySelector("details .scroll").replaceChildren();
    return;
  }
  const [width, height] = [Math.max(240, plot.clientWidth), Math.max(120, plot.clientHeight)];
  const [left, bottom, top] = [44, 26, 10];
  const most = Math.max(...series.flatMap((one) => one.shares), 0.01) * 1.06;
  const x = (at) => left + ((width - left) * at) / bins.length;
  const y = (share) => top + (height - bottom - top) * (1 - share / most);
  const base = y(0);
  const parts = [];
  for (const share of [0, 0.5, 1].map((part) => (part * most) / 1.06)) {
    parts.push(svg("line", { class: "axis", x1: left, x2: width, y1: y(share), y2: y(share) }));
    parts.push(svg("text", { class: "tick", x: left - 8, y: y(share) + 4, "text-anchor": "end" }, percent(share, share < 0.1 && share ? 1 : 0)));
  }
  const [filled, outlined] = series;
  const gap = bins.length > 12 ? 1.5 : 4;
  filled.shares.forEach((share, at) => {
    parts.push(svg("rect", { class: "fill-s1", x: x(at) + gap, width: Math.max(1, x(at + 1) - x(at) - 2 * gap), y: y(share), height: Math.max(0, base - y(share)), rx: 2 },
      svg("title", {}, `${bins[at]}: ${series.map((one) => `${one.label} ${percent(one.shares[at])}`).join(", ")}`)));
  });
  if (outlined) {
    const path = outlined.shares.map((share, at) => `${at ? "L" : "M"}${x(at)},${y(share)}L${x(at + 1)},${y(share)}`).join("");
    parts.push(svg("path", { class: "outline", d: path }));
  }
  const step = Math.ceil(bins.length / 5);
  bins.forEach((bin, at) => {
    if (at % step === 0) parts.push(svg("text", { class: "tick", x: x(at + 0.5), y: height - 8, "text-anchor": "middle" }, bin.split(" to ")[0]));
  });
  plot.replaceChildren(svg("svg", { class: "drawing", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, parts));
  const largest = filled.shares.indexOf(Math.max(...filled.shares));
  plot.setAttribute("aria-label", `${figure.querySelector("strong").textContent}. Largest bin: ${bins[largest]}, ${percent(filled.shares[largest])}. The table below has the same data.`);
  const details = figure.querySelector("details");
  const columns = [{ label: "Range", cell: (at) => bins[at] },
    ...series.map((one) => ({ label: one.label, kind: "number", cell: (at) => percent(one.shares[at]) }))];
  const fillTable = () => {
    if (details.open) details.querySelector(".scroll").replaceChildren(table(columns, bins.map((_, at) => at), { class: "" }));
  };
  details.ontoggle = fillTable;
  fillTable();
}

/** An interval around zero, on the scale of `most`. */
export function interval(value, low, high, most, tone) {
  const x = (part) => 100 + (90 * Math.max(-1.05, Math.min(1.05, part / most)));
  return svg("svg", { class: "interval", viewBox: "0 0 200 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("line", { class: "zero", x1: 100, x2: 100, y1: 1, y2: 23 }),
    svg("line", { class: `range tone-${tone}`, x1: x(low), x2: x(high), y1: 12, y2: 12 }),
    svg("rect", { class: `tone-${tone}`, x: x(value) - 2.5, y: 6, width: 5, height: 12, rx: 1.5 }));
}

/** Traffic shares as one bar; `parts` are {share, fill, title}. */
export function shareBar(parts, description) {
  let left = 0;
  const drawn = parts.filter((part) => part.share > 0).map((part) => {
    const rect = svg("rect", { class: `fill-${part.fill}`, x: left * 1000, width: Math.max(2, part.share * 1000 - 3), y: 0, height: 30 }, svg("title", {}, part.title));
    left += part.share;
    return rect;
  });
  return svg("svg", { class: "bar-share", viewBox: "0 0 1000 30", preserveAspectRatio: "none", role: "img", "aria-label": description }, drawn);
}

/** A value over time as bars in a canvas: as high as the value, and coloured by its level's first letter. */
export function strip(values, levels, most) {
  const canvas = el("canvas", { class: "strip", "aria-hidden": "true", width: values.length * 6, height: 36 });
  const style = getComputedStyle(document.documentElement);
  const colors = Object.fromEntries([["s", "--line"], ["w", "--wait"], ["a", "--bad"]].map(([letter, name]) => [letter, style.getPropertyValue(name).trim()]));
  const paint = canvas.getContext("2d");
  values.forEach((value, at) => {
    if (value === null) return;
    const height = 4 + 32 * Math.min(1, Math.max(0, value) / most);
    paint.fillStyle = colors[levels[at]] ?? colors.s;
    paint.fillRect(at * 6, 36 - height, 5, height);
  });
  return canvas;
}
