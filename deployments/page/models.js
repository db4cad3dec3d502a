// Every model has one colour and one shape everywhere, as in the plots of `python -m profiling plot`:
// by its place in the alphabet. Colours are those of Okabe and Ito.

import { svg } from "./dom.js";

const COLORS = 7;
const SHAPES = [
  "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2Z",
  "M2.5 2.5h11v11h-11Z",
  "M8 1.5 14.5 13.5h-13Z",
  "M8 1 15 8 8 15 1 8Z",
  "M1.5 2.5h13L8 14.5Z",
  "M5.5 1.5h5v4h4v5h-4v4h-5v-4h-4v-5h4Z",
];

let known = [];

/** Says which models there are; a model that comes later must not recolour the others. */
export function know(models) {
  const fresh = models.filter((model) => !known.includes(model)).sort();
  known = known.length ? [...known, ...fresh] : fresh;
}

const rank = (model) => {
  know([model]);
  return known.indexOf(model);
};

/** The class that gives an element `--model` to paint with. */
export const colorClass = (model) => `model-${rank(model) % COLORS}`;

/** A model's mark around a point of a chart. */
export const mark = (model, x, y, size, attributes = {}) =>
  svg("path", {
    d: SHAPES[rank(model) % SHAPES.length],
    transform: `translate(${x - size / 2} ${y - size / 2}) scale(${size / 16})`,
    ...attributes,
    class: `mark ${colorClass(model)} ${attributes.class ?? ""}`,
  });

/** A model's mark next to its name; decoration, the name says it. */
export const swatch = (model) =>
  svg("svg", { class: "swatch", viewBox: "0 0 16 16", width: 12, height: 12, "aria-hidden": "true" },
    mark(model, 8, 8, 16));
