// Wires the page: a prompt and weights in, dry runs while they change, an answer when asked.

import { Answer } from "./answer.js";
import { ApiProblem, dryRun, useKey } from "./api.js";
import { drawCandidates, drawExcluded } from "./candidates.js";
import { byId, html, say } from "./dom.js";
import { METRICS, withWeight } from "./geometry.js";
import { limitSliders } from "./limits.js";
import { LiveView } from "./live.js";
import { know } from "./models.js";
import { Triangle, weightSliders } from "./triangle.js";

const TYPING_PAUSE_MS = 200;
/** Load and drift change the predictions while the user does not type. */
const REFRESH_MS = 5000;
const EXAMPLES = {
  "A fact": "What is the capital of France, and what is it known for?",
  "A haiku": "Write a haiku about a power meter that hums in the night.",
  "An explanation": "Explain step by step how a steam engine turns heat into motion.",
};

const prompt = byId("prompt");
const maxTokens = byId("max-tokens");
const answer = new Answer();
let weights = null;
let candidates = [];
let pause = 0;
let running = null;

function show() {
  if (!weights) return;
  triangle.show(weights);
  showSliders(weights);
  if (!candidates.length) return;
  const model = drawCandidates(byId("candidates"), candidates, weights);
  const words = `${model} would answer`;
  // Said only when it changes: a screen reader would repeat it at every key.
  if (byId("winner").textContent !== words) byId("winner").textContent = words;
}

function take(changed) {
  weights = changed;
  show();
  later();
}

const triangle = new Triangle(byId("triangle"), take);
const showSliders = weightSliders(byId("sliders"), (i, value) => take(withWeight(triangle.weights, i, value)));
const constraints = limitSliders(byId("limits"), later);

function request() {
  const limit = Number(maxTokens.value);
  return {
    model: "auto",
    messages: [{ role: "user", content: prompt.value }],
    max_tokens: Number.isInteger(limit) && limit > 0 ? limit : undefined,
    routing: {
      // Until the first answer says what they are, those of the router's configuration.
      weights: weights ? Object.fromEntries(METRICS.map((metric, i) => [metric, weights[i]])) : undefined,
      policy: "weighted",
      constraints: constraints(),
    },
  };
}

function later() {
  clearTimeout(pause);
  pause = setTimeout(predict, TYPING_PAUSE_MS);
}

/** Once more after a while, but not for a hidden tab. */
function refresh() {
  pause = setTimeout(() => (document.hidden ? refresh() : predict()), REFRESH_MS);
}

async function predict() {
  clearTimeout(pause);
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  try {
    const decision = await dryRun(request(), signal);
    know([...decision.candidates, ...decision.excluded].map(({ model }) => model));
    candidates = decision.candidates;
    weights ??= METRICS.map((metric) => decision.weights[metric]);
    triangle.draw(candidates);
    drawExcluded(byId("excluded"), decision.excluded);
    byId("comparison-note").textContent = describe(decision);
    say(byId("problem"), null);
    show();
  } catch (error) {
    if (error.name === "AbortError") return;
    complain(error);
    // Until there is a key, the answer stays the same.
    if (error.status === 401) return;
  }
  if (!signal.aborted) refresh();
}

function describe({ candidates: found, rules }) {
  const lengths = found.map((candidate) => Math.round(candidate.output_tokens));
  const [least, most] = [Math.min(...lengths), Math.max(...lengths)];
  const generated = least === most ? most : `${least} to ${most}`;
  return `Predicted for ${found[0].input_tokens} prompt tokens and ${generated} generated, `
    + `while you type; nothing is sent to a model.${ruled(rules)}`;
}

function ruled(rules) {
  if (!rules.length) return "";
  return ` By the operator's ${rules.length > 1 ? "rules" : "rule"} ${rules.join(", ")}.`;
}

/** Tells what is wrong; what was predicted before stands no longer. */
function complain(error) {
  if (!(error instanceof ApiProblem)) throw error;
  if (error.status === 401 && byId("key-button").hidden) askForKey();
  candidates = [];
  byId("candidates").replaceChildren();
  triangle.draw([]);
  say(byId("problem"), error.message);
}

function askForKey() {
  byId("key-button").hidden = false;
  const dialog = byId("key-dialog");
  if (!dialog.open) dialog.showModal();
}

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey(byId("key").value);
  try {
    await live.look();
    byId("key").value = "";
    say(byId("key-problem"), null);
    byId("key-dialog").close();
    predict();
  } catch (error) {
    if (!(error instanceof ApiProblem)) throw error;
    say(byId("key-problem"), error.message);
  }
});
byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
byId("key-button").addEventListener("click", askForKey);

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [ask, stop] = [byId("ask-button"), byId("stop-button")];
  ask.disabled = true;
  stop.hidden = false;
  stop.focus();
  try {
    await answer.ask(request());
  } catch (error) {
    complain(error);
  } finally {
    const focused = document.activeElement === stop;
    ask.disabled = false;
    stop.hidden = true;
    if (focused) ask.focus();
    live.look().catch(complain);
  }
});
byId("stop-button").addEventListener("click", () => answer.stop());

prompt.addEventListener("input", later);
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("ask-button").disabled) {
    byId("ask").requestSubmit();
  }
});
maxTokens.addEventListener("input", later);
byId("examples").append(...Object.entries(EXAMPLES).map(([name, text]) => html("li", {}, html("button", {
  type: "button",
  class: "chip",
  onclick: () => {
    prompt.value = text;
    predict();
  },
}, name))));

const live = new LiveView(complain);
// The models first: their colours go by all of them, not by those that can answer this prompt.
await live.start();
predict();
