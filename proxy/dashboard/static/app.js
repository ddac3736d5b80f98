// What the pages can do without: the value under the pointer, and the state spoken when it changes.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function pointsOf(line) {
  return [...line.getAttribute("d").matchAll(/[ML](-?[\d.]+) (-?[\d.]+)/g)].map((m) => [Number(m[1]), Number(m[2])]);
}

function nearest(points, x) {
  let best = null;
  for (const point of points) if (!best || Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
  return best && Math.abs(best[0] - x) < 12 ? best : null;
}

function valueAt(svg, y) {
  const [, top, , tall] = svg.dataset.box.split(" ").map(Number);
  const { low, high } = svg.dataset;
  return Number(low) + (Number(high) - Number(low)) * (1 - (y - top) / tall);
}

function timeAt(svg, x) {
  const [left, , wide] = svg.dataset.box.split(" ").map(Number);
  const since = Number(svg.dataset.since), until = Number(svg.dataset.until);
  return new Date((since + ((until - since) * (x - left)) / wide) * 1000).toISOString().slice(5, 19).replace("T", " ");
}

function worded(svg, value) {
  switch (svg.dataset.unit) {
    case "s": return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toPrecision(3)} s`;
    case "share": return `${Number((value * 100).toPrecision(3))} %`;
    case "percent": return `${Number(value.toPrecision(3))} %`;
    case "dollars": return `$${Number(value.toPrecision(3))}`;
    default: return `${Number(value.toPrecision(3))}`;
  }
}

function clear(figure) {
  figure.querySelector(".cursor")?.remove();
  figure.querySelector(".readout")?.remove();
}

function show(figure, svg, clientX) {
  clear(figure);
  const box = svg.getBoundingClientRect();
  const x = ((clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
  const [left, top, wide, tall] = svg.dataset.box.split(" ").map(Number);
  if (x < left || x > left + wide) return;
  const found = [...svg.querySelectorAll(".line")]
    .map((line) => [line.dataset.name, nearest(pointsOf(line), x)])
    .filter(([, point]) => point)
    .map(([name, point]) => `${name} ${worded(svg, valueAt(svg, point[1]))}`);
  if (!found.length) return;
  const cursor = document.createElementNS(SVG, "path");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("d", `M${x} ${top}v${tall}`);
  svg.append(cursor);
  const readout = document.createElement("div");
  readout.className = "readout";
  readout.textContent = `${timeAt(svg, x)} UTC: ${found.join(", ")}`;
  figure.append(readout);
}

document.addEventListener("pointermove", (event) => {
  const svg = event.target.closest?.(".chart svg");
  for (const figure of document.querySelectorAll(".chart")) if (!svg || !figure.contains(svg)) clear(figure);
  if (svg) show(svg.closest("figure"), svg, event.clientX);
});

// What somebody has opened stays open when what is around it is brought up to date.
if (window.Idiomorph) Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name) => name !== "open";

let spoken = document.getElementById("headline")?.textContent;
document.addEventListener("htmx:sseMessage", () => {
  const now = document.getElementById("headline")?.textContent;
  const place = document.getElementById("spoken");
  if (place && now && now !== spoken) {
    place.textContent = now;
    document.title = `${now} · rerank-canary`;
  }
  spoken = now;
});

// Two seconds apart comes a beat, whether anything changed or not. Without it what is shown is old: say so.
let heard = null;
document.addEventListener("htmx:sseOpen", (event) => {
  heard = Date.now();
  event.detail.source.addEventListener("beat", () => { heard = Date.now(); });
});
setInterval(() => {
  const lost = document.getElementById("lost");
  const isLost = heard !== null && Date.now() - heard > 8000;
  if (!lost || lost.hidden === !isLost) return;
  lost.hidden = !isLost;
  lost.innerHTML = "";
  if (!isLost) return;
  const again = document.createElement("a");
  again.href = location.href;
  again.textContent = "Load the page again";
  const since = new Date(heard).toISOString().slice(11, 19);
  lost.append(`Not connected since ${since} UTC: what is shown is of then. `, again);
}, 1000);

// A second press does nothing; the first may take seconds while a store is away.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button:not([type=button])");
  if (!button || event.defaultPrevented) return;
  if (event.target.dataset.sent) { event.preventDefault(); return; }
  event.target.dataset.sent = "yes";
  button.setAttribute("aria-busy", "true");
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
