import { Chart, look } from "./chart.js";
import { interval } from "./drawings.js";
import { count, el, find, kpiName, kpiText, moment, say, signed, table, verdict, words } from "./dom.js";
import { poll } from "./poll.js";

const looks = new Chart("looks", { format: (value) => signed(value), axis: (value) => value === 0 ? "0" : signed(value, 0), zero: true, empty: "No look yet." });
const pairs = find("pair");
const kpis = find("kpi");
let told = null;

poll("experiment", 5, (answer) => { told = answer; show(); });
pairs.addEventListener("change", show);
kpis.addEventListener("change", show);

function show() {
  const found = told.experiments;
  find("choice").hidden = found.length < 2;
  options(pairs, found.map((one) => [`${one.treatment} ${one.baseline}`, `${words(one.treatment)} against ${words(one.baseline)}`]));
  const experiment = found.find((one) => `${one.treatment} ${one.baseline}` === pairs.value) ?? found[0];
  if (!experiment) return;
  const heading = find("decision");
  say(heading, experiment.decision);
  heading.className = `decision ${experiment.verdict}`;
  const ratio = experiment.sample_ratio_p;
  say(find("lead"), `${words(experiment.treatment)} with ${count(experiment.treatment_users)} users against ` +
    `${words(experiment.baseline)} with ${count(experiment.baseline_users)}, looked at ${moment(experiment.at)}. ` +
    (ratio === null ? "" : ratio < 0.001 ? "The arms do not have the users that they should." : "The arms have the users that their shares say."));
  showEffects(experiment);
  options(kpis, experiment.kpis.map((one) => [one.kpi, kpiName(one.kpi)]));
  const chosen = experiment.kpis.find((one) => one.kpi === kpis.value) ?? experiment.kpis[0];
  const { times, difference, low, high } = chosen.looks;
  looks.update([{ label: kpiName(chosen.kpi), times, values: difference, low, high, look: look(0) }]);
}

function showEffects(experiment) {
  const most = Math.max(0.01, ...experiment.kpis.flatMap((one) => [one.relative_low, one.relative_high])
    .filter((value) => value !== null).map(Math.abs).filter((value) => value < 1));
  const tone = (one) => one.is_better ? "good" : one.is_worse ? "bad" : "none";
  const columns = [
    { label: "KPI", cell: (one) => [kpiName(one.kpi), el("small", {}, formula(one.kpi))] },
    { label: words(experiment.baseline), kind: "number", cell: (one) => kpiText(one.kpi)(one.baseline_value) },
    { label: words(experiment.treatment), kind: "number", cell: (one) => kpiText(one.kpi)(one.treatment_value) },
    { label: "difference", kind: "number", cell: (one) => [signed(one.relative_difference), el("small", {}, `${signed(one.relative_low)} to ${signed(one.relative_high)}`)] },
    { label: "", kind: "middle", head: "lower | higher", cell: (one) => one.relative_low === null ? "" : interval(one.relative_difference, one.relative_low, one.relative_high, most, tone(one)) },
    { label: "what it means", cell: (one) => one.is_better ? verdict("good", "better") : one.is_worse ? verdict("bad", "worse") : verdict("none", "may be chance") },
    { label: "guardrail", cell: (one) => ({ held: verdict("good", "held"), broken: verdict("bad", "broken"), open: verdict("wait", "open") })[one.guardrail] ?? "–" },
  ];
  find("effects").replaceChildren(table(columns, experiment.kpis));
}

function formula(kpi) {
  const known = told.formulas[kpi];
  return known ? `${known.formula}; ${known.direction === "up" ? "more" : "less"} is better` : "";
}

/** Options of a select, which keeps what is chosen. */
function options(select, entries) {
  if (JSON.stringify(entries) === select.dataset.entries) return;
  const chosen = select.value;
  select.dataset.entries = JSON.stringify(entries);
  select.replaceChildren(...entries.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}
