import { Chart, look } from "./chart.js";
import { histogram, strip } from "./drawings.js";
import { count, el, find, moment, number, percent, say, table, verdict } from "./dom.js";
import { poll } from "./poll.js";

const index = new Chart("index", { format: (value) => number(value, 3), top: 0.3, empty: "One window so far." });
const LEVELS = { stable: "good", watch: "wait", alarm: "bad" };
const versions = find("version");
let chosen = null;
let told = null;
let shownWindow = null;
let showsAll = false;
const FIRST = 12; // features that are shown, whatever their level

const ask = poll("drift", 3, (answer) => { told = answer; show(); }, () => versions.value ? `?version=${encodeURIComponent(versions.value)}` : "");
versions.addEventListener("change", () => { chosen = null; ask(); });
find("more").addEventListener("click", () => { showsAll = true; shownWindow = null; show(); });
document.addEventListener("themechange", () => { shownWindow = null; if (told) show(); });

function show() {
  const drift = told.drift;
  if (!drift) return;
  find("choice").hidden = drift.versions.length < 2;
  if (versions.options.length !== drift.versions.length) {
    versions.replaceChildren(...drift.versions.map((version) => el("option", { value: version, selected: version === drift.version }, version)));
  }
  const heading = find("headline");
  heading.className = `decision ${LEVELS[drift.level] ?? "none"}`;
  const since = drift.times[drift.levels.length - streak(drift.levels)];
  const moved = drift.moved.length ? `: ${drift.moved.slice(0, 3).join(", ")}${drift.moved.length > 3 ? ` and ${drift.moved.length - 3} more` : ""} moved` : ": nothing moved beyond chance";
  say(heading, `${drift.level[0].toUpperCase()}${drift.level.slice(1)}${moved}.`);
  say(find("lead"), `${drift.version} against what it was trained on. At this level since the window to ${moment(since, false)}; ` +
    `the newest, ${moment(drift.window_start, false)} to ${moment(drift.window_end, false)}, has ${count(drift.rows)} scores` +
    `${drift.label_rate === null ? "" : `, ${percent(drift.label_rate, 2)} of them with the outcome`}.`);
  chosen = drift.features.some((one) => one.name === chosen) ? chosen : drift.features[0].name;
  const feature = drift.features.find((one) => one.name === chosen);
  index.update([{ label: chosen, times: drift.times, values: feature.history, look: look(0) }]);
  const key = `${drift.version} ${drift.window_end} ${chosen}`;
  if (key === shownWindow) return;
  shownWindow = key;
  showHeat(drift);
  showFeature(drift.version, feature);
}

function streak(levels) {
  let length = 1;
  while (length < levels.length && levels.at(-1 - length) === levels.at(-1)) length += 1;
  return length;
}

function showHeat(drift) {
  const most = Math.max(0.25, ...drift.features.flatMap((one) => one.history).filter((value) => value !== null).map((value) => Math.min(1, value)));
  const columns = [
    { label: "feature", cell: (one) => {
      const button = el("button", { type: "button", "aria-pressed": String(one.name === chosen) }, one.name);
      button.addEventListener("click", () => { chosen = one.name; show(); find("compared").scrollIntoView({ block: "nearest" }); find("heat").querySelector("[aria-pressed=true]").focus({ preventScroll: true }); });
      return button;
    } },
    { label: `from ${moment(drift.times[0], false)} to ${moment(drift.times.at(-1), false)}`, cell: (one) => strip(one.history, one.levels, most) },
    { label: "index", kind: "number", cell: (one) => number(one.psi, 3) },
    { label: "missing", kind: "number", cell: (one) => percent(one.missing) },
    { label: "unseen", kind: "number", cell: (one) => percent(one.unseen) },
    { label: "level", cell: (one) => verdict(LEVELS[one.level] ?? "none", one.level) },
  ];
  const shown = drift.features.filter((one, at) => showsAll || at < FIRST || one.level !== "stable" || one.name === chosen);
  const more = find("more");
  more.hidden = showsAll || shown.length === drift.features.length;
  say(more, `Show all ${drift.features.length} features`);
  find("heat").replaceChildren(table(columns, shown.map((one) => ({ ...one, rowClass: one.name === chosen ? "chosen" : "" })), { class: "heat cards" }));
}

async function showFeature(version, feature) {
  say(find("feature"), feature.name);
  say(find("feature-note"), `index ${number(feature.psi, 3)}, ${feature.level}`);
  const response = await fetch(`/data/feature?version=${encodeURIComponent(version)}&name=${encodeURIComponent(feature.name)}`);
  if (!response.ok) return;
  const found = await response.json();
  const bins = found.current.map((_, at) => bin(found.edges, at));
  const series = [{ label: "newest window", shares: found.current }];
  if (found.reference) series.push({ label: "reference", shares: found.reference });
  else say(find("feature-note"), `index ${number(feature.psi, 3)}, ${feature.level}; the bundle's reference can't be read, so bins have no names`);
  histogram("compared", series, bins);
}

function bin(edges, at) {
  if (!edges) return `bin ${at + 1}`;
  const text = (value) => Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  if (!edges.length) return "all";
  if (at === 0) return `below ${text(edges[0])}`;
  return at === edges.length ? `${text(edges[at - 1])} or more` : `${text(edges[at - 1])} to ${text(edges[at])}`;
}
