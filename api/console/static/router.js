// The router: its buttons say what they do before they do it.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  for (const button of $$("main button[data-do]")) {
    button.addEventListener("click", () => {
      if (button.dataset.sure && !confirm(button.dataset.sure)) return;
      fc.ask(button, { do: button.dataset.do, number: button.dataset.number });
    });
  }
});
