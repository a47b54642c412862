// The list of runs: search, filter, unfold; a row is one large link.
"use strict";
fc.runs = {
  show(rows, more) {
    fc.rows($("#rows"), rows);
    $("#more").hidden = !more;
  },
};

document.addEventListener("DOMContentLoaded", () => {
  const search = $("#search");
  let status = $(".chip[aria-pressed=true]")?.dataset.status ?? "";
  let timer;

  const ask = () => {
    const wanted = { q: search.value, status };
    for (const one of $$("[data-filter]")) wanted[one.dataset.filter] = one.value;
    const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    fc.send({ do: "search", ...wanted });
  };
  for (const one of $$("[data-filter]")) one.addEventListener("change", ask);
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 200); });
  for (const chip of $$(".chip")) {
    chip.addEventListener("click", () => {
      status = chip.dataset.status;
      for (const one of $$(".chip")) one.setAttribute("aria-pressed", String(one === chip));
      ask();
    });
  }
  $("#more").addEventListener("click", (event) => fc.ask(event.target, { do: "more" }));
  $("#rows").addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-id]");
    if (!row || event.target.closest("a") || getSelection().toString()) return;
    const address = $("a", row).href;
    if (event.ctrlKey || event.metaKey) open(address, "_blank");
    else fc.go(address);
  });
  document.addEventListener("visibilitychange", () => fc.send({ do: "visible", is: !document.hidden }));
});
