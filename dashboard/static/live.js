import { Chart, look } from "./chart.js";
import { histogram } from "./drawings.js";
import { ago, count, el, find, milliseconds, moment, percent, rate, say, table, verdict } from "./dom.js";
import { poll } from "./poll.js";

const rates = new Chart("rates", { format: rate, axis: count });
const minutes = new Chart("minutes", { format: rate, axis: count, empty: "The first minute is not over yet." });
const latency = new Chart("latency", { format: milliseconds, empty: "No latency could be measured yet: scores and their clicks are needed." });
const LEVELS = { stable: "good", watch: "wait", alarm: "bad" };
const STATES = { flowing: ["good", "flowing"], quiet: ["none", "quiet"], silent: ["bad", "silent"], empty: ["none", "empty"],
  missing: ["wait", "does not exist"], unknown: ["none", "not asked yet"] };

poll("live", 1, (told) => {
  const topics = Object.fromEntries(told.topics.map((topic) => [topic.role, topic]));
  const { clicks, scores, dead_letters: dead } = topics;
  say(find("events"), rate(clicks.rate));
  say(find("scores"), rate(scores.rate));
  const p99 = told.latency?.p99 ?? null;
  say(find("p99"), milliseconds(p99));
  find("budget").replaceChildren(p99 === null
    ? `the budget is ${milliseconds(told.budget_ms)}`
    : verdict(p99 <= told.budget_ms ? "good" : "bad", `${p99 <= told.budget_ms ? "within" : "over"} the budget of ${milliseconds(told.budget_ms)}`));
  say(find("dead"), clicks.rate && dead.rate !== null ? percent(dead.rate / clicks.rate, 2) : rate(dead.rate));
  say(find("headline"), headline(told, clicks, scores));

  const line = (role, label, at) => ({ label, ...told.rates[role], look: look(at) });
  rates.update([line("clicks", "events", 0), line("scores", "scores", 1)]);
  minutes.update(["clicks", "scores"].map((role, at) => ({ label: at ? "scores" : "events", ...told.rates_by_minute[role], look: look(at) })));
  const { times, ...percentiles } = told.latencies;
  latency.update(Object.entries(percentiles).map(([name, values], at) => ({ label: name.replace("p", "") + " %", times, values, look: look(at) })),
    [{ label: "budget", value: told.budget_ms }]);
  histogram("spread", [{ label: "share of scores", shares: told.histogram }], told.histogram.map((_, at, all) => `${at / all.length} to ${(at + 1) / all.length}`));
  say(find("acted"), told.acted === null ? "" : `${percent(told.acted)} of them decide to act`);

  showExperiment(told.experiment);
  showDrift(told.drift, told.status.now);
  showServing(told);
  showTopics(told);
});

function headline(told, clicks, scores) {
  if (scores.state === "missing" || clicks.state === "missing") return "The topics are not all there";
  if (told.status.broker !== "answers") return "The broker does not answer";
  if (clicks.state !== "flowing") return clicks.newest ? `No events since ${moment(clicks.newest)}` : "No events yet";
  if (scores.state !== "flowing") return scores.newest ? `Events come, scores have not since ${moment(scores.newest)}` : "Events come, and no scores yet";
  const over = told.latency && told.latency.p99 > told.budget_ms;
  return over ? "Events are scored, later than the budget allows" : "Events are scored as they come";
}

function showExperiment(experiment) {
  find("experiment").replaceChildren(experiment
    ? el("p", {}, verdict(experiment.verdict, experiment.decision))
    : el("p", { class: "soft" }, "No experiment has been looked at yet."));
}

function showDrift(drift, now) {
  const node = find("drift");
  if (!drift) {
    node.replaceChildren(el("p", { class: "soft" }, "No window has been compared yet."));
    return;
  }
  const moved = drift.moved.length ? `Moved most: ${drift.moved.slice(0, 3).join(", ")}` : "Nothing has moved beyond chance.";
  node.replaceChildren(el("p", {}, verdict(LEVELS[drift.level] ?? "none", drift.level)), el("p", {}, moved),
    el("p", { class: "soft" }, `${drift.version}, window to ${moment(drift.window_end, false)}, ${ago(drift.window_end, now)} ago`));
}

function showServing(told) {
  const node = find("serving");
  const lines = (told.serving ?? []).map((arm) => el("p", {}, el("strong", {}, arm.shadow ? "shadow" : `${arm.arm} ${percent(arm.share, 0)}`), arm.version === "rule" ? " the rule decides" : [" ", el("code", {}, arm.version)]));
  if (told.models_error) lines.push(el("p", {}, verdict("wait", told.models_error)));
  node.replaceChildren(...lines);
}

function showTopics(told) {
  const columns = [
    { label: "topic", cell: (topic) => topic.topic },
    { label: "state", cell: (topic) => verdict(...(STATES[topic.state] ?? STATES.unknown)) },
    { label: "newest record", kind: "nowrap", cell: (topic) => topic.newest ? `${ago(topic.newest, told.status.now)} ago` : "–" },
    { label: "a second", kind: "number", cell: (topic) => rate(topic.rate) },
    { label: "offsets in all", kind: "number wide", cell: (topic) => count(topic.records) },
    { label: "not readable", kind: "number wide", cell: (topic) => count(topic.unreadable) },
  ];
  find("topics").replaceChildren(table(columns, told.topics, { class: "" }));
}
