// The list of definitions, and the page where one is written.
"use strict";
fc.editor = {
  fine(html) {
    $("#verdict").innerHTML = html;
    $("#save").dataset.off = "false";
    $("#save").disabled = false;
  },
  wrong(html, count) {
    $("#verdict").innerHTML = html;
    $("#canvas").classList.add("stale");
    $("#save").dataset.off = "true";
    $("#save").disabled = true;
  },
  draw(picture, estimate) {
    const canvas = $("#canvas");
    const { scrollLeft, scrollTop } = canvas;
    canvas.classList.remove("stale");
    canvas.innerHTML = picture;
    const svg = $("svg", canvas);
    const room = canvas.clientWidth - 4;
    const box = svg.viewBox.baseVal;
    const scale = room > 0 ? Math.max(0.5, Math.min(1, room / box.width)) : 1;
    svg.setAttribute("width", box.width * scale);
    svg.setAttribute("height", box.height * scale);
    Object.assign(canvas, { scrollLeft, scrollTop });
    $("#estimate").innerHTML = estimate;
  },
  versions(html) {
    $("#view-versions").innerHTML = html;
    fc.times($("#view-versions"));
  },
  diff(html) {
    $("#view-diff").innerHTML = html;
    fc.editor.tab("diff");
  },
  stored(name, version) {
    $("#version").textContent = `@${version}`;
    history.replaceState(null, "", location.pathname);
  },
  tab(name) {
    for (const button of $$("[role=tab]")) {
      const is = button.id === `tab-${name}`;
      button.setAttribute("aria-selected", String(is));
      button.tabIndex = is ? 0 : -1;
      $(`#view-${button.id.slice(4)}`).hidden = !is;
    }
  },
};

function list() {
  $("#search").addEventListener("input", (event) => {
    const words = event.target.value.trim().toLowerCase();
    for (const row of $$("#rows tr[data-id]")) row.hidden = !$("td", row).textContent.toLowerCase().includes(words);
  });
  $("#rows").addEventListener("click", (event) => {
    const start = event.target.closest("[data-start]");
    const row = event.target.closest("tr[data-id]");
    if (start) fc.start.open(start.dataset.start);
    else if (row && !event.target.closest("a")) fc.go($("a", row).href);
  });
}

function write() {
  const save = (event) => { if (!$("#save").disabled) fc.ask($("#save"), { do: "save" }); event.preventDefault(); };
  $("#save").addEventListener("click", save);
  document.addEventListener("keydown", (event) => { if ((event.ctrlKey || event.metaKey) && event.key === "s") save(event); });
  $("#file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    if (file.size > 900_000) fc.toast("That file is too large for the editor.", "bad");
    else fc.send({ do: "load", text: await file.text() });
    event.target.value = "";
  });
  $("#verdict").addEventListener("click", (event) => {
    const problem = event.target.closest(".problem");
    if (problem?.dataset.line) fc.send({ do: "jump", line: Number(problem.dataset.line) });
  });
  const tabs = $("[role=tablist]");
  tabs.addEventListener("click", (event) => { const button = event.target.closest("[role=tab]"); if (button) fc.editor.tab(button.id.slice(4)); });
  tabs.addEventListener("keydown", (event) => {
    const all = $$("[role=tab]:not([hidden])");
    const to = all.indexOf(document.activeElement) + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? NaN);
    if (Number.isNaN(to)) return;
    const next = all[(to + all.length) % all.length];
    next.focus();
    fc.editor.tab(next.id.slice(4));
  });
  $("#view-versions").addEventListener("click", (event) => {
    const facts = event.target.dataset;
    if (event.target.id === "compare") fc.ask(event.target, { do: "diff", from: $("#from").value, to: $("#to").value });
    if (facts.rollback) fc.ask(event.target, { do: "rollback", version: facts.rollback });
    if (facts.undeprecate) fc.ask(event.target, { do: "deprecate", version: facts.undeprecate });
    if (facts.deprecate) {
      const reason = prompt(`Why should nobody start version ${facts.deprecate} any more?`);
      if (reason) fc.ask(event.target, { do: "deprecate", version: facts.deprecate, reason });
    }
    if (facts.alias) {
      const alias = prompt(`Which name should mean version ${facts.alias}? For example: stable`);
      if (alias) fc.ask(event.target, { do: "alias", version: facts.alias, alias });
    }
  });
  window.addEventListener("fc-theme", ({ detail }) => fc.send({ do: "theme", dark: detail.dark }));
  if (fc.isDark()) fc.send({ do: "theme", dark: true });
}

document.addEventListener("DOMContentLoaded", () => ($("#editor") ? write() : list()));
