// The triangle of weights: each model's region, and the present weights as a point in it.
// Accuracy is on top, energy left, runtime right, as in the plot `dominance`.

import { html, svg } from "./dom.js";
import { percent } from "./format.js";
import { METRICS, clamped, regions } from "./geometry.js";
import { colorClass } from "./models.js";

const SIDE = 300;
const HEIGHT = (SIDE * Math.sqrt(3)) / 2;
const CORNERS = [[SIDE / 2, 0], [0, HEIGHT], [SIDE, HEIGHT]];
const STEP = 0.02;
const NAMES = { accuracy: "accuracy", energy: "energy", time: "runtime" };
/** A region with less of the triangle than this has no room for its name. */
const LABEL_SHARE = 0.04;
/** Room between the point and a name. */
const NEAR = 6;

const toPoint = (weights) =>
  [0, 1].map((axis) => weights.reduce((sum, weight, i) => sum + weight * CORNERS[i][axis], 0));

function toWeights([x, y]) {
  const accuracy = 1 - y / HEIGHT;
  const time = x / SIDE - accuracy / 2;
  return clamped([accuracy, 1 - accuracy - time, time]);
}

/** Area of a polygon, and its centre of gravity. */
function measure(points) {
  let [doubled, x, y] = [0, 0, 0];
  points.forEach((here, i) => {
    const next = points[(i + 1) % points.length];
    const crossed = here[0] * next[1] - next[0] * here[1];
    doubled += crossed;
    x += (here[0] + next[0]) * crossed;
    y += (here[1] + next[1]) * crossed;
  });
  return { area: Math.abs(doubled) / 2, center: [x / doubled / 3, y / doubled / 3] };
}

export const inWords = (weights) =>
  METRICS.map((metric, i) => `${NAMES[metric]} ${percent(weights[i])}`).join(", ");

export class Triangle {
  /**
   * @param {SVGElement} root
   * @param {(weights: number[]) => void} onMove called for every move that the user makes
   */
  constructor(root, onMove) {
    this.root = root;
    this.onMove = onMove;
    this.weights = [1 / 3, 1 / 3, 1 / 3];
    this.regions = svg("g", { class: "regions" });
    this.labels = svg("g", { class: "labels", "aria-hidden": "true" });
    this.handle = svg("g", {
      class: "handle",
      tabindex: "0",
      role: "slider",
      "aria-label": "Weights: up for accuracy, left for energy, right for runtime",
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      onkeydown: (event) => this.#key(event),
    },
      svg("circle", { class: "reach", r: 26 }),
      svg("circle", { class: "ring", r: 9 }),
      svg("circle", { class: "core", r: 3 }));
    root.append(
      this.regions, this.#grid(), this.#corners(), this.labels, this.handle);
    root.addEventListener("pointerdown", (event) => this.#grab(event));
    this.show(this.weights);
  }

  /** Moves the point without telling anybody. */
  show(weights) {
    this.weights = weights;
    const [x, y] = toPoint(weights);
    this.handle.setAttribute("transform", `translate(${x} ${y})`);
    this.handle.setAttribute("aria-valuenow", Math.round(100 * weights[0]));
    this.handle.setAttribute("aria-valuetext", inWords(weights));
    this.#stepAside([x, y]);
  }

  /** Draws the regions of these candidates. */
  draw(candidates) {
    const shapes = [...regions(candidates)].map(([model, polygon]) => [model, polygon.map(toPoint)]);
    this.regions.replaceChildren(...shapes.map(([model, points]) =>
      svg("polygon", { points: points.join(" "), class: `region ${colorClass(model)}`, "data-model": model },
        svg("title", {}, model))));
    const named = shapes.map(([model, points]) => ({ model, ...measure(points) }))
      .filter(({ area }) => area > (LABEL_SHARE * SIDE * HEIGHT) / 2);
    this.labels.replaceChildren(...named.map(({ model, center }) => this.#label(model, center)));
    this.#stepAside(toPoint(this.weights));
  }

  /** A name does not stand under the point. */
  #stepAside([x, y]) {
    for (const label of this.labels.children) {
      const { x: left, y: top, width, height } = label.getBBox();
      const covered = x > left - NEAR && x < left + width + NEAR && y > top - NEAR && y < top + height + NEAR;
      label.classList.toggle("covered", covered);
    }
  }

  #label(model, [x, y]) {
    const width = 7.2 * model.length + 16;
    const left = Math.min(Math.max(x - width / 2, -22), SIDE + 22 - width);
    return svg("g", {},
      svg("rect", { x: left, y: y - 11, width, height: 22, rx: 11 }),
      svg("text", { x: left + width / 2, y: y + 4 }, model));
  }

  #grid() {
    const lines = [0.2, 0.4, 0.6, 0.8].flatMap((share) => {
      const rest = 1 - share;
      return [
        [[share, rest, 0], [share, 0, rest]],
        [[0, share, rest], [rest, share, 0]],
        [[rest, 0, share], [0, rest, share]],
      ];
    });
    return svg("g", { class: "rulings", "aria-hidden": "true" }, lines.map((ends) => {
      const [[x1, y1], [x2, y2]] = ends.map(toPoint);
      return svg("line", { x1, y1, x2, y2 });
    }));
  }

  #corners() {
    return svg("g", { class: "corners", "aria-hidden": "true" },
      svg("text", { x: SIDE / 2, y: -14 }, "accuracy"),
      svg("text", { x: 0, y: HEIGHT + 24 }, "energy"),
      svg("text", { x: SIDE, y: HEIGHT + 24 }, "runtime"));
  }

  #set(weights) {
    this.show(weights);
    this.onMove(weights);
  }

  #at(event) {
    const point = new DOMPoint(event.clientX, event.clientY);
    const { x, y } = point.matrixTransform(this.root.getScreenCTM().inverse());
    return toWeights([x, y]);
  }

  #grab(event) {
    if (event.button !== 0) return;
    // A finger next to the point may want to scroll the page.
    const onHandle = this.handle.contains(event.target);
    if (event.pointerType === "touch" && !onHandle) {
      this.root.addEventListener("click", (tap) => this.#set(this.#at(tap)), { once: true });
      return;
    }
    event.preventDefault();
    this.handle.focus();
    this.root.setPointerCapture(event.pointerId);
    const move = (moved) => this.#set(this.#at(moved));
    if (!onHandle) move(event);
    this.root.addEventListener("pointermove", move);
    const release = () => this.root.removeEventListener("pointermove", move);
    this.root.addEventListener("pointerup", release, { once: true });
    this.root.addEventListener("pointercancel", release, { once: true });
  }

  #key(event) {
    const step = event.shiftKey ? 5 * STEP : STEP;
    const [x, y] = toPoint(this.weights);
    const moves = {
      ArrowUp: [x, y - step * HEIGHT],
      ArrowDown: [x, y + step * HEIGHT],
      ArrowLeft: [x - step * SIDE, y],
      ArrowRight: [x + step * SIDE, y],
    };
    const corners = { Home: [1, 0, 0], End: [0, 0, 1], PageUp: [1, 0, 0], PageDown: [0, 1, 0] };
    const weights = moves[event.key] ? toWeights(moves[event.key]) : corners[event.key];
    if (!weights) return;
    event.preventDefault();
    this.#set(weights);
  }
}

/** Three sliders for the same weights; moving one keeps the ratio of the others. */
export function weightSliders(root, onMove) {
  const rows = METRICS.map((metric, i) => {
    const id = `weight-${metric}`;
    const output = html("output", { for: id });
    const input = html("input", {
      id, type: "range", min: 0, max: 100, step: 1,
      oninput: () => onMove(i, Number(input.value) / 100),
    });
    root.append(html("label", { for: id, class: `metric ${metric}` }, NAMES[metric]), input, output);
    return { input, output };
  });
  return (weights) => rows.forEach(({ input, output }, i) => {
    input.value = Math.round(100 * weights[i]);
    output.textContent = percent(weights[i]);
  });
}
