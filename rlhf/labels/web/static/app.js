// The label page's keys, drafts and announcements. Without this file every page works, by mouse and Tab alone.
"use strict";

(() => {
  document.documentElement.classList.add("js");
  const form = document.querySelector("form[data-lease]");
  const live = document.getElementById("live");
  const byId = (id) => document.getElementById(id);

  function say(words) {
    if (live) live.textContent = words;
  }

  // Storage may be forbidden; then there are no drafts, and nothing else changes.
  function stored(action) {
    try {
      return action(window.sessionStorage);
    } catch {
      return null;
    }
  }

  // Drafts: what is chosen and written on a page, until its answer has arrived

  const PREFIX = "draft:";
  const SENT = "sent";
  const key = form ? `${PREFIX}${form.dataset.lease}:${form.dataset.revision}` : null;
  const kept = (field) => field.name && field.type !== "hidden" && field.tagName !== "BUTTON";

  function keep() {
    const draft = {};
    for (const field of [...form.elements].filter(kept)) {
      if (field.type !== "radio") draft[field.name] = field.value;
      else if (field.checked) draft[field.name] = field.value;
    }
    stored((storage) => storage.setItem(key, JSON.stringify(draft)));
  }

  function restore() {
    const text = stored((storage) => storage.getItem(key));
    if (!text) return;
    const draft = JSON.parse(text);
    for (const field of [...form.elements].filter(kept)) {
      if (!(field.name in draft)) continue;
      if (field.type === "radio") field.checked = field.value === draft[field.name];
      else field.value = draft[field.name];
    }
  }

  // A page for another task, or for none, is the proof that the answer arrived.
  function forget() {
    const sent = stored((storage) => storage.getItem(SENT));
    if (!sent || sent === key) return;
    stored((storage) => {
      storage.removeItem(sent);
      storage.removeItem(SENT);
    });
    say("Saved. This is the next task.");
  }

  function leave() {
    stored((storage) => {
      for (const name of Object.keys(storage)) {
        if (name.startsWith(PREFIX) || name === SENT) storage.removeItem(name);
      }
    });
  }

  // Sending: once, and nothing else while the answer is on its way

  const TOO_LONG_MS = 10_000;
  let isBusy = false;

  function allButtons() {
    return document.querySelectorAll("main button, header button");
  }

  function once(event) {
    const sender = event.target;
    if (sender.method === "dialog") return;
    if (isBusy) {
      event.preventDefault();
      return;
    }
    isBusy = true;
    if (sender === form) {
      keep();
      stored((storage) => storage.setItem(SENT, key));
      say("Saving.");
    }
    if (sender.getAttribute("action") === "/logout") leave();
    // later: a disabled button would not be sent
    setTimeout(() => allButtons().forEach((button) => (button.disabled = true)));
    // the server stores an answer once, so a second try does no harm
    setTimeout(wake, TOO_LONG_MS);
  }

  function wake() {
    isBusy = false;
    allButtons().forEach((button) => (button.disabled = false));
  }

  // Keys

  function choose(digit) {
    const radio = form.querySelector(`input[data-key="${digit}"]`);
    if (!radio) return false;
    radio.checked = true;
    radio.dispatchEvent(new Event("change", { bubbles: true }));
    // so that Enter submits, and does not press what was used before
    if (document.activeElement.matches("summary, button, a")) document.activeElement.blur();
    say(`${words(radio)}. Press Enter to submit.`);
    return true;
  }

  // The words that are seen: a side has another name where the answers are stacked
  function words(radio) {
    return radio.labels[0].querySelector("span").innerText.replace(/\s+/g, " ").trim();
  }

  function toggleView(name) {
    const radio = byId(`view-${name}`);
    const shown = radio.checked ? byId("view-formatted") : radio;
    shown.checked = true;
    say(`${shown.value} texts`);
  }

  function openPanel(id) {
    const panel = byId(id);
    panel.open = !panel.open;
    const first = panel.querySelector(panel.open ? "button, select" : "summary");
    first.focus();
  }

  function openDialog(id) {
    const dialog = byId(id);
    if (!dialog.open) dialog.showModal();
  }

  const ACTIONS = {
    enter: () => form.requestSubmit(byId("submit")),
    s: () => openPanel("skip"),
    f: () => openPanel("flag"),
    u: () => byId("undo-last").click(),
    d: () => toggleView("differences"),
    r: () => toggleView("raw"),
    g: () => openDialog("guidelines"),
    "?": () => openDialog("help"),
  };

  // What each key works on; without it the key rests.
  const NEEDED = {
    enter: "submit",
    s: "skip",
    f: "flag",
    u: "undo-last",
    d: "view-differences",
    r: "view-raw",
    g: "guidelines",
    "?": "help",
  };

  function isTyping(target) {
    return target.matches("textarea, select, input:not([type=radio])");
  }

  function press(event) {
    const { target, key: pressed } = event;
    if (pressed === "Escape") return escape(target);
    if (isBusy || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
    if (isTyping(target) || document.querySelector("dialog[open]")) return;
    if (pressed === "Enter" && target.closest("button, a, summary")) return;
    const name = pressed.toLowerCase();
    if (name in ACTIONS && byId(NEEDED[name])) {
      event.preventDefault();
      ACTIONS[name]();
    } else if (form && /^[0-5]$/.test(pressed) && choose(pressed)) {
      event.preventDefault();
    }
  }

  function escape(target) {
    for (const panel of document.querySelectorAll("details.panel[open]")) {
      panel.open = false;
      if (panel.contains(target)) target.blur();
    }
    if (isTyping(target) && !target.closest("dialog, .panel")) target.blur();
  }

  // Begin

  document.addEventListener("submit", once);
  window.addEventListener("pageshow", (event) => event.persisted && wake());
  document.addEventListener("keydown", press);
  if (form || document.querySelector("[data-nothing]")) forget();
  if (byId("guidelines")) {
    byId("to-guidelines").addEventListener("click", (event) => {
      event.preventDefault();
      openDialog("guidelines");
    });
  }
  for (const opener of document.querySelectorAll("[data-open]")) {
    opener.addEventListener("click", () => openDialog(opener.dataset.open));
  }
  if (!form) return;
  restore();
  form.addEventListener("input", keep);
  form.addEventListener("change", keep);
  const flag = byId("flag");
  flag.addEventListener("input", () => flag.classList.toggle("set", byId("flag-kind").value + byId("flag-note").value !== ""));
  // Each task has an address of its own, so that a reload and the back button show the same one.
  const own = form.getAttribute("action");
  if (window.location.pathname === "/label") window.history.replaceState(null, "", own);
})();
