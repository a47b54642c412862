// Questions to people: what is shown, filled in, changed and decided.
"use strict";
fc.tasks = {
  fill(html) {
    const box = $("#asked");
    // Whoever is filling a form in keeps it.
    if (box.contains(document.activeElement) && document.activeElement.matches("input, textarea, select")) {
      const kept = document.activeElement.closest("form")?.dataset.task;
      if (kept && html.includes(kept)) return;
    }
    box.innerHTML = html;
    const name = localStorage.getItem("facilitair-name");
    for (const input of $$("input[name=actor]", box)) if (!input.value && name) input.value = name;
    fc.times(box);
  },
  decided() {
    document.activeElement?.blur();
    fc.tasks.look();
  },
  look() {
    fc.send({ do: $("#run-data") ? "asked" : "tasks" });
  },
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("form.asked button[data-action]");
  if (!button) return;
  const form = button.closest("form");
  const filled = $("[data-form]", form) ? fc.value(form) : {};
  if (filled === null) return;
  for (const name of button.dataset.requires.split(",").filter(Boolean)) {
    if (filled[name] === undefined || filled[name] === "") {
      const field = $(`[data-name="${CSS.escape(name)}"]`, form);
      field?.closest(".field").classList.add("wrong");
      field?.focus();
      fc.toast(`“${button.textContent.trim()}” needs ${name}.`, "bad");
      return;
    }
  }
  const facts = {
    do: "decide", task: form.dataset.task, action: button.dataset.action, form: filled,
    groups: form.dataset.groups.split(",").filter(Boolean), actor: $("input[name=actor]", form).value.trim(),
  };
  if (facts.actor) localStorage.setItem("facilitair-name", facts.actor);
  if (button.dataset.edits) {
    const area = $(`[data-edit="${CSS.escape(button.dataset.edits)}"]`, form);
    facts.edits = true;
    try {
      facts.edited = area.dataset.as === "json" ? JSON.parse(area.value) : area.value;
    } catch (error) {
      fc.toast(`Not JSON: ${error.message}`, "bad");
      return;
    }
  }
  fc.ask(button, facts);
});
document.addEventListener("submit", (event) => { if (event.target.matches("form.asked")) event.preventDefault(); });

if (!document.getElementById("run-data")) {
  setInterval(() => { if (!document.hidden && fc._ready) fc.tasks.look(); }, 3000);
  window.addEventListener("fc-ready", () => fc.tasks.look());
}
