(() => {
  "use strict";
  const tip = document.getElementById("tip");
  const write = (value, kind) =>
    kind === "percent" ? (100 * value).toFixed(1) + "%" : Number(value.toPrecision(4)).toString();

  const show = (text, event) => {
    tip.textContent = text;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const below = event.clientY + 18 + tip.offsetHeight < window.innerHeight;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = (below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 12) + "px";
  };

  for (const svg of document.querySelectorAll("svg.chart")) {
    const [left, top, right, bottom] = svg.dataset.plot.split(",").map(Number);
    const [xLow, xHigh, xKind] = svg.dataset.x.split(",");
    const [yLow, yHigh, yKind] = svg.dataset.y.split(",");
    const lines = [...svg.querySelectorAll("polyline[data-name]")].map((line) => ({
      name: line.dataset.name,
      points: line.getAttribute("points").split(" ").map((pair) => pair.split(",").map(Number)),
    }));
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    mark.setAttribute("class", "mark");
    mark.setAttribute("r", "4");
    mark.setAttribute("visibility", "hidden");
    svg.append(mark);

    const hide = () => {
      tip.hidden = true;
      mark.setAttribute("visibility", "hidden");
    };
    svg.addEventListener("pointerleave", hide);
    const follow = (event) => {
      const own = event.target.dataset && event.target.dataset.tip;
      if (own) {
        mark.setAttribute("visibility", "hidden");
        show(own, event);
        return;
      }
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale;
      const y = (event.clientY - box.top) * scale;
      let best = null;
      for (const line of lines) {
        for (const [px, py] of line.points) {
          const distance = Math.hypot(px - x, py - y);
          if (distance < 30 && (best === null || distance < best.distance)) {
            best = { distance, px, py, name: line.name };
          }
        }
      }
      if (best === null) {
        hide();
        return;
      }
      mark.setAttribute("cx", best.px);
      mark.setAttribute("cy", best.py);
      mark.setAttribute("visibility", "visible");
      const xValue = +xLow + ((best.px - left) / (right - left)) * (xHigh - xLow);
      const yValue = +yLow + ((bottom - best.py) / (bottom - top)) * (yHigh - yLow);
      show(`${best.name}: ${write(xValue, xKind)} → ${write(yValue, yKind)}`, event);
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
  }
})();
