import { Chart, look } from "./chart.js";
import { interval } from "./drawings.js";
import { count, el, find, kpiName, kpiText, moment, say, signed, table, verdict, words } from "./dom.js";
import { poll } from "./poll.js";

const looks = new Chart("looks", { format: (value) => signed(value), axis: (value) => value === 0 ? "0" : signed(value, 0), zero: true, empty: "No evaluation with a relative interval yet." });
const kpis = find("kpi");
let data = null;
let chosen = null; // the title of an experiment
let chosenKpi = null; // until somebody chooses one, the first with looks to draw
let shownChoice = "";

poll("experiment", 5, (answer) => { data = answer; show(); });
kpis.addEventListener("change", () => { chosenKpi = kpis.value; show(); });

function show() {
  const experiments = data.experiments;
  const experiment = experiments.find((one) => title(one) === chosen) ?? experiments[0];
  if (!experiment) return;
  chosen = title(experiment); // stays on the page when another one becomes the newest
  const heading = find("decision");
  say(heading, experiment.decision);
  heading.className = `decision ${experiment.verdict}`;
  say(find("lead"), lead(experiment));
  showEffects(experiment);
  const shown = experiment.kpis.find(({ kpi }) => kpi === chosenKpi) ?? experiment.kpis.find(({ looks }) => looks.times.length > 1) ?? experiment.kpis[0];
  options(kpis, experiment.kpis.map(({ kpi }) => [kpi, kpiName(kpi)]), shown.kpi);
  const { times, difference, low, high } = shown.looks;
  looks.update([{ label: kpiName(shown.kpi), times, values: difference, low, high, look: look(0) }]);
  showChoice(experiments);
}

function title({ names }) {
  return names.join(" vs. ");
}

function lead(experiment) {
  const { at, names, treatment_users, baseline_users, moved_users, sample_ratio_p } = experiment;
  const sentences = [`${names[0]} (${count(treatment_users)} users) vs. ${names[1]} (${count(baseline_users)} users), evaluated at ${moment(at)}.`];
  if (moved_users) sentences.push(moved_users === 1 ? "1 user was in both arms and counts in the first." : `${count(moved_users)} users were in both arms and count in the first.`);
  if (sample_ratio_p !== null) {
    const p = sample_ratio_p < 0.0001 ? "< 0.0001" : `= ${Number(sample_ratio_p.toPrecision(2))}`;
    sentences.push(`User counts against traffic shares: p ${p}${experiment.is_of_earlier_release ? "" : ", valid at every look"}.`);
  }
  return sentences.join(" ");
}

function showEffects(experiment) {
  const most = Math.max(0.01, ...experiment.kpis.flatMap((effect) => [effect.relative_low, effect.relative_high])
    .filter((value) => value !== null).map(Math.abs).filter((value) => value < 1));
  const tone = (effect) => effect.is_better ? "good" : effect.is_worse ? "bad" : "none";
  const columns = [
    { label: "KPI", cell: (effect) => [kpiName(effect.kpi), el("small", {}, formula(effect.kpi)), effect.cap === null ? null : el("small", {}, `capped at ${amount(effect.kpi, effect.cap)} per session`)] },
    { label: words(experiment.baseline), kind: "number", cell: (effect) => kpiText(effect.kpi)(effect.baseline_value) },
    { label: words(experiment.treatment), kind: "number", cell: (effect) => kpiText(effect.kpi)(effect.treatment_value) },
    { label: "Difference", kind: "number", cell: difference },
    { label: "", kind: "middle", head: "Lower | higher", cell: (effect) => effect.relative_low === null ? "" : interval(effect.relative_difference, effect.relative_low, effect.relative_high, most, tone(effect)) },
    { label: "Result", cell: (effect) => hasNoData(effect) ? verdict("none", noData(effect)) : effect.is_better ? verdict("good", "better") : effect.is_worse ? verdict("bad", "worse") : verdict("none", "not significant") },
    { label: "Guardrail", cell: (effect) => ({ held: verdict("good", "held"), broken: verdict("bad", "broken"), open: verdict("wait", hasNoData(effect) ? "open, no data" : "inconclusive") })[effect.guardrail] ?? "–" },
  ];
  find("effects").replaceChildren(table(columns, experiment.kpis));
}

function hasNoData(effect) {
  return effect.difference === null;
}

function noData(effect) {
  return effect.no_data === null ? "no data" : `no data: ${effect.no_data}`; // earlier releases gave no reason
}

/** The relative difference with its interval, else the absolute one. */
function difference(effect) {
  if (hasNoData(effect)) return "–";
  if (effect.relative_low !== null) return [signed(effect.relative_difference), el("small", {}, `${signed(effect.relative_low)} to ${signed(effect.relative_high)}`)];
  const [scale, unit] = effect.kpi.endsWith("_rate") ? [100, " points"] : [1, effect.kpi.endsWith("_s") ? " s" : ""];
  const text = (value) => value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value * scale).toFixed(2)}`;
  return [text(effect.difference) + unit, el("small", {}, `${text(effect.low)} to ${text(effect.high)}${unit}`), el("small", {}, "no relative interval yet")];
}

/** What a session counts for in a KPI's numerator, which is no share also where the KPI is one. */
function amount(kpi, value) {
  return value.toLocaleString("en", { maximumFractionDigits: 2 }) + (kpi.endsWith("_s") ? " s" : "");
}

function formula(kpi) {
  const known = data.formulas[kpi];
  return known ? `${known.formula}; ${known.direction === "up" ? "higher" : "lower"} is better` : "";
}

/** The experiments as a table, each with a button that shows it. */
function showChoice(experiments) {
  const entries = experiments.map(({ names, at, decision, verdict: tone }) => ({ name: title({ names }), at, decision, tone }));
  const choice = JSON.stringify([chosen, entries]);
  if (choice === shownChoice) return;
  shownChoice = choice;
  find("choice").hidden = experiments.length < 2;
  const columns = [
    { label: "Experiment", cell: ({ name }) => {
      const button = el("button", { type: "button", "aria-pressed": String(name === chosen) }, name);
      button.addEventListener("click", () => { chosen = name; show(); find("decision").scrollIntoView({ block: "nearest" }); });
      return button;
    } },
    { label: "Decision", cell: ({ decision, tone }) => verdict(tone, decision) },
    { label: "Evaluated", kind: "nowrap", cell: ({ at }) => moment(at) },
  ];
  const all = find("experiments");
  const focused = all.contains(document.activeElement) ? document.activeElement.textContent : null;
  all.replaceChildren(table(columns, entries.map((entry) => ({ ...entry, rowClass: entry.name === chosen ? "chosen" : "" })), { class: "heat cards" }));
  [...all.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus({ preventScroll: true });
}

/** Sets the options of a select, and the selected one. */
function options(select, entries, selected) {
  if (JSON.stringify(entries) !== select.dataset.entries) {
    select.dataset.entries = JSON.stringify(entries);
    select.replaceChildren(...entries.map(([value, text]) => el("option", { value }, text)));
  }
  select.value = selected;
}
