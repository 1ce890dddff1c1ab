import { armLook, Chart } from "./chart.js";
import { count, el, find, kpiName, kpiText, table, words } from "./dom.js";
import { poll } from "./poll.js";

const charts = new Map([...document.querySelectorAll("figure.chart")].map((figure) =>
  [figure.id, new Chart(figure.id, { format: kpiText(figure.id), axis: kpiText(figure.id, true), empty: "No session of such a kind has closed yet." })]));

poll("kpis", 5, (told) => {
  for (const [kpi, chart] of charts) {
    chart.update(told.lines.filter((line) => line.kpi === kpi).sort((a, b) => a.arm < b.arm ? -1 : 1)
      .map((line, at) => ({ label: words(line.arm), times: line.times, values: line.value, low: line.low, high: line.high, look: armLook(line.arm, at) })));
  }
  const columns = [
    { label: "KPI", cell: (line) => kpiName(line.kpi) },
    { label: "arm", cell: (line) => words(line.arm) },
    { label: "value", kind: "number", cell: (line) => kpiText(line.kpi)(line.whole[0]) },
    { label: "95 % interval", kind: "number", cell: (line) => between(line.kpi, line.whole[1], line.whole[2]) },
    { label: "out of", kind: "number", cell: (line) => count(line.denominator) },
  ];
  const order = [...charts.keys()];
  const sorted = [...told.lines].sort((a, b) => order.indexOf(a.kpi) - order.indexOf(b.kpi) || (a.arm < b.arm ? -1 : 1));
  find("together").replaceChildren(told.lines.length ? table(columns, sorted) : el("p", { class: "soft" }, "No session has closed yet."));
  columns.splice(1, 0, { label: "placement", cell: (row) => row.placement });
  columns[3].cell = (row) => kpiText(row.kpi)(row.value);
  columns[4].cell = (row) => between(row.kpi, row.low, row.high);
  find("placements").replaceChildren(told.placements.length ? table(columns, told.placements) : el("p", { class: "soft" }, "No promotion has been shown in a named place yet."));
});

function between(kpi, low, high) {
  return low === null ? "too few yet" : `${kpiText(kpi)(low)} to ${kpiText(kpi)(high)}`;
}
