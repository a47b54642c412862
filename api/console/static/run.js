// One run as it happens. The process tells events; everything on the page follows from them here.
"use strict";
(() => {
  const MARKS = {
    pending: "○", running: "▶", completed: "✓", failed: "✕", skipped: "–", caught: "↷", abandoned: "!",
    paused: "❚❚", waiting: "?", cancelled: "■", superseded: "✕", starting: "○", kept: "✓",
  };
  const SHOWN = 60_000; // characters of one execution that are kept on the page
  const PANELS = 40; // executions whose words are kept on the page
  let facts, run, steps, executions, paths, people, dirty, selected, drawn, timelineDue, playing = false;

  const mark = (status) => {
    const badge = document.createElement("span");
    badge.className = `badge st-${status}`;
    const icon = document.createElement("i");
    icon.ariaHidden = "true";
    icon.textContent = MARKS[status] || "·";
    badge.append(icon, status);
    return badge;
  };

  function forget() {
    run = { status: facts.status, sub: facts.sub, began: Date.parse(facts.began), ended: null, steered: "" };
    executions = new Map();
    paths = new Map(); // path → its last execution, or {status}
    steps = new Map(); // step → set of paths
    people = new Map();
    dirty = new Set();
    timelineDue = true;
  }

  // -- what happens ---------------------------------------------------------------------------

  const HAPPENED = {
    run([, at, , version, , kept]) {
      put("#version", `@${version}`);
      run.began = at;
      if (playing) run.status = "running";
      // Nobody but Temporal knew of it when the page was made.
      if (run.sub === "starting") { run.sub = ""; fc.send({ do: "head" }); }
      for (const [path, status] of Object.entries(kept)) touch(path, path, { path, step: path, status, kept: true });
    },
    b([, at, id, path, step, kind, attempt, agent, model]) {
      if (executions.has(id)) return;
      const one = { id, at, path, step, kind, attempt, agent, model, status: "running", tokens: 0, said: 0, cost: 0, input: 0 };
      executions.set(id, one);
      touch(path, step, one);
    },
    t([, id, text, count]) {
      const one = executions.get(id);
      if (!one) return;
      one.said += count;
      say(one, text);
      dirty.add(one.step);
    },
    e([, at, id, path, step, kind, attempt, agent, model, status, input, output, cost, latency, error, simulated]) {
      let one = executions.get(id);
      if (!one) {
        one = { id, at: at - latency, path, step, kind, attempt, agent, said: 0 };
        if (id) executions.set(id, one);
      }
      Object.assign(one, { status, model: model || one.model, input, tokens: output, cost, ended: at, error, simulated });
      if (simulated) markSimulated();
      if (status === "superseded") drop(one);
      else if (one.panel) head(one);
      touch(path, step, one);
      if (selected && (selected === step || selected.startsWith(step))) lookAgain();
    },
    asked([, , id, path]) { people.set(id, path); touchPeople(); },
    decided([, , id, , , , closed]) { if (closed) people.delete(id); touchPeople(); },
    steered([, , action, actor, detail]) {
      if (action === "pause") { run.sub = "paused"; run.by = actor; }
      if (action === "resume") { run.sub = ""; run.by = ""; }
      if (action === "inject_feedback") note(`${who(actor)} told ${detail.step || detail.agent || "every agent"}: ${detail.text || ""}`);
      if (action === "adjust") note(`${who(actor)} changed ${detail.agent || "every agent"}: ${JSON.stringify(detail.changes)}`);
    },
    end([, at, status, sub, error, cost, tokens, simulated]) {
      run.status = status;
      run.sub = sub;
      run.ended = at;
      // With those of sub-collaborations. Runs of older releases ended without tokens.
      Object.assign(run, { cost, tokens });
      if (simulated) markSimulated();
      for (const one of executions.values()) {
        if (one.status === "running") { one.status = "abandoned"; one.ended = at; touch(one.path, one.step, one); if (one.panel) head(one); }
      }
      if (error && !$("#error").textContent) $("#error").textContent = error;
      people.clear();
      touchPeople();
    },
  };

  const markSimulated = () => { $("#simulated").innerHTML = '<span class="badge simulated">simulated</span>'; };

  const who = (actor) => (actor || "somebody").replace(/^user:/, "");

  function touch(path, step, one) {
    const before = paths.get(path);
    // An attempt that ends late says nothing about the one that took over.
    if (!before || !before.attempt || !one.attempt || one.attempt >= before.attempt) paths.set(path, one);
    if (!steps.has(step)) steps.set(step, new Set());
    steps.get(step).add(path);
    dirty.add(step);
    timelineDue = true;
  }

  let askedDue = null;
  function touchPeople() {
    if (playing) return;
    clearTimeout(askedDue);
    askedDue = setTimeout(() => fc.tasks.look(), 80);
    for (const path of people.values()) dirty.add(path.split(".").pop().split("~")[0]);
  }

  // -- the plan -------------------------------------------------------------------------------

  function sum(step) {
    const found = { running: 0, completed: 0, failed: 0, skipped: 0, caught: 0, abandoned: 0, all: 0, tokens: 0, said: 0, cost: 0, kept: false, seconds: 0, kind: "" };
    for (const path of steps.get(step) || []) {
      const last = paths.get(path);
      found.all += 1;
      found[last.status === "superseded" ? "running" : last.status] += 1;
      found.kept = found.kept || Boolean(last.kept);
      found.kind = last.kind || found.kind;
      if (last.ended && last.at) found.seconds += (last.ended - last.at) / 1000;
    }
    return found;
  }

  function statusOf(of) {
    if (of.running) return of.kind === "human" ? "waiting" : "running";
    for (const status of ["failed", "abandoned", "caught", "completed", "skipped"]) if (of[status]) return status;
    return "pending";
  }

  function paint(step, spent) {
    const node = drawn.nodes.get(step);
    if (!node) return;
    const of = sum(step);
    const status = statusOf(of);
    const paused = status === "pending" && run.sub === "paused";
    const money = spent.get(step) || { tokens: 0, said: 0, cost: 0 };
    const parts = [];
    if (of.all > 1) parts.push(`${of.completed + of.skipped + of.caught}/${of.all}`);
    if (of.kept && status === "completed" && !money.tokens) parts.push("kept");
    else if (status === "waiting") parts.push("waiting for people");
    else if (status === "running") parts.push(money.said ? `${fc.number(money.said)} tokens…` : "running");
    else if (status !== "pending" && !money.tokens && !(status === "completed" && of.seconds)) parts.push(status);
    if (money.tokens) parts.push(`${fc.number(money.tokens)} tok`);
    if (money.cost) parts.push(fc.dollars(money.cost));
    if (of.seconds && of.all === 1 && status !== "running") parts.push(fc.seconds(of.seconds));
    const shown = parts.join(" · ");
    if (node.status !== status) {
      node.status = status;
      node.group.dataset.status = status;
      node.mark.textContent = MARKS[status];
      for (const edge of node.into) edge.classList.toggle("lit", status === "running" || status === "waiting");
      if (status === "running") goTo = node;
    }
    if (node.shown !== shown) {
      node.shown = shown;
      node.facts.textContent = shown;
      node.group.setAttribute("aria-label", `${step}, ${status}${shown ? `, ${shown}` : ""}`);
    }
    node.group.classList.toggle("held", paused);
  }

  function money() {
    const spent = new Map();
    const total = { tokens: 0, cost: 0, steps: 0 };
    for (const one of executions.values()) {
      const mine = spent.get(one.step) || { tokens: 0, said: 0, cost: 0 };
      if (one.status === "running") mine.said += one.said;
      mine.tokens += (one.tokens || 0) + (one.input || 0);
      mine.cost += one.cost || 0;
      spent.set(one.step, mine);
      total.tokens += (one.tokens || 0) + (one.input || 0) + (one.status === "running" ? one.said : 0);
      total.cost += one.cost || 0;
    }
    for (const step of steps.keys()) if (["completed", "skipped", "caught"].includes(statusOf(sum(step)))) total.steps += 1;
    return [spent, total];
  }

  // -- the head -------------------------------------------------------------------------------

  let shownState = "";
  function heads(total) {
    const state = run.sub || run.status;
    if (state !== shownState) {
      shownState = state;
      $("#state").replaceChildren(mark(state));
      document.title = `${MARKS[state] || ""} ${document.title.replace(/^\S+ (?=.* · )/, "")}`;
      const live = run.status === "running" && !playing;
      const paused = run.sub === "paused";
      const show = (id, is) => { $(id).hidden = !is; };
      show("#pause", live && !paused);
      show("#resume", live && paused);
      show("#tell", live);
      show("#stop", live);
      show("#rerun", run.status === "failed");
      show("#again", run.status !== "running");
      show("#playing", run.status !== "running" || playing);
      $("#paused").hidden = !(live && paused);
      $("#paused").textContent = `Paused${run.by ? ` by ${who(run.by)}` : ""}. What was under way goes on to its end; nothing new begins.`;
      for (const step of drawn.nodes.keys()) dirty.add(step);
    }
    put("#f-steps", drawn.total ? `${total.steps} of ${drawn.total}` : String(total.steps));
    put("#f-tokens", fc.number(Math.max(total.tokens, run.tokens || 0)));
    put("#f-cost", fc.dollars(Math.max(total.cost, run.cost || 0)));
  }

  /** Text that is the same costs nothing. */
  function put(selector, words) {
    const at = $(selector);
    if (at.textContent !== words) at.textContent = words;
  }

  function clock() {
    let words = fc.seconds(facts.seconds);
    if (run.ended) words = fc.seconds((run.ended - run.began) / 1000);
    else if (run.status === "running") words = playing ? "…" : fc.seconds((Date.now() - run.began) / 1000);
    put("#f-time", words);
  }

  // -- what agents say ------------------------------------------------------------------------

  function say(one, text) {
    if (one.gone) return;
    if (!one.panel) panel(one);
    one.text.appendData(text);
    if (one.text.length > SHOWN) {
      one.text.deleteData(0, one.text.length - SHOWN);
      one.cut.hidden = false;
    }
  }

  function panel(one) {
    $("#silent")?.remove();
    const box = document.createElement("section");
    box.className = "panel";
    const title = document.createElement("header");
    const cut = document.createElement("p");
    cut.className = "muted small";
    cut.textContent = "The beginning is left out here; the step’s output has it.";
    cut.hidden = true;
    // Its end sticks to the bottom by its layout alone, until somebody scrolls up.
    const stream = document.createElement("div");
    stream.className = "stream";
    stream.tabIndex = 0;
    stream.setAttribute("role", "region");
    stream.setAttribute("aria-label", `What ${one.agent} says in ${one.path}`);
    const pre = document.createElement("pre");
    const text = document.createTextNode("");
    pre.append(text);
    stream.append(pre);
    for (const moved of ["wheel", "pointerdown", "touchstart", "keydown"]) {
      stream.addEventListener(moved, () => { one.moved = true; }, { passive: true });
    }
    box.append(title, cut, stream);
    Object.assign(one, { panel: box, title, cut, stream, text });
    $("#view-agents").prepend(box);
    shown.push(one);
    head(one);
    shed();
  }

  const shown = [];
  /** What ended long ago leaves the page; its step still has what it said. */
  function shed() {
    while (shown.length > PANELS) {
      const at = shown.findIndex((one) => one.status !== "running");
      if (at < 0) return;
      const [one] = shown.splice(at, 1);
      one.panel?.remove();
      one.panel = null;
      one.gone = true;
      $("#shed").hidden = false;
    }
  }

  function head(one) {
    const name = document.createElement("b");
    name.textContent = one.agent;
    const where = document.createElement("button");
    where.className = "quiet where";
    where.textContent = one.path;
    where.addEventListener("click", () => select(one.step, one.path));
    const more = document.createElement("span");
    more.className = "muted";
    const again = one.attempt > 1 ? `attempt ${one.attempt} · ` : "";
    const spent = one.ended ? `${fc.number((one.tokens || 0) + (one.input || 0))} tokens · ${fc.dollars(one.cost || 0)} · ${fc.seconds((one.ended - one.at) / 1000)}` : "";
    more.textContent = `${again}${one.model || ""}${spent ? ` · ${spent}` : ""}`;
    one.title.replaceChildren(mark(one.status), name, where, more);
    one.panel.dataset.status = one.status;
    // Read from its beginning, once it is all there.
    if (one.status !== "running" && !one.moved) one.stream.classList.add("whole");
  }

  /** What a superseded attempt said is struck out, and then gone. */
  function drop(one) {
    if (!one.panel) return;
    head(one);
    const { panel: box, text } = one;
    box.classList.add("dropped");
    setTimeout(() => { text.data = ""; box.remove(); }, 1800);
    one.panel = null;
  }

  function note(text) {
    const line = document.createElement("p");
    line.className = "note";
    line.textContent = text;
    $("#silent")?.remove();
    $("#view-agents").prepend(line);
  }

  // -- the timeline ---------------------------------------------------------------------------

  /** Time without anything under way is squeezed: a bar is where `place` puts it. */
  function squeezed(all, until) {
    const busy = all.map((one) => [one.at, Math.max(one.ended || until, one.at + 1)]).sort((a, b) => a[0] - b[0]);
    const merged = [];
    for (const [from, to] of busy) {
      const last = merged.at(-1);
      if (last && from <= last[1]) last[1] = Math.max(last[1], to);
      else merged.push([from, to]);
    }
    const working = merged.reduce((total, [from, to]) => total + to - from, 0) || 1;
    const most = Math.max(working * 0.06, 200);
    const gaps = [];
    let cut = 0;
    for (let at = 1; at < merged.length; at++) {
      const idle = merged[at][0] - merged[at - 1][1];
      if (idle > most) { cut += idle - most; gaps.push({ after: merged[at - 1][1], until: merged[at][0], idle, most, cut }); }
    }
    const first = merged[0]?.[0] ?? 0;
    const place = (time) => {
      let off = 0;
      for (const gap of gaps) {
        if (time >= gap.until) off = gap.cut;
        else if (time > gap.after) { off = gap.cut - (gap.idle - gap.most) + (time - gap.after) * (1 - gap.most / gap.idle); break; }
        else break;
      }
      return time - first - off;
    };
    return { place, gaps, whole: Math.max(place(merged.at(-1)?.[1] ?? first), 1) };
  }

  function timeline() {
    const view = $("#view-timeline");
    if (view.hidden || !timelineDue) return;
    timelineDue = false;
    const all = [...executions.values()].filter((one) => one.at && one.kind !== "item").sort((a, b) => a.at - b.at).slice(0, 400);
    if (!all.length) { view.innerHTML = '<p class="muted pad">Nothing has begun yet.</p>'; return; }
    const until = run.ended || Date.now();
    const { place, gaps, whole } = squeezed(all, until);
    const list = document.createElement("ol");
    list.className = "timeline pad";
    for (const one of all) {
      const row = document.createElement("li");
      const name = document.createElement("button");
      name.className = "quiet where";
      name.textContent = one.attempt > 1 ? `${one.path} #${one.attempt}` : one.path;
      name.addEventListener("click", () => select(one.step, one.path));
      const lane = document.createElement("span");
      lane.className = "lane";
      const bar = document.createElement("i");
      const end = one.ended || until;
      bar.className = `bar st-${one.status}`;
      bar.style.left = `min(calc(100% - 3px), ${place(one.at) / whole * 100}%)`;
      bar.style.width = `max(3px, ${(place(end) - place(one.at)) / whole * 100}%)`;
      bar.title = `${one.path}: ${one.status}, ${fc.seconds((end - one.at) / 1000)}`;
      lane.append(bar);
      for (const gap of gaps.slice(0, 20)) {
        const line = document.createElement("i");
        line.className = "gap";
        line.style.left = `${(place(gap.after) + gap.most / 2) / whole * 100}%`;
        lane.append(line);
      }
      const lasts = document.createElement("span");
      lasts.className = "n";
      lasts.textContent = fc.seconds((end - one.at) / 1000);
      row.append(name, lane, lasts);
      list.append(row);
    }
    view.replaceChildren(list);
    if (gaps.length) {
      const hint = document.createElement("p");
      hint.className = "muted small pad";
      hint.textContent = `Dashed lines: ${fc.seconds(gaps.reduce((total, gap) => total + gap.idle, 0) / 1000)} with nothing under way, squeezed.`;
      view.append(hint);
    }
  }

  // -- one step -------------------------------------------------------------------------------

  function select(step, path) {
    for (const node of drawn.nodes.values()) node.group.classList.toggle("selected", node.id === step);
    const all = [...(steps.get(step) || [])];
    selected = path || all[0] || step;
    tab("step");
    const view = $("#view-step");
    view.replaceChildren();
    if (all.length > 1) {
      const label = document.createElement("label");
      label.className = "pad which";
      label.append("Which of them ");
      const choice = document.createElement("select");
      for (const one of all.slice(0, 500)) choice.append(new Option(`${one} — ${paths.get(one).status}`, one, false, one === selected));
      choice.addEventListener("change", () => { selected = choice.value; fc.send({ do: "step", path: selected }); });
      label.append(choice);
      view.append(label);
    }
    const box = document.createElement("div");
    box.id = "step-box";
    box.innerHTML = '<p class="muted pad">Looking…</p>';
    view.append(box);
    fc.send({ do: "step", path: selected });
  }

  let lookDue = null;
  function lookAgain() {
    clearTimeout(lookDue);
    if ($("#view-step").hidden || playing) return;
    lookDue = setTimeout(() => fc.send({ do: "step", path: selected }), 250);
  }

  // -- tabs -----------------------------------------------------------------------------------

  function tab(name) {
    for (const button of $$("[role=tab]")) {
      const is = button.id === `tab-${name}`;
      button.setAttribute("aria-selected", String(is));
      button.tabIndex = is ? 0 : -1;
      $(`#view-${button.id.slice(4)}`).hidden = !is;
    }
    if (["trace", "events", "result"].includes(name)) {
      if (!$(`#view-${name}`).childElementCount) $(`#view-${name}`).innerHTML = '<p class="muted pad">Looking…</p>';
      fc.send({ do: "view", tab: name });
    }
    if (name === "timeline") { timelineDue = true; timeline(); }
  }

  // -- moving in the plan ---------------------------------------------------------------------

  function plan() {
    const svg = $("svg.dag");
    const nodes = new Map();
    if (!svg) { drawn = { nodes, total: 0 }; return; }
    for (const group of $$("g.step", svg)) {
      nodes.set(group.dataset.step, {
        id: group.dataset.step, group, mark: $(".mark", group), facts: $(".facts", group), status: "pending", shown: "", into: [],
        y: Number(/translate\([^ ]+ ([^)]+)\)/.exec(group.getAttribute("transform"))[1]),
      });
    }
    for (const edge of $$("path.edge", svg)) nodes.get(edge.dataset.to)?.into.push(edge);
    drawn = { nodes, svg, total: nodes.size, wide: Number(svg.dataset.width) };
    const first = $("g.step", svg);
    if (first) first.tabIndex = 0;
    for (const moved of ["wheel", "pointerdown", "touchstart", "keydown"]) {
      $("#canvas").addEventListener(moved, () => { follows = false; }, { passive: true });
    }
    svg.addEventListener("click", (event) => {
      const group = event.target.closest("g.step");
      if (group) { rove(group); select(group.dataset.step); }
    });
    svg.addEventListener("keydown", (event) => {
      const group = event.target.closest("g.step");
      if (!group) return;
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(group.dataset.step); }
      const way = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
      if (way) { event.preventDefault(); step(group, way); }
    });
  }

  function rove(group) {
    for (const node of drawn.nodes.values()) node.group.tabIndex = node.group === group ? 0 : -1;
    group.focus({ preventScroll: true });
  }

  /** To the nearest step in a direction. */
  function step(from, [dx, dy]) {
    const at = from.getBoundingClientRect();
    const [x, y] = [at.x + at.width / 2, at.y + at.height / 2];
    let best = null;
    for (const { group } of drawn.nodes.values()) {
      if (group === from) continue;
      const to = group.getBoundingClientRect();
      const [ox, oy] = [to.x + to.width / 2 - x, to.y + to.height / 2 - y];
      const along = ox * dx + oy * dy;
      const beside = Math.abs(ox * dy) + Math.abs(oy * dx);
      if (along > 4) {
        const far = along + beside * 2;
        if (!best || far < best.far) best = { group, far };
      }
    }
    if (best) { rove(best.group); best.group.scrollIntoView({ block: "nearest", inline: "nearest" }); }
  }

  let scale = 1;
  function zoom(to) {
    if (!drawn.svg) return;
    scale = Math.min(1.6, Math.max(0.18, to));
    const box = drawn.svg.viewBox.baseVal;
    drawn.svg.setAttribute("width", box.width * scale);
    drawn.svg.setAttribute("height", box.height * scale);
  }
  function fit(least) {
    if (!drawn.svg) return;
    const room = $("#canvas").clientWidth - 4;
    zoom(Math.max(least, Math.min(1, room / drawn.svg.viewBox.baseVal.width)));
    $("#canvas").scrollLeft = ($("#canvas").scrollWidth - room) / 2;
  }

  // The plan goes along with what runs, until somebody moves it.
  let goTo = null;
  let follows = true;
  function follow() {
    if (!goTo || !follows) return;
    const y = (goTo.y + 14) * scale;
    if (y < room.top || y > room.top + room.height - 90) $("#canvas").scrollTop = y - room.height / 2;
    goTo = null;
  }
  // Known from events: to ask for it while drawing would lay the page out each time.
  const room = { top: 0, height: 400 };
  function measure() {
    const canvas = $("#canvas");
    canvas.addEventListener("scroll", () => { room.top = canvas.scrollTop; }, { passive: true });
    new ResizeObserver(([entry]) => { room.height = entry.contentRect.height; }).observe(canvas);
  }

  // -- the line -------------------------------------------------------------------------------

  function draw() {
    const [spent, total] = money();
    heads(total);
    for (const name of dirty) paint(name, spent);
    dirty.clear();
    follow();
  }

  fc.run = {
    feed(number, told) {
      for (const one of told) HAPPENED[one[0]]?.(one);
      requestAnimationFrame(() => { draw(); fc.send({ do: "seen", number }); });
      // A page in the background is drawn when somebody looks; it must not hold the line meanwhile.
      if (document.hidden) { draw(); fc.send({ do: "seen", number }); }
    },
    head(task, lineage, waits) {
      $("#task").textContent = task;
      $("#lineage").innerHTML = lineage;
      $("#waits").textContent = waits;
      $("#waits").hidden = !waits;
    },
    step(path, html) {
      if (path !== selected) return;
      const box = $("#step-box");
      if (box) { box.innerHTML = html; fc.times(box); }
    },
    fill(name, html) {
      const view = $(`#view-${name}`);
      view.innerHTML = html;
      fc.times(view);
    },
    told() {
      $("#tell-dialog").close();
      $("#tell-form").reset();
      fc.toast("Told. The very next prompt holds it.");
    },
    forkWrong(message) { $("#fork-wrong").textContent = message; },
    forkInput(text) { $("#fork-input").value = text; },
    reset() {
      playing = true;
      shownState = "";
      $("#view-agents").replaceChildren($("#shed"));
      $("#shed").hidden = true;
      shown.length = 0;
      forget();
      run.status = "running";
      run.sub = "";
      for (const node of drawn.nodes.values()) dirty.add(node.id);
      tab("agents");
      draw();
    },
    played() {
      playing = false;
      shownState = "";
      $("#play").disabled = false;
      draw();
    },
    /** For tests: what the page knows. */
    state: () => ({ run, steps: Object.fromEntries([...drawn.nodes].map(([id, node]) => [id, node.status])) }),
  };

  document.addEventListener("DOMContentLoaded", () => {
    facts = JSON.parse($("#run-data").textContent);
    forget();
    plan();
    measure();
    fit(matchMedia("(max-width: 760px)").matches ? 0.55 : 0.6);
    draw();
    clock();
    setInterval(clock, 200);
    // What keeps the run from going on is no event: it is asked for.
    setInterval(() => { if (run.status === "running" && !playing && !document.hidden) fc.send({ do: "head" }); }, 10_000);
    setInterval(() => { if (run.status === "running" && !run.ended) timelineDue = true; timeline(); }, 1000);

    $("#zoom-in").addEventListener("click", () => zoom(scale * 1.25));
    $("#zoom-out").addEventListener("click", () => zoom(scale / 1.25));
    $("#zoom-fit").addEventListener("click", () => fit(0.18));
    for (const button of $$("[role=tab]")) button.addEventListener("click", () => tab(button.id.slice(4)));
    $("[role=tablist]").addEventListener("keydown", (event) => {
      const all = $$("[role=tab]");
      const at = all.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = all[(to + all.length) % all.length];
      next.focus();
      tab(next.id.slice(4));
    });
    for (const id of ["pause", "resume", "rerun", "again"]) $(`#${id}`).addEventListener("click", (event) => fc.ask(event.target, { do: id }));
    $("#stop").addEventListener("click", () => fc.open("stop-dialog"));
    $("#stop-sure").addEventListener("click", (event) => { $("#stop-dialog").close(); fc.ask($("#stop"), { do: "stop" }); });
    $("#tell").addEventListener("click", tellDialog);
    $("#tell-form").addEventListener("submit", (event) => {
      event.preventDefault();
      fc.ask($("button[type=submit]", event.target), { do: "tell", text: $("#tell-text").value, whom: $("#tell-whom").value });
    });
    $("#play").addEventListener("click", (event) => { event.target.disabled = true; fc.send({ do: "play", speed: Number($("#speed").value) }); });
    $("#view-step").addEventListener("click", (event) => { if (event.target.id === "fork") forkDialog(event.target.dataset.step); });
    for (const radio of $$("[name=how]")) radio.addEventListener("change", () => { $("#fork-output").hidden = !$("#fork-given").checked; });
    $("#fork-edit").addEventListener("change", (event) => {
      $("#fork-input").hidden = !event.target.checked;
      if (event.target.checked && !$("#fork-input").value) fc.send({ do: "view", tab: "result", fork: true });
    });
    $("#fork-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const wanted = { do: "fork", step: $("#fork-dialog").dataset.step };
      if ($("#fork-given").checked) Object.assign(wanted, { output: $("#fork-output").value, as: $("#fork-output").dataset.as });
      if ($("#fork-edit").checked) wanted.input = $("#fork-input").value;
      fc.ask($("button[type=submit]", event.target), wanted);
    });
    window.addEventListener("fc-key", ({ detail }) => {
      if (detail.key === "p") ($("#pause").hidden ? $("#resume") : $("#pause")).click();
      if (detail.key === "t" && !$("#tell").hidden) { detail.preventDefault(); tellDialog(); }
    });
  });

  function tellDialog() {
    const whom = $("#tell-whom");
    const agents = new Set([...executions.values()].filter((one) => one.kind === "agent").map((one) => one.agent));
    whom.replaceChildren(
      new Option("Every agent", ""),
      ...[...agents].map((name) => new Option(`Agent ${name}`, `agent:${name}`)),
      ...[...drawn.nodes.keys()].slice(0, 300).map((name) => new Option(`Step ${name}`, `step:${name}`)),
    );
    fc.open("tell-dialog");
    $("#tell-text").focus();
  }

  function forkDialog(name) {
    const given = JSON.parse($("#step-output").textContent);
    $("#fork-dialog").dataset.step = name;
    $("#fork-step").textContent = name;
    $("#fork-wrong").textContent = "";
    $("#fork-output").value = given.output === "null" ? "" : given.output;
    $("#fork-output").dataset.as = given.as;
    fc.open("fork-dialog");
  }
})();
