// What each model would cost for this prompt: predictions with their intervals, and the score.

import { html } from "./dom.js";
import { digits, joules, percent, range, seconds, signed } from "./format.js";
import { METRICS, contributions, ranked, score } from "./geometry.js";
import { colorClass, swatch } from "./models.js";

/** An interval that reaches further than this times the largest prediction is cut in the picture. */
const LONGEST = 3;
/** Room at the end of a scale, so that nothing sticks to the edge. */
const ROOM = 1.05;

const COSTS = [
  { name: "Runtime", of: (c) => c.runtime_s, interval: (c) => c.runtime_interval_s, write: seconds },
  { name: "Energy", of: (c) => c.energy_joules, interval: (c) => c.energy_interval_joules, write: joules },
  { name: "Accuracy", of: (c) => c.accuracy, interval: (c) => c.accuracy_interval, write: percent, end: 1 },
];

const share = (value) => `${(100 * Math.min(Math.max(value, 0), 1)).toFixed(2)}%`;

/** A prediction as a dot, its interval as a band, and what it came to as a line across. */
export function intervalBar({ value, interval, actual, end, model }) {
  return html("div", { class: `bar ${colorClass(model)}`, "aria-hidden": "true" },
    interval && html("i", {
      class: `band ${interval[1] > end ? "open" : ""}`,
      "--from": share(interval[0] / end),
      "--to": share(interval[1] / end),
    }),
    html("i", { class: "dot", "--at": share(value / end) }),
    actual !== undefined && html("i", { class: "actual", "--at": share(actual / end) }));
}

/** Where the scale of a cost ends. */
export function scaleEnd(values, intervals) {
  const longest = Math.max(...values);
  const highest = Math.max(longest, ...intervals.filter(Boolean).map(([, high]) => high));
  return ROOM * Math.min(highest, LONGEST * longest) || 1;
}

function metricCell(cost, candidate, end) {
  const value = cost.of(candidate);
  const interval = cost.interval(candidate);
  const imputed = cost.end && candidate.accuracy_imputed;
  const note = interval ? range(interval, cost.write) : imputed ? "unknown, mean of the others" : "";
  return html("div", { class: "cell" },
    html("dt", {}, cost.name),
    html("dd", {},
      html("span", { class: "value" }, cost.write(value)),
      intervalBar({ value, interval, end, model: candidate.model }),
      html("span", { class: "interval" },
        interval && html("span", { class: "visually-hidden" }, "90 % interval "), note)));
}

/** Below 0 to the left, above 0 to the right, metric after metric; a line where they add up. */
function scoreCell(candidate, weights, end, best) {
  const parts = contributions(candidate, weights);
  const total = score(candidate, weights);
  const reached = { left: 0, right: 0 };
  const pieces = parts.map((part, i) => {
    const side = part < 0 ? "left" : "right";
    const from = reached[side];
    reached[side] += Math.abs(part);
    return html("i", {
      class: `piece ${side} ${METRICS[i]}`,
      "--from": share(from / end / 2),
      "--to": share(reached[side] / end / 2),
    });
  });
  const words = METRICS.map((metric, i) =>
    `${metric === "time" ? "runtime" : metric} ${signed(parts[i])}`).join(", ");
  return html("div", { class: "cell" },
    html("dt", {}, "Score"),
    html("dd", {},
      html("span", { class: "value" }, signed(total)),
      html("div", { class: "bar score", role: "img", "aria-label": words },
        pieces, html("i", { class: "sum", "--at": share(0.5 + total / end / 2) })),
      html("span", { class: "interval" },
        total > best ? `${digits(total - best)} behind` : "lower is better")));
}

/**
 * Draws the list, best first.
 * @returns {string} the model that wins.
 */
export function drawCandidates(root, candidates, weights) {
  const order = ranked(candidates, weights);
  const ends = COSTS.map((cost) =>
    cost.end ?? scaleEnd(order.map(cost.of), order.map(cost.interval)));
  const scoreEnd = Math.max(1, ...order.map((candidate) => {
    const parts = contributions(candidate, weights);
    const below = parts.filter((part) => part < 0).reduce((a, b) => a - b, 0);
    return Math.max(below, parts.reduce((a, b) => a + b, 0) + below);
  }));
  root.replaceChildren(...order.map((candidate, place) =>
    html("li", { class: place === 0 ? "chosen" : false, "data-model": candidate.model },
      html("h3", {}, swatch(candidate.model), candidate.model,
        place === 0 && html("span", { class: "badge" }, "would answer"),
        candidate.extrapolates && html("span", {
          class: "badge plain",
          title: "Tokens or load lie outside what was profiled, so the intervals are wider",
        }, "beyond its profile"),
        candidate.profile_origin && candidate.profile_origin !== "measured" && html("span", {
          class: "badge plain",
          title: candidate.profile_trials
            ? `Its costs rest on ${candidate.profile_trials} trials`
            : "Its costs rest on no trial",
        }, candidate.profile_origin)),
      html("dl", { class: "metrics" },
        COSTS.map((cost, i) => metricCell(cost, candidate, ends[i])),
        scoreCell(candidate, weights, scoreEnd, score(order[0], weights))))));
  return order[0].model;
}

/** Draws which models were left out, and why. */
export function drawExcluded(root, excluded) {
  root.replaceChildren(...excluded.map(({ model, reason }) =>
    html("li", {}, swatch(model), html("strong", {}, model), ` left out: ${reason}`)));
}
