// Plots take their colours from the page, and follow it from light to dark.
"use strict";
(() => {
  const painted = new Set();
  function paint(all) {
    const style = getComputedStyle(document.body);
    const probe = document.createElement("i");
    document.body.append(probe);
    const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
    const [ink, muted, line, card] = ["--ink", "--muted", "--line", "--card"].map(colour);
    probe.remove();
    const axis = { axisLabel: { color: muted }, axisLine: { lineStyle: { color: line } }, splitLine: { lineStyle: { color: line } } };
    for (const [name, chart] of all) {
      chart.setOption({
        textStyle: { fontFamily: style.fontFamily },
        legend: { textStyle: { color: muted }, pageTextStyle: { color: muted }, pageIconColor: muted },
        tooltip: { backgroundColor: card, borderColor: line, textStyle: { color: ink } },
        xAxis: axis, yAxis: axis,
      });
      painted.add(name);
    }
  }
  function charts(fresh) {
    const found = [];
    for (const room of document.querySelectorAll(".plot .room")) {
      const element = room.querySelector("[id^=c]");
      const chart = element && window.getElement?.(Number(element.id.slice(1)))?.chart;
      if (chart && !(fresh && painted.has(room.id))) found.push([room.id, chart]);
    }
    return found;
  }
  window.addEventListener("fc-theme", () => paint(charts(false)));
  const waiting = setInterval(() => {
    paint(charts(true));
    if (painted.size >= document.querySelectorAll(".plot").length) clearInterval(waiting);
  }, 100);
})();
