// The constraints: a slider each, of which one end means no limit.

import { html } from "./dom.js";
import { joules, percent, seconds } from "./format.js";

/** Round steps from 10^low to 10^high, six a decade, then none. */
function decades(low, high) {
  const steps = [];
  for (let power = low; power < high; power += 1) {
    steps.push(...[1, 1.5, 2, 3, 5, 7].map((digit) => digit * 10 ** power));
  }
  return [...steps, 10 ** high, null];
}

const LIMITS = [
  { field: "max_latency_s", label: "runtime", side: "at most", steps: decades(-2, 3), write: seconds },
  { field: "max_energy_joules", label: "energy", side: "at most", steps: decades(-2, 5), write: joules },
  {
    field: "min_accuracy", label: "accuracy", side: "at least", write: percent,
    steps: [null, ...Array.from({ length: 19 }, (_, i) => (i + 1) / 20)],
  },
];

/**
 * Puts the sliders into `root`.
 * @returns {() => object | undefined} gives the constraints of a request.
 */
export function limitSliders(root, onChange) {
  const rows = LIMITS.map(({ field, label, side, steps, write }) => {
    const id = `limit-${field}`;
    const output = html("output", { for: id });
    const value = () => steps[Number(input.value)];
    const show = () => {
      const text = value() === null ? "no limit" : `${side} ${write(value())}`;
      output.textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    const input = html("input", {
      id, type: "range", min: 0, max: steps.length - 1, step: 1, value: steps.indexOf(null),
      oninput: () => { show(); onChange(); },
    });
    root.append(html("label", { for: id }, label), input, output);
    show();
    return { field, value };
  });
  return () => {
    const set = rows.filter(({ value }) => value() !== null);
    return set.length ? Object.fromEntries(set.map(({ field, value }) => [field, value()])) : undefined;
  };
}
