// Scores are linear in the weights, so the weights with which a model wins are a convex polygon.
// Everything here follows scheduler/scoring.py; weights are [accuracy, energy, time] with sum 1.

export const METRICS = ["accuracy", "energy", "time"];
/** What the stages of a metric are called in a decision. */
const STAGES = { accuracy: "accuracy", energy: "energy", time: "runtime" };
const TIE = 1e-9;

/** The rebased costs of a candidate, by metric. */
export const rebased = (candidate) =>
  METRICS.map((metric) => candidate.stages[STAGES[metric]].rebased);

/** What each metric adds to the score. */
export const contributions = (candidate, weights) =>
  rebased(candidate).map((cost, i) => cost * weights[i]);

export const score = (candidate, weights) =>
  contributions(candidate, weights).reduce((sum, part) => sum + part, 0);

const cost = (candidate, i) =>
  [1 - candidate.accuracy, candidate.energy_joules, candidate.runtime_s][i];

/** The order of candidates whose scores are the same: on the heaviest metric that tells them apart. */
function settle(candidates, weights) {
  const deciding = METRICS.map((_, i) => i)
    .sort((a, b) => weights[b] - weights[a])
    .find((i) => weights[i] > 0 && candidates.some((c) => rebased(c)[i] !== 0)) ?? 1;
  return (a, b) =>
    cost(a, deciding) - cost(b, deciding) || cost(a, 1) - cost(b, 1) || (a.model < b.model ? -1 : 1);
}

/** The candidates, best first. */
export function ranked(candidates, weights) {
  const byScore = candidates.toSorted((a, b) => score(a, weights) - score(b, weights));
  const order = [];
  while (order.length < byScore.length) {
    const limit = score(byScore[order.length], weights) + TIE;
    const tied = byScore.slice(order.length).filter((c) => score(c, weights) <= limit);
    order.push(...tied.sort(settle(candidates, weights)));
  }
  return order;
}

/** The part of a convex polygon where a linear function of the weights is not above 0. */
function clip(polygon, normal) {
  const height = (point) => normal.reduce((sum, n, i) => sum + n * point[i], 0);
  return polygon.flatMap((point, k) => {
    const next = polygon[(k + 1) % polygon.length];
    const [here, there] = [height(point), height(next)];
    const kept = here <= 0 ? [point] : [];
    if (here * there >= 0) return kept;
    const share = here / (here - there);
    return [...kept, point.map((value, i) => value + share * (next[i] - value))];
  });
}

/** How far a polygon reaches in both directions; next to 0 where it is a line or a point. */
function spread(polygon) {
  const [first, ...rest] = polygon;
  const sides = rest.map((point) => [point[0] - first[0], point[1] - first[1]]);
  return Math.max(0, ...sides.flatMap(([a, b]) => sides.map(([c, d]) => Math.abs(a * d - b * c))));
}

/**
 * Where each model wins.
 * @returns {Map<string, number[][]>} by model the corners of its polygon; models that never win are
 *   left out.
 */
export function regions(candidates) {
  const apart = (a, b) => rebased(a).map((value, i) => value - rebased(b)[i]);
  const twins = (a, b) => apart(a, b).every((difference) => Math.abs(difference) <= TIE);
  // Of candidates that no weights tell apart, the one that wins ties stands for all.
  const distinct = candidates.filter((candidate) => {
    const equals = candidates.filter((other) => twins(candidate, other));
    return equals.sort(settle(candidates, [1 / 3, 1 / 3, 1 / 3]))[0] === candidate;
  });
  const found = new Map();
  for (const candidate of distinct) {
    let polygon = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    for (const other of distinct) {
      if (other !== candidate) polygon = clip(polygon, apart(candidate, other));
    }
    if (spread(polygon) > TIE) found.set(candidate.model, polygon);
  }
  return found;
}

/** The weights with one of them changed; the others keep their ratio. */
export function withWeight(weights, index, value) {
  const rest = 1 - weights[index];
  return weights.map((weight, i) => {
    if (i === index) return value;
    return (1 - value) * (rest > TIE ? weight / rest : 1 / 2);
  });
}

/** The nearest weights to a point that may lie outside the triangle. */
export function clamped(weights) {
  const positive = weights.map((weight) => Math.max(weight, 0));
  const sum = positive.reduce((a, b) => a + b, 0);
  return positive.map((weight) => weight / sum);
}
