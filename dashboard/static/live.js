import { Chart, look } from "./chart.js";
import { histogram } from "./drawings.js";
import { ago, count, el, find, milliseconds, moment, percent, rate, say, table, verdict } from "./dom.js";
import { poll } from "./poll.js";

const rates = new Chart("rates", { format: rate, axis: count });
const minutes = new Chart("minutes", { format: rate, axis: count, empty: "Waiting for the first full minute." });
const latency = new Chart("latency", { format: milliseconds, empty: "No latency data yet: scores and their clicks are required." });
const LEVELS = { stable: "good", watch: "wait", alarm: "bad" };
const STATES = { flowing: ["good", "active"], quiet: ["none", "idle"], silent: ["bad", "silent"], empty: ["none", "empty"],
  missing: ["wait", "missing"], unknown: ["none", "checking"] };

poll("live", 1, (data) => {
  const topics = Object.fromEntries(data.topics.map((topic) => [topic.role, topic]));
  const { clicks, scores, dead_letters: dead } = topics;
  say(find("events"), rate(clicks.rate));
  say(find("scores"), rate(scores.rate));
  const p99 = data.latency?.p99 ?? null;
  say(find("p99"), milliseconds(p99));
  find("budget").replaceChildren(p99 === null
    ? `budget ${milliseconds(data.budget_ms)}`
    : verdict(p99 <= data.budget_ms ? "good" : "bad", `${p99 <= data.budget_ms ? "within" : "over"} the ${milliseconds(data.budget_ms)} budget`));
  say(find("dead"), clicks.rate && dead.rate !== null ? percent(dead.rate / clicks.rate, 2) : rate(dead.rate));
  say(find("headline"), headline(data, clicks, scores));

  const line = (role, label, at) => ({ label, ...data.rates[role], look: look(at) });
  rates.update([line("clicks", "events", 0), line("scores", "scores", 1)]);
  minutes.update(["clicks", "scores"].map((role, at) => ({ label: at ? "scores" : "events", ...data.rates_by_minute[role], look: look(at) })));
  const { times, ...percentiles } = data.latencies;
  latency.update(Object.entries(percentiles).map(([name, values], at) => ({ label: name, times, values, look: look(at) })),
    [{ label: "budget", value: data.budget_ms }]);
  histogram("spread", [{ label: "share of scores", shares: data.histogram }], data.histogram.map((_, at, all) => `${at / all.length} to ${(at + 1) / all.length}`));
  say(find("acted"), data.acted === null ? "" : `decision "act": ${percent(data.acted)} of these scores`);

  showExperiment(data.experiment);
  showDrift(data.drift, data.status.now);
  showServing(data);
  showTopics(data);
});

function headline(data, clicks, scores) {
  if (scores.state === "missing" || clicks.state === "missing") return "Required topics are missing";
  if (data.status.broker !== "answers") return "No response from the Kafka broker";
  if (clicks.state !== "flowing") return clicks.newest ? `No events since ${moment(clicks.newest)}` : "No events yet";
  if (scores.state !== "flowing") return scores.newest ? `Events are arriving, but no scores since ${moment(scores.newest)}` : "Events are arriving, but no scores yet";
  const over = data.latency && data.latency.p99 > data.budget_ms;
  return over ? "Scoring latency is over budget" : "Scoring events in real time";
}

function showExperiment(experiment) {
  find("experiment").replaceChildren(...(experiment
    ? [el("p", {}, verdict(experiment.verdict, experiment.decision)),
      el("p", { class: "soft" }, `${experiment.names.join(" vs. ")}, evaluated at ${moment(experiment.at)}`)]
    : [el("p", { class: "soft" }, "No experiment results yet.")]));
}

function showDrift(drift, now) {
  const node = find("drift");
  if (!drift) {
    node.replaceChildren(el("p", { class: "soft" }, "No drift results yet."));
    return;
  }
  const moved = drift.moved.length ? `Most drifted: ${drift.moved.slice(0, 3).join(", ")}` : "No significant drift.";
  node.replaceChildren(el("p", {}, verdict(LEVELS[drift.level] ?? "none", drift.level)), el("p", {}, moved),
    el("p", { class: "soft" }, `${drift.version}, window ending ${moment(drift.window_end, false)} (${ago(drift.window_end, now)} ago)`));
}

function showServing(data) {
  const node = find("serving");
  const lines = (data.serving ?? []).map((arm) => el("p", {}, el("strong", {}, arm.shadow ? "shadow" : `${arm.arm} ${percent(arm.share, 0)}`), arm.version === "rule" ? " rule-based, no model" : [" ", el("code", {}, arm.version)]));
  if (data.models_error) lines.push(el("p", {}, verdict("wait", data.models_error)));
  node.replaceChildren(...lines);
}

function showTopics(data) {
  const columns = [
    { label: "Topic", cell: (topic) => topic.topic },
    { label: "State", cell: (topic) => verdict(...(STATES[topic.state] ?? STATES.unknown)) },
    { label: "Latest record", kind: "nowrap", cell: (topic) => topic.newest ? `${ago(topic.newest, data.status.now)} ago` : "–" },
    { label: "Records per second", kind: "number", cell: (topic) => rate(topic.rate) },
    { label: "Total offsets", kind: "number wide", cell: (topic) => count(topic.records) },
    { label: "Undecodable", kind: "number wide", cell: (topic) => count(topic.unreadable) },
  ];
  find("topics").replaceChildren(table(columns, data.topics, { class: "" }));
}
