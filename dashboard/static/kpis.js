import { armLook, Chart } from "./chart.js";
import { count, el, find, kpiName, kpiText, percent, table, words } from "./dom.js";
import { poll } from "./poll.js";

const charts = new Map([...document.querySelectorAll("figure.chart")].map((figure) =>
  [figure.id, new Chart(figure.id, { format: kpiText(figure.id), axis: kpiText(figure.id, true), empty: "No matching sessions yet." })]));

poll("kpis", 5, (data) => {
  for (const [kpi, chart] of charts) {
    chart.update(data.lines.filter((line) => line.kpi === kpi).sort((a, b) => a.arm < b.arm ? -1 : 1)
      .map((line, at) => ({ label: words(line.arm), times: line.times, values: line.value, low: line.low, high: line.high, look: armLook(line.arm, at) })));
  }
  const columns = [
    { label: "KPI", cell: (line) => kpiName(line.kpi) },
    { label: "Arm", cell: (line) => words(line.arm) },
    { label: "Value", kind: "number", cell: (line) => kpiText(line.kpi)(line.whole[0]) },
    { label: "95% interval", kind: "number", cell: (line) => between(line.kpi, line.whole[1], line.whole[2]) },
    { label: "Denominator", kind: "number", cell: (line) => count(line.denominator) },
  ];
  const order = [...charts.keys()];
  const sorted = [...data.lines].sort((a, b) => order.indexOf(a.kpi) - order.indexOf(b.kpi) || (a.arm < b.arm ? -1 : 1));
  find("together").replaceChildren(data.lines.length ? table(columns, sorted) : el("p", { class: "soft" }, "No closed sessions yet."));
  find("bots").textContent = data.sessions?.all ? bots(data.sessions) : "";
  columns.splice(1, 0, { label: "Placement", cell: (row) => row.placement });
  columns[3].cell = (row) => kpiText(row.kpi)(row.value);
  columns[4].cell = (row) => between(row.kpi, row.low, row.high);
  find("placements").replaceChildren(data.placements.length ? table(columns, data.placements) : el("p", { class: "soft" }, "No promotions shown in a named placement yet."));
});

function bots({ bots, all }) {
  return `${count(bots)} of ${count(all)} sessions (${percent(bots / all)}) look like those of bots and are left out.`;
}

function between(kpi, low, high) {
  return low === null ? "not enough data yet" : `${kpiText(kpi)(low)} to ${kpiText(kpi)(high)}`;
}
