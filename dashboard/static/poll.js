// Polls a page's data, and shows notices about stale or missing data.

import { el, find, milliseconds, moment, rate, say, timeZone } from "./dom.js";

const started = Date.now();

/** Calls `render` with the response of /data/NAME every `seconds` while the page is visible. Returns a function that asks at once. */
export function poll(name, seconds, render, query = () => "") {
  let timer = null;
  let answered = null;

  async function ask() {
    clearTimeout(timer);
    try {
      const response = await fetch(`/data/${name}${query()}`, { signal: AbortSignal.timeout(10_000) });
      if (!response.ok) throw new Error(`status ${response.status}`);
      const data = await response.json();
      answered = Date.now();
      showStatus(data.status);
      render(data);
    } catch (error) {
      if (error.name !== "TypeError" && error.name !== "TimeoutError" && !/^status/.test(error.message)) throw error;
      const since = answered ?? started;
      showNotices([["bad", `No response from the dashboard server since ${moment(since)}. ` +
        "The data below is from that time. Check that `make dashboard` is still running."]]);
      showClock("Disconnected", false);
    } finally {
      clearTimeout(timer);
      if (!document.hidden) timer = setTimeout(ask, seconds * 1000);
    }
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  ask();
  return ask;
}

/** Shows notices about the broker and the topics that a page depends on. */
export function showStatus(status) {
  const notices = [];
  if (status.broker === "asked") {
    notices.push(["wait", "Waiting for the first response from the Kafka broker."]);
  } else if (status.broker === "lost") {
    notices.push(["bad", `No response from the Kafka broker since ${moment(status.broker_lost)}. ` +
      `The data below is from that time. ${status.broker_error}`]);
  } else {
    for (const topic of status.topics) notices.push(...topicNotices(topic));
    if (status.backlog) notices.push(backlogNotice(status.backlog));
  }
  showNotices(notices);
  showClock(`Updated ${moment(status.now)} ${timeZone(status.now)}`, status.broker === "answers");
}

function topicNotices(topic) {
  const notices = [];
  if (topic.state === "missing") {
    notices.push(["wait", `Topic ${topic.topic} does not exist. Create it with intent topics --conf FILE.`]);
  } else if (topic.state === "empty") {
    notices.push(["wait", `Topic ${topic.topic} is empty: no records have been written to it yet.`]);
  } else if (topic.state === "silent") {
    notices.push(["bad", topic.newest === null
      ? `No new records in topic ${topic.topic}, and its earlier records have been deleted.`
      : `No records in topic ${topic.topic} since ${moment(topic.newest)}.`]);
  }
  if (topic.unreadable) {
    notices.push(["wait", `${topic.unreadable} records of topic ${topic.topic} could not be decoded; latest error: ${topic.last_error}`]);
  }
  return notices;
}

function backlogNotice({ trend, clicks_rate: clicks, answers_rate: answers, waiting_ms: waiting }) {
  // Rounded, so that the notice changes, and is read out, only now and then.
  const wait = `A click waits about ${milliseconds(Number(waiting.toPrecision(1)))} for its score.`;
  const rates = `${rate(Number(clicks.toPrecision(2)))} arrive per second, ${rate(Number(answers.toPrecision(2)))} are answered.`;
  if (trend === "grows") {
    return ["bad", `Clicks arrive faster than the job scores them: ${rates} ${wait} No click is lost while the topic's retention ` +
      "keeps them. Raise job.parallelism or reduce the traffic: docs/runbook.md, ConsumerLag."];
  }
  if (trend === "shrinks") return ["wait", `The job is catching up: ${rates} ${wait}`];
  return ["bad", `The job answers as many clicks as arrive, but with a backlog: ${rates} ${wait} See docs/runbook.md, ConsumerLag.`];
}

let shown = "";

function showNotices(notices) {
  // Screen readers announce every change here, so only news may change it.
  const text = JSON.stringify(notices);
  if (text === shown) return;
  shown = text;
  const region = find("notices");
  const kind = notices.some(([which]) => which === "bad") ? "bad" : "wait";
  region.replaceChildren(...(notices.length
    ? [el("div", { class: `notice ${kind}` }, notices.map(([, notice]) => el("p", {}, notice)))]
    : []));
}

function showClock(text, isLive) {
  const clock = find("clock");
  clock.className = isLive ? "clock" : "clock still";
  say(clock, text);
}
