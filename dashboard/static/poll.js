// Asks for a page's data again and again, and says plainly what is old or missing.

import { el, find, moment, say } from "./dom.js";

const started = Date.now();

/** Calls `render` with what /data/NAME answers, every `seconds` while the page is visible. Returns what asks at once. */
export function poll(name, seconds, render, query = () => "") {
  let timer = null;
  let answered = null;

  async function ask() {
    clearTimeout(timer);
    try {
      const response = await fetch(`/data/${name}${query()}`, { signal: AbortSignal.timeout(10_000) });
      if (!response.ok) throw new Error(`status ${response.status}`);
      const told = await response.json();
      answered = Date.now();
      showStatus(told.status);
      render(told);
    } catch (error) {
      if (error.name !== "TypeError" && error.name !== "TimeoutError" && !/^status/.test(error.message)) throw error;
      const since = answered ?? started;
      showNotices([["bad", `The dashboard itself does not answer since ${moment(since)}. ` +
        "What is below is from then. Is `make dashboard` still running?"]]);
      showClock("Not connected", false);
    } finally {
      clearTimeout(timer);
      if (!document.hidden) timer = setTimeout(ask, seconds * 1000);
    }
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  ask();
  return ask;
}

/** What there is to say of the broker and the topics that a page rests on. */
export function showStatus(status) {
  const notices = [];
  if (status.broker === "asked") {
    notices.push(["wait", "The broker has been asked, and has not answered yet."]);
  } else if (status.broker === "lost") {
    notices.push(["bad", `The broker does not answer since ${moment(status.broker_lost)}. ` +
      `What is below is what was known then. ${status.broker_error}`]);
  } else {
    for (const topic of status.topics) notices.push(...topicNotices(topic));
  }
  showNotices(notices);
  showClock(`As of ${moment(status.now)}`, status.broker === "answers");
}

function topicNotices(topic) {
  const found = [];
  if (topic.state === "missing") {
    found.push(["wait", `Topic ${topic.topic} does not exist. python -m jobs.ops.topics creates it.`]);
  } else if (topic.state === "empty") {
    found.push(["wait", `Topic ${topic.topic} is empty: nothing has been written to it yet.`]);
  } else if (topic.state === "silent") {
    found.push(["bad", topic.newest === null
      ? `Topic ${topic.topic} is silent, and what it once held is gone.`
      : `Topic ${topic.topic} is silent since ${moment(topic.newest)}.`]);
  }
  if (topic.unreadable) {
    found.push(["wait", `${topic.unreadable} records of topic ${topic.topic} could not be read; the last one: ${topic.last_error}`]);
  }
  return found;
}

let shown = "";

function showNotices(notices) {
  // A screen reader tells whatever changes here, so nothing does that is no news.
  const text = JSON.stringify(notices);
  if (text === shown) return;
  shown = text;
  const region = find("notices");
  const kind = notices.some(([which]) => which === "bad") ? "bad" : "wait";
  region.replaceChildren(...(notices.length
    ? [el("div", { class: `notice ${kind}` }, notices.map(([, told]) => el("p", {}, told)))]
    : []));
}

function showClock(text, isLive) {
  const clock = find("clock");
  clock.className = isLive ? "clock" : "clock still";
  say(clock, text);
}
