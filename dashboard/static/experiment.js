import { Chart, look } from "./chart.js";
import { interval } from "./drawings.js";
import { count, el, find, kpiName, kpiText, moment, say, signed, table, verdict, words } from "./dom.js";
import { poll } from "./poll.js";

const looks = new Chart("looks", { format: (value) => signed(value), axis: (value) => value === 0 ? "0" : signed(value, 0), zero: true, empty: "No evaluation yet." });
const pairs = find("pair");
const kpis = find("kpi");
let data = null;

poll("experiment", 5, (answer) => { data = answer; show(); });
pairs.addEventListener("change", show);
kpis.addEventListener("change", show);

function show() {
  const experiments = data.experiments;
  find("choice").hidden = experiments.length < 2;
  options(pairs, experiments.map(({ treatment, baseline }) => [`${treatment} ${baseline}`, `${words(treatment)} vs. ${words(baseline)}`]));
  const experiment = experiments.find(({ treatment, baseline }) => `${treatment} ${baseline}` === pairs.value) ?? experiments[0];
  if (!experiment) return;
  const heading = find("decision");
  say(heading, experiment.decision);
  heading.className = `decision ${experiment.verdict}`;
  const ratio = experiment.sample_ratio_p;
  say(find("lead"), `${words(experiment.treatment)} (${count(experiment.treatment_users)} users) vs. ` +
    `${words(experiment.baseline)} (${count(experiment.baseline_users)} users), evaluated at ${moment(experiment.at)}. ` +
    (ratio === null ? "" : ratio < 0.001 ? "Sample ratio mismatch: the user counts do not match the traffic shares." : "The user counts match the traffic shares."));
  showEffects(experiment);
  options(kpis, experiment.kpis.map(({ kpi }) => [kpi, kpiName(kpi)]));
  const chosen = experiment.kpis.find(({ kpi }) => kpi === kpis.value) ?? experiment.kpis[0];
  const { times, difference, low, high } = chosen.looks;
  looks.update([{ label: kpiName(chosen.kpi), times, values: difference, low, high, look: look(0) }]);
}

function showEffects(experiment) {
  const most = Math.max(0.01, ...experiment.kpis.flatMap((effect) => [effect.relative_low, effect.relative_high])
    .filter((value) => value !== null).map(Math.abs).filter((value) => value < 1));
  const tone = (effect) => effect.is_better ? "good" : effect.is_worse ? "bad" : "none";
  const columns = [
    { label: "KPI", cell: (effect) => [kpiName(effect.kpi), el("small", {}, formula(effect.kpi))] },
    { label: words(experiment.baseline), kind: "number", cell: (effect) => kpiText(effect.kpi)(effect.baseline_value) },
    { label: words(experiment.treatment), kind: "number", cell: (effect) => kpiText(effect.kpi)(effect.treatment_value) },
    { label: "Difference", kind: "number", cell: (effect) => [signed(effect.relative_difference), el("small", {}, `${signed(effect.relative_low)} to ${signed(effect.relative_high)}`)] },
    { label: "", kind: "middle", head: "Lower | higher", cell: (effect) => effect.relative_low === null ? "" : interval(effect.relative_difference, effect.relative_low, effect.relative_high, most, tone(effect)) },
    { label: "Result", cell: (effect) => effect.is_better ? verdict("good", "better") : effect.is_worse ? verdict("bad", "worse") : verdict("none", "not significant") },
    { label: "Guardrail", cell: (effect) => ({ held: verdict("good", "held"), broken: verdict("bad", "broken"), open: verdict("wait", "inconclusive") })[effect.guardrail] ?? "–" },
  ];
  find("effects").replaceChildren(table(columns, experiment.kpis));
}

function formula(kpi) {
  const known = data.formulas[kpi];
  return known ? `${known.formula}; ${known.direction === "up" ? "higher" : "lower"} is better` : "";
}

/** Sets the options of a select, keeping the selected one. */
function options(select, entries) {
  if (JSON.stringify(entries) === select.dataset.entries) return;
  const chosen = select.value;
  select.dataset.entries = JSON.stringify(entries);
  select.replaceChildren(...entries.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}
