// Two small charts, drawn as SVG as wide as their place on the page.

import { html, svg } from "./dom.js";
import { signed, watts } from "./format.js";
import { colorClass, mark, swatch } from "./models.js";

const SHORTEST_S = 15;

function empty(text) {
  return html("p", { class: "empty" }, text);
}

/** Round values from one end to beyond the other, about `parts` steps of them. */
function ticks(low, high, parts) {
  const rough = (high - low) / parts;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick < high + step * (1 - 1e-6); tick += step) {
    found.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
  }
  return found;
}

const plain = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

function frame(width, height, label, ys, ...content) {
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    ys.map(({ y, text }) => svg("g", {},
      svg("line", { class: "rule", x1: 44, x2: width, y1: y, y2: y }),
      svg("text", { class: "tick", x: 38, y: y + 4 }, text))),
    ...content);
}

/**
 * Power of each device over time.
 * @param {{at: number, devices: Object<string, number>}[]} history oldest first
 */
export function powerChart(history, width) {
  const names = [...new Set(history.flatMap(({ devices }) => Object.keys(devices)))].sort();
  if (!names.length) return empty("No replica reports its power yet.");
  const height = 190;
  const levels = ticks(0, Math.max(1, ...history.flatMap(({ devices }) => Object.values(devices))), 3);
  const highest = levels.at(-1);
  const now = history.at(-1).at;
  // The line soon fills the picture, and then moves on.
  const seconds = Math.max(SHORTEST_S, now - history[0].at);
  const x = (at) => width - 8 - ((now - at) / seconds) * (width - 60);
  const y = (power) => height - 26 - (power / highest) * (height - 44);
  const latest = history.at(-1).devices;
  const words = names.map((name) => `${name} ${watts(latest[name] ?? 0)}`).join(", ");
  const lines = names.map((name, i) => svg("polyline", {
    class: `line line-${i % 4}`,
    points: history.filter(({ devices }) => name in devices)
      .map(({ at, devices }) => `${x(at).toFixed(1)},${y(devices[name]).toFixed(1)}`).join(" "),
  }));
  return html("figure", {},
    frame(width, height, `Power now: ${words}`, levels.map((v) => ({ y: y(v), text: plain(v) })),
      svg("text", { class: "tick start", x: 46, y: height - 6 }, `${Math.round(seconds)} s ago`),
      svg("text", { class: "tick", x: width - 4, y: height - 6 }, "now"),
      lines),
    html("figcaption", { class: "series" }, names.slice(0, 8).map((name, i) =>
      html("span", {}, html("i", { class: `dash line-${i % 4}` }), `${name} ${watts(latest[name] ?? 0)}`))));
}

/**
 * The scores of all models, decision by decision.
 * @param {{model: string, scores: Object<string, number>}[]} decisions oldest first
 */
export function scoreChart(decisions, width) {
  if (!decisions.length) return empty("No decision between two models yet.");
  const height = 220;
  const models = [...new Set(decisions.flatMap(({ scores }) => Object.keys(scores)))].sort();
  const values = decisions.flatMap(({ scores }) => Object.values(scores));
  const levels = ticks(Math.min(-1, ...values), Math.max(1, ...values), 4);
  const [low, high] = [Math.min(levels[0], ...values), levels.at(-1)];
  const gap = (width - 76) / Math.max(decisions.length - 1, 11);
  const x = (i) => width - 16 - (decisions.length - 1 - i) * gap;
  const y = (score) => 14 + ((high - score) / (high - low)) * (height - 46);
  const lines = models.map((model) => svg("polyline", {
    class: `trace ${colorClass(model)}`,
    points: decisions.flatMap(({ scores }, i) =>
      model in scores ? [`${x(i).toFixed(1)},${y(scores[model]).toFixed(1)}`] : []).join(" "),
  }));
  const marks = decisions.flatMap(({ scores, model: chosen }, i) =>
    Object.entries(scores).map(([model, score]) =>
      mark(model, x(i), y(score), model === chosen ? 12 : 8, { class: model === chosen ? "won" : "" })));
  const last = decisions.at(-1);
  const words = Object.entries(last.scores).map(([model, score]) => `${model} ${signed(score)}`).join(", ");
  return html("figure", {},
    frame(width, height, `Scores of the last ${decisions.length} decisions. The latest: ${words}; ${last.model} answered`,
      levels.map((v) => ({ y: y(v), text: plain(v) })),
      svg("text", { class: "tick start", x: 46, y: height - 4 }, "older"),
      svg("text", { class: "tick", x: width - 4, y: height - 4 }, "latest"),
      lines, marks),
    html("figcaption", { class: "series" }, models.map((model) => html("span", {}, swatch(model), model))));
}
