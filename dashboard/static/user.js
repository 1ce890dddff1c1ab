import { Chart, look } from "./chart.js";
import { find, moment, number, say } from "./dom.js";
import { showStatus } from "./poll.js";

for (const time of document.querySelectorAll("time[data-ms]")) say(time, moment(Number(time.dataset.ms)));
showStatus({ now: Number(find("clock").dataset.now), broker: "answers", topics: [] });

if (find("scores")) {
  const points = new Map([...document.querySelectorAll("#events tr[data-score]")].map((row) => [Number(row.dataset.ms), Number(row.dataset.score)]));
  const times = [...points.keys()].sort((a, b) => a - b);
  new Chart("scores", { format: (value) => number(value, 4), axis: (value) => number(value, 2), empty: "No scores found." })
    .update([{ label: "score", times, values: times.map((time) => points.get(time)), look: look(0) }]);
}
