// Keeps the numbers of a digest that is being sent up to date. When its state changes, the page is loaded anew.
"use strict";

const PAUSE = 3000;
const LONGEST_PAUSE = 30000;
const PATIENCE = 3; // attempts that may fail before somebody is told

const progress = document.getElementById("progress");
const said = document.getElementById("progress-said");
const lost = document.getElementById("progress-lost");
let failures = 0;
let timer;

const stateIn = (root) => root.querySelector("[data-state]")?.dataset.state;
const partsIn = (root) => new Map([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));

function take(page) {
  const known = partsIn(progress);
  const fresh = partsIn(page);
  if ([...fresh.keys()].join() !== [...known.keys()].join() && !progress.contains(document.activeElement)) {
    progress.replaceChildren(...page.body.childNodes);
    return;
  }
  for (const [name, part] of fresh) {
    const old = known.get(name);
    // What has the focus stays under it, and what is the same is left alone.
    if (old && !old.contains(document.activeElement) && old.innerHTML !== part.innerHTML) old.replaceWith(part);
  }
}

function say(page) {
  const words = page.querySelector("[data-said]")?.dataset.said ?? "";
  if (said.textContent !== words) said.textContent = words;
}

async function refresh() {
  try {
    const response = await fetch(progress.dataset.live, { credentials: "same-origin", redirect: "error" });
    if (!response.ok) throw new Error(response.status);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (stateIn(page) !== stateIn(progress)) {
      location.reload();
      return;
    }
    failures = 0;
    take(page);
    say(page);
  } catch {
    failures += 1; // the server is restarting, or the session has ended
  }
  lost.hidden = failures < PATIENCE;
  plan();
}

function plan() {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, Math.min(PAUSE * 2 ** failures, LONGEST_PAUSE));
}

if (progress?.dataset.live) {
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
  plan();
}
