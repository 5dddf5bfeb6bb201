// Keeps the numbers of a digest that is being sent up to date. When its state changes, the page is loaded anew.
"use strict";

const progress = document.getElementById("progress");
const stateIn = (root) => root.querySelector("[data-state]")?.dataset.state;

async function refresh() {
  try {
    const response = await fetch(progress.dataset.live, { credentials: "same-origin", redirect: "error" });
    if (!response.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (stateIn(page) !== stateIn(progress)) {
      location.reload();
      return;
    }
    const isFocusInside = progress.contains(document.activeElement);
    if (!isFocusInside) progress.replaceChildren(...page.body.childNodes);
  } catch {
    // The server is restarting, or the session has ended; the next try will tell.
  }
}

if (progress?.dataset.live) setInterval(refresh, 3000);
