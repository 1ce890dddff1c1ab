import { Chart, look } from "./chart.js";
import { histogram, strip } from "./drawings.js";
import { count, el, find, moment, number, percent, say, table, verdict } from "./dom.js";
import { poll } from "./poll.js";

const index = new Chart("index", { format: (value) => number(value, 3), top: 0.3, empty: "Waiting for a second window." });
const LEVELS = { stable: "good", watch: "wait", alarm: "bad" };
const UNWATCHED = { setting: "drift.unwatched", training_rows: "too few independent rows at training", window_rows: "too few independent rows in this window" };
const versions = find("version");
let chosen = null;
let data = null;
let shownWindow = null;
let showsAll = false;
const FIRST = 12; // features that are shown, whatever their level

const ask = poll("drift", 3, (answer) => { data = answer; show(); }, () => versions.value ? `?version=${encodeURIComponent(versions.value)}` : "");
versions.addEventListener("change", () => { chosen = null; ask(); });
find("more").addEventListener("click", () => { showsAll = true; shownWindow = null; show(); });
document.addEventListener("themechange", () => { shownWindow = null; if (data) show(); });

function show() {
  const drift = data.drift;
  if (!drift) return;
  find("choice").hidden = drift.versions.length < 2;
  const names = [...drift.versions].sort().join(); // which have no commas
  if (names !== versions.dataset.names) {
    versions.dataset.names = names;
    versions.replaceChildren(...drift.versions.map((version) => el("option", { value: version, selected: version === drift.version }, version)));
  }
  const heading = find("headline");
  heading.className = `decision ${LEVELS[drift.level] ?? "none"}`;
  const since = drift.times[drift.levels.length - streak(drift.levels)];
  const moved = drift.moved.length ? `: ${drift.moved.slice(0, 3).join(", ")}${drift.moved.length > 3 ? ` and ${drift.moved.length - 3} more` : ""} drifted` : ": no significant drift";
  say(heading, `${drift.level[0].toUpperCase()}${drift.level.slice(1)}${moved}.`);
  say(find("lead"), `${drift.version} compared with its training data. At this level since the window ending ${moment(since, false)}. ` +
    `Latest window: ${moment(drift.window_start, false)} to ${moment(drift.window_end, false)}, ${count(drift.rows)} scores` +
    `${drift.label_rate === null ? "" : `; positive rate of matured outcomes ${percent(drift.label_rate, 2)}`}.`);
  showUnwatched(drift.features);
  chosen = drift.features.some(({ name }) => name === chosen) ? chosen : drift.features[0].name;
  const feature = drift.features.find(({ name }) => name === chosen);
  index.update([{ label: chosen, times: drift.times, values: feature.history, look: look(0) }]);
  const key = `${drift.version} ${drift.window_end} ${chosen}`;
  if (key === shownWindow) return;
  shownWindow = key;
  showHeat(drift);
  showFeature(drift.version, feature);
}

function showUnwatched(features) {
  const reasons = Object.keys(UNWATCHED).map((reason) => [reason, features.filter(({ unwatched }) => unwatched === reason).map(({ name }) => name)]);
  const told = reasons.filter(([, names]) => names.length).map(([reason, names]) => `${listed(names)} (${UNWATCHED[reason]})`);
  find("unwatched").hidden = !told.length;
  say(find("unwatched"), `Not watched: ${told.join("; ")}.`);
}

function listed(names) {
  return names.length > 8 ? `${names.length} features` : names.join(", ");
}

function streak(levels) {
  let length = 1;
  while (length < levels.length && levels.at(-1 - length) === levels.at(-1)) length += 1;
  return length;
}

function showHeat(drift) {
  const most = Math.max(0.25, ...drift.features.flatMap(({ history }) => history).filter((value) => value !== null).map((value) => Math.min(1, value)));
  const columns = [
    { label: "Feature", cell: (feature) => {
      const button = el("button", { type: "button", "aria-pressed": String(feature.name === chosen) }, feature.name);
      button.addEventListener("click", () => { chosen = feature.name; show(); find("compared").scrollIntoView({ block: "nearest" }); find("heat").querySelector("[aria-pressed=true]").focus({ preventScroll: true }); });
      return button;
    } },
    { label: `PSI, ${moment(drift.times[0], false)} to ${moment(drift.times.at(-1), false)}`, cell: (feature) => strip(feature.history, feature.levels, most) },
    { label: "Current PSI", kind: "number", cell: (feature) => number(feature.psi, 3) },
    { label: "Missing", kind: "number", cell: (feature) => percent(feature.missing) },
    { label: "Unseen", kind: "number", cell: (feature) => percent(feature.unseen) },
    { label: "Level", cell: (feature) => feature.unwatched ? verdict("none", "not watched") : verdict(LEVELS[feature.level] ?? "none", feature.level) },
  ];
  const shown = drift.features.filter(({ name, level }, at) => showsAll || at < FIRST || level !== "stable" || name === chosen);
  const more = find("more");
  more.hidden = showsAll || shown.length === drift.features.length;
  say(more, `Show all ${drift.features.length} features`);
  find("heat").replaceChildren(table(columns, shown.map((feature) => ({ ...feature, rowClass: feature.name === chosen ? "chosen" : "" })), { class: "heat cards" }));
}

async function distributionsOf(version, name) {
  try {
    const response = await fetch(`/data/feature?version=${encodeURIComponent(version)}&name=${encodeURIComponent(name)}`);
    return response.ok ? await response.json() : null;
  } catch { // the poll tells that the server does not answer
    return null;
  }
}

async function showFeature(version, feature) {
  say(find("feature"), feature.name);
  const level = feature.unwatched ? `not watched: ${UNWATCHED[feature.unwatched]}` : feature.level;
  say(find("feature-note"), `PSI ${number(feature.psi, 3)}, ${level}`);
  const asked = shownWindow;
  const distributions = await distributionsOf(version, feature.name);
  if (asked !== shownWindow) return; // another one has been chosen meanwhile
  if (!distributions) {
    shownWindow = null; // asked for again with the next answer
    histogram("compared", [], []);
    return;
  }
  const bins = distributions.bins ?? distributions.current.map((_, at) => `bin ${at + 1}`);
  const series = [{ label: "latest window", shares: distributions.current }];
  if (distributions.reference) series.push({ label: "training reference", shares: distributions.reference });
  else say(find("feature-note"), `PSI ${number(feature.psi, 3)}, ${level}; bin ranges are unknown because the bundle's reference cannot be read`);
  histogram("compared", series, bins);
}
