import { Chart, look } from "./chart.js";
import { ago, count, el, find, moment, percent, rate, say, table, words } from "./dom.js";
import { poll } from "./poll.js";

const chart = new Chart("reasons", { format: count, empty: "No rejected records in the last 3 hours." });
const reason = find("reason");
let data = null;
let shownSamples = null;

poll("dead-letters", 2, (answer) => { data = answer; show(); });
reason.addEventListener("change", show);

function show() {
  const now = data.status.now;
  const all = data.reasons.reduce((sum, row) => sum + row.count, 0);
  const share = data.clicks.rate && data.topic.rate !== null ? ` (${percent(data.topic.rate / data.clicks.rate, 2)} of clicks)` : "";
  say(find("headline"), all ? `${rate(data.topic.rate)} dead letters per second${share}` : "No dead letters");
  say(find("lead"), all
    ? `${count(all)} dead letters read, starting 24 hours before the dashboard started. Latest: ${ago(data.topic.newest ?? now, now)} ago.` +
      (data.skipped ? ` ${count(data.skipped)} more arrived too fast to be read and are not included below.` : "")
    : "No records have been rejected in the last 24 hours.");
  const named = data.reasons.slice(0, 3).map(({ reason: name }, at) => ({ label: words(name), times: data.by_minute[name].times, values: data.by_minute[name].counts, look: look(at) }));
  chart.update(fillGaps(named.length > 1 ? [...named, total(data.by_minute)] : named));
  const columns = [
    { label: "Reason", cell: (row) => words(row.reason) },
    { label: "Count", kind: "number", cell: (row) => count(row.count) },
    { label: "Share", kind: "number", cell: (row) => percent(row.count / all) },
  ];
  find("counts").replaceChildren(all ? table(columns, data.reasons, { class: "" }) : el("p", { class: "soft" }, "No dead letters."));
  showChoice();
  const samples = data.samples.filter((sample) => !reason.value || sample.counted_as === reason.value).slice(0, 25);
  showSamples(samples);
}

/** Only what has changed is replaced: focus, scrolling and a selection would be lost every two seconds. */
function showSamples(samples) {
  const text = JSON.stringify(samples);
  if (text === shownSamples) return;
  shownSamples = text;
  find("samples").replaceChildren(...(samples.length ? samples.map(sampleOf) : [el("p", { class: "soft" }, "No samples.")]));
}

/** Minutes without records count as 0, from the first one shown until now; the current one is incomplete, and left out. */
function fillGaps(lines) {
  const times = [];
  for (let time = Math.min(...lines.flatMap((line) => line.times)); time + 60_000 <= data.status.now; time += 60_000) times.push(time);
  return lines.map((line) => {
    const known = new Map(line.times.map((time, at) => [time, line.values[at]]));
    return { ...line, times, values: times.map((time) => known.get(time) ?? 0) };
  });
}

function total(byMinute) {
  const sums = new Map();
  for (const { times, counts } of Object.values(byMinute)) times.forEach((time, at) => sums.set(time, (sums.get(time) ?? 0) + counts[at]));
  const times = [...sums.keys()].sort((a, b) => a - b);
  return { label: "total", times, values: times.map((time) => sums.get(time)), look: look(4) };
}

function showChoice() {
  const names = data.reasons.map((row) => row.reason);
  if (names.join() === reason.dataset.names) return;
  const chosen = reason.value;
  reason.dataset.names = names.join();
  reason.replaceChildren(el("option", { value: "" }, "All reasons"), ...names.map((name) => el("option", { value: name, selected: name === chosen }, words(name))));
}

function sampleOf(sample) {
  return el("article", { class: "sample" },
    el("p", {}, el("strong", {}, words(sample.reason)), ` · ${sample.message}`),
    el("p", { class: "soft" }, `${moment(sample.at)}, topic ${sample.topic}, partition ${sample.partition}, offset ${sample.offset}`),
    sample.original === null
      ? el("p", { class: "soft" }, "The record is empty.")
      : el("pre", { tabindex: "0", "aria-label": "Rejected record" }, sample.original + (sample.bytes > 400 ? ` … (${count(sample.bytes)} bytes)` : "")));
}
