// The line between a page and its process, and what all pages can do.
"use strict";
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

const fc = {
  /** Ask the process to do something. Before the line stands, what is asked waits. */
  send(facts) {
    if (fc._ready) emitEvent("fc", facts);
    else fc._waiting.push(facts);
  },
  _ready: false,
  _waiting: [],
  _asked: new Map(),

  /** Like `send`, with a button that stays quiet until it is answered. */
  ask(button, facts) {
    const ask = crypto.randomUUID ? crypto.randomUUID() : String(Math.random());
    if (button) {
      button.disabled = true;
      fc._asked.set(ask, button);
    }
    fc.send({ ...facts, ask });
  },
  answered(ask) {
    const button = fc._asked.get(ask);
    fc._asked.delete(ask);
    if (button) button.disabled = button.dataset.off === "true";
  },

  ready() {
    fc._ready = true;
    document.documentElement.dataset.ready = "true";
    for (const facts of fc._waiting.splice(0)) emitEvent("fc", facts);
    window.dispatchEvent(new Event("fc-ready"));
  },

  go(address) {
    location.href = address;
  },

  toast(message, tone = "good") {
    const box = document.createElement("div");
    box.className = `toast ${tone}`;
    box.textContent = message;
    $("#toasts").append(box);
    setTimeout(() => box.remove(), tone === "bad" ? 9000 : 4000);
  },

  /** Replace rows without losing the place of who reads or moves by keyboard. */
  rows(body, html) {
    const focused = body.contains(document.activeElement) ? document.activeElement.closest("tr")?.dataset.id : null;
    body.innerHTML = html;
    if (focused) $(`tr[data-id="${CSS.escape(focused)}"] a`, body)?.focus();
    fc.times(body);
  },

  times(within = document) {
    for (const time of $$("time[datetime]:not([data-shown])", within)) {
      const at = new Date(time.dateTime);
      const today = new Date().toDateString() === at.toDateString();
      time.title = at.toLocaleString();
      time.textContent = at.toLocaleString([], today
        ? { hour: "2-digit", minute: "2-digit", second: "2-digit" }
        : { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
      time.dataset.shown = "";
    }
    fc.clocks();
  },

  clocks() {
    for (const clock of $$("[data-since]")) clock.textContent = fc.seconds((Date.now() - new Date(clock.dataset.since)) / 1000);
  },

  seconds(value) {
    if (value < 0) value = 0;
    if (value < 60) return `${value.toFixed(1)} s`;
    const minutes = Math.floor(value / 60);
    if (minutes < 60) return `${minutes} min ${String(Math.floor(value % 60)).padStart(2, "0")} s`;
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  },
  dollars: (value) => (value < 1 ? `$${value.toFixed(4)}` : `$${value.toFixed(2)}`),
  number: (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f"),

  /** What stands in a generated form, or null after showing what is wrong. */
  value(form) {
    const whole = $("[data-form]", form) || form;
    const fields = $$("[data-name]", whole);
    let fine = true;
    const found = {};
    let alone;
    for (const field of fields) {
      const box = field.closest(".field");
      box?.classList.remove("wrong");
      const { name, kind } = field.dataset;
      if (kind === "boolean") { found[name] = field.checked; continue; }
      const text = field.value;
      if (text === "" && !(kind === "string" && field.required)) continue;
      try {
        const value = kind === "string" ? text : kind === "number" || kind === "integer" ? Number(text) : JSON.parse(text);
        if (name === "") alone = { value };
        else found[name] = value;
      } catch {
        box?.classList.add("wrong");
        field.focus();
        fine = false;
      }
    }
    if (!fine) { fc.toast("That is not JSON.", "bad"); return null; }
    return alone ? alone.value : found;
  },

  open(id) {
    const dialog = document.getElementById(id);
    if (dialog && !dialog.open) dialog.showModal();
    return dialog;
  },

  /** One of auto, light and dark; kept in this browser. */
  theme(kept) {
    document.documentElement.dataset.theme = kept;
    const dark = kept === "dark" || (kept === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    const button = $("#theme-button");
    if (button) {
      button.textContent = { auto: "◐", light: "☀", dark: "☾" }[kept];
      button.title = `Theme: ${kept}`;
      button.setAttribute("aria-label", `Theme: ${kept}. Change it`);
    }
    if (window.Quasar?.Dark) Quasar.Dark.set(dark);
    window.dispatchEvent(new CustomEvent("fc-theme", { detail: { dark } }));
    return dark;
  },
  isDark: () => {
    const kept = document.documentElement.dataset.theme;
    return kept === "dark" || (kept === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  },
};
window.fc = fc;

fc.start = {
  open(name) {
    $("#start-wrong").textContent = "";
    fc.open("start");
    fc.send({ do: "start-names", name: name || "" });
  },
  names(names, chosen) {
    const select = $("#start-name");
    select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
    if (names.length) fc.send({ do: "start-chosen", name: select.value });
    else $("#start-wrong").textContent = "There is no definition yet.";
  },
  fields(name, html) {
    if ($("#start-name").value !== name) return;
    $("#start-fields").innerHTML = html;
    $("#start-fields [data-name]")?.focus();
  },
  wrong(message) {
    $("#start-wrong").textContent = message;
  },
};

const KEYS = { r: "/console/", t: "/console/tasks", d: "/console/definitions", s: "/console/schedules", a: "/console/analytics", o: "/console/router" };
let afterG = 0;

function typed(event) {
  const at = event.target;
  const writing = at.closest?.("input, textarea, select, [contenteditable=true], .cm-editor");
  if (event.ctrlKey || event.metaKey || event.altKey || writing || $("dialog[open]")) return;
  if (afterG > Date.now() - 1200 && KEYS[event.key]) {
    event.preventDefault();
    fc.go(KEYS[event.key]);
  } else if (event.key === "/") {
    const search = $("input[type=search]");
    if (search) { event.preventDefault(); search.focus(); search.select(); }
  } else if (event.key === "?") {
    event.preventDefault();
    fc.open("keys");
  } else if (event.key === "n" && $("#start")) {
    event.preventDefault();
    fc.start.open($("#start").dataset.name);
  } else {
    window.dispatchEvent(new CustomEvent("fc-key", { detail: event }));
  }
  afterG = event.key === "g" ? Date.now() : 0;
}

document.addEventListener("DOMContentLoaded", () => {
  fc.theme(localStorage.getItem("facilitair-theme") || "auto");
  fc.times();
  setInterval(fc.clocks, 500);
  document.addEventListener("keydown", typed);
  $("#theme-button")?.addEventListener("click", () => {
    const order = ["auto", "light", "dark"];
    const next = order[(order.indexOf(document.documentElement.dataset.theme) + 1) % 3];
    localStorage.setItem("facilitair-theme", next);
    fc.theme(next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => fc.theme(document.documentElement.dataset.theme));
  $("#keys-button")?.addEventListener("click", () => fc.open("keys"));
  $("#new-run")?.addEventListener("click", () => fc.start.open($("#start").dataset.name));
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
  });
  const form = $("#start-form");
  if (form) {
    $("#start-name").addEventListener("change", (event) => fc.send({ do: "start-chosen", name: event.target.value }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const input = fc.value(form);
      if (input !== null) fc.ask($("button[type=submit]", form), { do: "start", name: $("#start-name").value, input });
    });
  }
  // NiceGUI's line: socket.io says when it is lost.
  const line = $("#line");
  setInterval(() => {
    const lost = fc._ready && window.socket && !window.socket.connected;
    if (line) line.textContent = lost ? "reconnecting…" : "";
  }, 1000);
});
