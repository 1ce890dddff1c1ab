import { Chart, look } from "./chart.js";
import { ago, count, el, find, moment, percent, rate, say, table, words } from "./dom.js";
import { poll } from "./poll.js";

const chart = new Chart("reasons", { format: count, empty: "No record has been rejected." });
const reason = find("reason");
let told = null;

poll("dead-letters", 2, (answer) => { told = answer; show(); });
reason.addEventListener("change", show);

function show() {
  const now = told.status.now;
  const all = told.reasons.reduce((sum, one) => sum + one.count, 0);
  const share = told.clicks.rate && told.topic.rate !== null ? ` now, ${percent(told.topic.rate / told.clicks.rate, 2)} of what comes` : "";
  say(find("headline"), all ? `${rate(told.topic.rate)} dead letters a second${share}` : "No dead letters");
  say(find("lead"), all
    ? `${count(all)} were read since a day ago, the newest ${ago(told.topic.newest ?? now, now)} ago.` +
      (told.skipped ? ` ${count(told.skipped)} more came too fast to read: the reasons are those of the others.` : "")
    : "Nothing has been rejected in the last day.");
  const named = told.reasons.slice(0, 3).map((one, at) => ({ label: words(one.reason), times: told.by_minute[one.reason].times, values: told.by_minute[one.reason].counts, look: look(at) }));
  chart.update(fillGaps(named.length > 1 ? [...named, together(told.by_minute)] : named));
  const columns = [
    { label: "reason", cell: (one) => words(one.reason) },
    { label: "how many", kind: "number", cell: (one) => count(one.count) },
    { label: "share", kind: "number", cell: (one) => percent(one.count / all) },
  ];
  find("counts").replaceChildren(all ? table(columns, told.reasons, { class: "" }) : el("p", { class: "soft" }, "Nothing."));
  showChoice();
  const samples = told.samples.filter((sample) => !reason.value || sample.reason === reason.value).slice(0, 25);
  find("samples").replaceChildren(...(samples.length ? samples.map(sampleOf) : [el("p", { class: "soft" }, "Nothing.")]));
}

/** A minute without any has none, which is not unknown; the current one is not over. */
function fillGaps(lines) {
  const thisMinute = told.status.now - (told.status.now % 60_000);
  const times = [...new Set(lines.flatMap((line) => line.times))].filter((time) => time < thisMinute).sort((a, b) => a - b);
  return lines.map((line) => {
    const known = new Map(line.times.map((time, at) => [time, line.values[at]]));
    return { ...line, times, values: times.map((time) => known.get(time) ?? 0) };
  });
}

function together(byMinute) {
  const sums = new Map();
  for (const { times, counts } of Object.values(byMinute)) times.forEach((time, at) => sums.set(time, (sums.get(time) ?? 0) + counts[at]));
  const times = [...sums.keys()].sort((a, b) => a - b);
  return { label: "all", times, values: times.map((time) => sums.get(time)), look: look(4) };
}

function showChoice() {
  const names = told.reasons.map((one) => one.reason);
  if (names.join() === reason.dataset.names) return;
  const chosen = reason.value;
  reason.dataset.names = names.join();
  reason.replaceChildren(el("option", { value: "" }, "all"), ...names.map((name) => el("option", { value: name, selected: name === chosen }, words(name))));
}

function sampleOf(sample) {
  return el("article", { class: "sample" },
    el("p", {}, el("strong", {}, words(sample.reason)), ` · ${sample.message}`),
    el("p", { class: "soft" }, `${moment(sample.at)}, topic ${sample.topic}, partition ${sample.partition}, offset ${sample.offset}`),
    sample.original === null
      ? el("p", { class: "soft" }, "The record has no bytes.")
      : el("pre", { tabindex: "0", "aria-label": "the rejected record" }, sample.original + (sample.bytes > 400 ? ` … (${count(sample.bytes)} bytes)` : "")));
}
