"use strict";
// Shows the page as it is now, every few seconds, without loading it anew: what did not change stays in place, and with
// it focus, scrolling, opened details and marked text.
(() => {
  const EVERY = 5000;
  const PATIENCE = 10000;
  const live = document.getElementById("live");
  let timer;
  let lost;

  const clock = () => new Date().toISOString().slice(11, 19) + " UTC";

  function say(text, isLost) {
    if (live.textContent !== text) live.textContent = text;
    live.classList.toggle("lost", isLost);
  }

  function sync(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
      old.replaceWith(document.importNode(fresh, true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of [...fresh.attributes]) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    after.forEach((node, n) => {
      if (n < before.length) sync(before[n], node);
      else old.append(document.importNode(node, true));
    });
    before.slice(after.length).forEach((node) => node.remove());
  }

  async function refresh() {
    clearTimeout(timer);
    if (!document.hidden) {
      try {
        const path = location.pathname + location.search;
        const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
        if (!answer.ok && answer.status !== 404) throw new Error(String(answer.status));
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const main = page.querySelector("main");
        if (!main) throw new Error("no page");
        sync(document.querySelector("main"), main);
        document.title = page.title;
        lost = undefined;
        say("Live", false);
      } catch {
        lost ??= clock();
        say(`The daemon has not answered since ${lost}; this page is as it was then`, true);
      }
    }
    timer = setTimeout(refresh, EVERY);
  }

  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  say("Live", false);
  timer = setTimeout(refresh, EVERY);
})();
