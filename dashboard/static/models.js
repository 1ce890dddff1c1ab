import { armLook, Chart, look, swatch } from "./chart.js";
import { shareBar } from "./drawings.js";
import { ago, count, el, find, moment, number, percent, say, svg, table, verdict, words } from "./dom.js";
import { poll } from "./poll.js";

const share = (value) => percent(value, value > 0 && value < 0.1 ? 1 : 0);
const planned = new Chart("planned", { format: share, top: 1, steps: true, empty: "No ledger: a single bundle serves all users." });
const seen = new Chart("seen", { format: share, top: 1, empty: "No scores sampled yet." });
const auc = new Chart("auc", { format: (value) => number(value, 3), zero: false, empty: "No matured scores yet: the label horizon has not passed." });
const promise = new Chart("promise", { format: (value) => percent(value, 2), empty: "No matured scores yet." });
const loss = new Chart("loss", { format: (value) => number(value, 4), empty: "No matured scores yet." });
// The states of training/retraining/run_store.py. A failed or refused run worked as intended, an error did not.
const STATES = { preparing: "wait", training: "wait", evaluating: "wait", passed: "good", failed: "none", refused: "none", error: "bad" };

poll("models", 5, (data) => {
  showServing(data.models, data.status.now);
  planned.update(ledgerLines(data.models.shares ?? [], data.status.now));
  seen.update(data.mix.lines.map((line, at) => ({ label: name(line), times: data.mix.times, values: line.values, look: armLook(line.arm, at) })));
  const lines = data.quality.filter((line) => line.times.length);
  auc.update(lines.map((line, at) => ({ label: name(line), times: line.times, values: line.auc, look: armLook(line.arm, at) })), bounds(data.models));
  promise.update(lines.flatMap((line, at) => [
    { label: `${name(line)} predicted`, times: line.times, values: line.mean_score, look: { color: armLook(line.arm, at).color, dash: [] } },
    { label: `${name(line)} observed`, times: line.times, values: line.positive_rate, look: { color: armLook(line.arm, at).color, dash: [2, 4] } },
  ]));
  loss.update(lines.map((line, at) => ({ label: name(line), times: line.times, values: line.log_loss, look: armLook(line.arm, at) })));
  showCalibration(data.calibration);
  showRuns(data.models.runs ?? []);
  showLedger(data.models.ledger ?? []);
});

const name = (line) => `${words(line.arm)} · ${line.version}`;

function showServing(models, now) {
  const arms = models.serving ?? [];
  const acting = arms.filter((arm) => !arm.shadow && arm.share > 0);
  say(find("headline"), acting.length ? acting.map((arm) => `${words(arm.arm)} ${share(arm.share)}`).join(", ") : "No model information yet");
  const newest = (models.ledger ?? []).find((line) => line.serves);
  const description = newest ? `Since ledger entry ${newest.number}, ${moment(newest.at)} (${ago(newest.at, now)} ago): ${newest.why}` : models.registry ? "" : "A single bundle serves all users; no registry is configured (model.registry).";
  say(find("lead"), models.error ? `Model information is incomplete: ${models.error}` : description);
  find("bar").replaceChildren(shareBar(acting.map((arm, at) => ({ share: arm.share, fill: armLook(arm.arm, at).color.slice(2), title: `${arm.arm} ${arm.version} ${share(arm.share)}` })),
    acting.map((arm) => `${arm.arm} ${share(arm.share)}`).join(", ")));
  const metric = (arm, which) => {
    const [value, low, high] = models.models?.[arm.version]?.metrics?.[which] ?? [null];
    return value === null ? "–" : [number(value, 3), low === null || low === undefined ? null : el("small", {}, `${number(low, 3)} to ${number(high, 3)}`)];
  };
  const columns = [
    { label: "Arm", cell: (arm) => el("span", { class: "verdict-free" }, words(arm.arm)) },
    { label: "Model", cell: (arm) => arm.version === "rule" ? "rule-based, no model" : el("code", {}, arm.version) },
    { label: "Traffic share", kind: "number", cell: (arm) => arm.shadow ? "none (shadow)" : share(arm.share) },
    { label: "Holdout AUC", kind: "number", cell: (arm) => metric(arm, "test_roc_auc") },
    { label: "Trained on data until", kind: "nowrap", cell: (arm) => models.models?.[arm.version] ? moment(models.models[arm.version].trained_to, false) : "–" },
    { label: "Label", cell: (arm) => models.models?.[arm.version]?.label ?? "–" },
  ];
  find("serving").replaceChildren(table(columns, arms));
}

/** Traffic shares as steps, one at each entry and one now. */
function ledgerLines(entries, now) {
  if (!entries.length) return [];
  const all = [...entries, { at: now, arms: entries.at(-1).arms }];
  const key = (arm) => `${words(arm.arm)} · ${arm.version}`;
  const known = new Map();
  for (const entry of all) for (const arm of entry.arms) if (!arm.shadow && !known.has(key(arm))) known.set(key(arm), arm.arm);
  return [...known].map(([label, arm], at) => ({
    label, times: all.map((entry) => entry.at),
    values: all.map((entry) => entry.arms.find((arm) => !arm.shadow && key(arm) === label)?.share ?? 0),
    look: armLook(arm, at),
  }));
}

/** The lower bound of the champion's holdout AUC; a live AUC below it deserves attention. */
function bounds(models) {
  const champion = (models.serving ?? []).find((arm) => arm.arm === "champion");
  const low = models.models?.[champion?.version]?.metrics?.test_roc_auc?.[1];
  return low === null || low === undefined ? [] : [{ label: "champion holdout AUC, lower 95% bound", value: low }];
}

function showCalibration(cells) {
  const figure = find("calibration");
  const plot = figure.querySelector(".plot");
  const versions = [...new Set(cells.map((cell) => cell.version))];
  if (!cells.length) {
    plot.replaceChildren(el("p", { class: "empty" }, "No outcomes sampled yet."));
    return;
  }
  const [width, height] = [Math.max(240, plot.clientWidth), Math.max(120, plot.clientHeight)];
  const [left, bottom] = [46, 26];
  // On a logarithmic scale: most scores are small.
  const floor = 0.002;
  const log = (value) => (Math.log10(Math.max(floor, value)) - Math.log10(floor)) / -Math.log10(floor);
  const x = (value) => left + (width - left - 22) * log(value);
  const y = (value) => 8 + (height - bottom - 8) * (1 - log(value));
  const parts = [svg("line", { class: "guide", x1: x(floor), y1: y(floor), x2: x(1), y2: y(1) })];
  for (const tick of [0.01, 0.1, 1]) {
    parts.push(svg("text", { class: "tick", x: x(tick), y: height - 8, "text-anchor": "middle" }, percent(tick, 0)));
    parts.push(svg("text", { class: "tick", x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, percent(tick, 0)));
    parts.push(svg("line", { class: "axis", x1: left, x2: width, y1: y(tick), y2: y(tick) }));
  }
  for (const cell of cells) {
    const tone = look(versions.indexOf(cell.version)).color.slice(2);
    const at = x(cell.promised) + 5 * versions.indexOf(cell.version);
    parts.push(svg("line", { class: `stroke-${tone}`, "stroke-width": 2, x1: at, x2: at, y1: y(cell.low), y2: y(cell.high) }));
    const mark = versions.indexOf(cell.version) % 2
      ? svg("rect", { class: `fill-${tone}`, x: at - 4.5, y: y(cell.came_true) - 4.5, width: 9, height: 9 })
      : svg("circle", { class: `fill-${tone}`, cx: at, cy: y(cell.came_true), r: 5 });
    parts.push(mark);
  }
  plot.replaceChildren(svg("svg", { class: "drawing", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, parts));
  plot.setAttribute("aria-label", `Calibration of ${versions.join(", ")}: the mean score is within the interval of the observed rate in ${cells.filter((cell) => cell.low <= cell.promised && cell.promised <= cell.high).length} of ${cells.length} bins. The table below has the same data.`);
  figure.querySelector(".legend").replaceChildren(...versions.map((version, at) => el("li", {}, swatch({ ...look(at), dash: [] }), version)));
  const columns = [
    { label: "Model", cell: (cell) => cell.version },
    { label: "Score range", kind: "number", cell: (cell) => `${percent(cell.from, 0)} to ${percent(cell.to, 0)}` },
    { label: "Scores", kind: "number", cell: (cell) => count(cell.scores) },
    { label: "Predicted", kind: "number", cell: (cell) => percent(cell.promised, 2) },
    { label: "Observed", kind: "number", cell: (cell) => `${percent(cell.came_true, 2)} (${percent(cell.low, 2)} to ${percent(cell.high, 2)})` },
  ];
  const details = figure.querySelector("details");
  details.ontoggle = () => { if (details.open) details.querySelector(".scroll").replaceChildren(table(columns, cells, { class: "" })); };
  details.ontoggle();
}

function showRuns(runs) {
  if (!runs.length) {
    find("runs").replaceChildren(el("p", { class: "soft" }, "No retraining runs for this registry yet."));
    return;
  }
  const columns = [
    { label: "Run", cell: (run) => el("code", {}, run.run) },
    { label: "Started", kind: "nowrap", cell: (run) => moment(Date.parse(run.started), false) },
    { label: "Trigger", cell: (run) => run.trigger },
    { label: "State", cell: (run) => verdict(STATES[run.state] ?? "none", words(run.state)) },
    { label: "Gates", cell: (run) => run.gates.length ? run.gates.map((gate) => el("div", {}, verdict(gate.passed ? "good" : "bad", `${gate.name}: ${gate.value ?? "–"} (${gate.rule})`))) : "–" },
    { label: "Model", cell: (run) => run.version ? el("code", {}, run.version) : "–" },
    { label: "Message", cell: (run) => run.message || "–" },
    { label: "Later decisions", cell: (run) => run.decisions.length ? run.decisions.map((decision) => el("div", {}, `${moment(Date.parse(decision.at))} ${decision.act}: ${decision.why}`)) : "–" },
  ];
  find("runs").replaceChildren(table(columns, runs));
}

function showLedger(lines) {
  if (!lines.length) {
    find("ledger").replaceChildren(el("p", { class: "soft" }, "No ledger."));
    return;
  }
  const columns = [
    { label: "Entry", cell: (line) => line.serves ? [`${line.number} `, verdict("good", "active")] : String(line.number) },
    { label: "Time", kind: "nowrap", cell: (line) => line.at ? moment(line.at) : "–" },
    { label: "Changed by", cell: (line) => line.by ?? "–" },
    { label: "Change", cell: (line) => line.problem ? verdict("wait", line.problem) : [el("code", {}, line.command), line.forced ? el("small", {}, "forced") : null, line.restores ? el("small", {}, `restores ${line.restores}`) : null] },
    { label: "Reason", cell: (line) => line.why ?? "–" },
  ];
  find("ledger").replaceChildren(table(columns, lines));
}
