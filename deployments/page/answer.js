// One answer: streaming, stopped, whole or broken; and what it took next to what was predicted.

import { byId, html, say } from "./dom.js";
import { chat } from "./api.js";
import { intervalBar, scaleEnd } from "./candidates.js";
import { count, joules, range, seconds } from "./format.js";
import { swatch } from "./models.js";

const REASONS = { stop: "", length: " It ends at the limit of its tokens." };

export class Answer {
  constructor() {
    this.box = byId("answer");
    this.status = byId("answer-status");
    this.text = byId("answer-text");
    this.problem = byId("answer-problem");
    this.outcome = byId("outcome");
    this.stopper = null;
  }

  /** Ends the stream; the router stops the generation. */
  stop() {
    this.stopper?.abort();
  }

  /**
   * Asks, and shows what comes.
   * @throws {ApiProblem} 401: the router wants a key
   */
  async ask(body) {
    this.stopper = new AbortController();
    this.box.hidden = false;
    this.outcome.hidden = true;
    this.text.replaceChildren();
    say(this.problem, null);
    this.#say("waiting", null, "Deciding …");
    let finish = null;
    let routing = null;
    let model = null;
    try {
      for await (const piece of chat(body, this.stopper.signal)) {
        if (piece.error) throw new Error(piece.error.message);
        model ??= this.#begin(piece.model);
        const choice = piece.choices?.[0];
        this.text.append(choice?.delta?.content ?? "");
        this.text.scrollTop = this.text.scrollHeight;
        finish = choice?.finish_reason ?? finish;
        routing = piece.routing ?? routing;
      }
      if (!finish) throw new Error("the stream ended without a finish reason");
      const tries = routing?.attempts?.length ?? 1;
      const again = tries > 1 ? ` after ${tries} tries` : "";
      this.#say("whole", routing?.model ?? model,
        `answered${again}.${REASONS[finish] ?? ` It ended with: ${finish}.`}`);
      this.#compare(routing);
    } catch (error) {
      if (error.name === "AbortError") {
        this.#say("stopped", model, "Stopped by you.");
      } else if (error.status === 401) {
        this.box.hidden = true;
        throw error;
      } else if (error.status !== undefined) {
        this.#say("refused", null, "Not answered.");
        say(this.problem, error.message);
      } else {
        this.#say("broken", model, "broke off. This answer is not whole.");
        say(this.problem, `The stream broke: ${error.message}`);
      }
    }
  }

  #begin(model) {
    this.#say("waiting", model, "is answering …");
    return model;
  }

  #say(state, model, text) {
    this.box.dataset.state = state;
    this.status.replaceChildren(...(model ? [swatch(model), html("strong", {}, model), ` ${text}`] : [text]));
  }

  #compare(routing) {
    if (!routing?.predicted || !routing.actual) return;
    const { predicted, actual, model, energy_source: source } = routing;
    const rows = [
      ["Runtime", predicted.runtime_s, predicted.runtime_interval_s, actual.runtime_s, seconds],
      ["Energy", predicted.energy_joules, predicted.energy_interval_joules, actual.energy_joules, joules],
      ["Length", predicted.output_tokens, null, actual.output_tokens, (n) => `${count(n)} tokens`],
    ];
    byId("outcome-list").replaceChildren(...rows.map(([name, value, interval, took, write]) => {
      const known = took !== null;
      const inside = interval && known && took >= interval[0] && took <= interval[1];
      const end = scaleEnd([value, took ?? 0], [interval]);
      return html("div", { class: "cell" },
        html("dt", {}, name),
        html("dd", {},
          html("span", { class: "value" }, known ? write(took) : "not measured"),
          intervalBar({ value, interval, actual: known ? took : undefined, end, model }),
          html("span", { class: "interval" }, `predicted ${write(value)}`),
          interval && html("span", { class: "interval" }, `90 %: ${range(interval, write)}`),
          interval && known && html("span", { class: `interval verdict ${inside ? "hit" : ""}` },
            inside ? "✓ inside" : "✗ outside")));
    }));
    byId("outcome-list").append(...footprint(actual).map(([name, text]) =>
      html("div", { class: "cell" }, html("dt", {}, name), html("dd", {}, html("span", { class: "value" }, text)))));
    this.outcome.hidden = false;
    this.outcome.title = source ? `Energy measured with ${source}` : "";
  }
}

/** What the configured grid makes of the joules, as pairs of name and text. */
function footprint({ co2_g: grams, cost, currency }) {
  const write = (n) => Number(n.toPrecision(2)).toString();
  return [
    ...(grams == null ? [] : [["Carbon", `${write(grams)} g CO₂`]]),
    ...(cost == null ? [] : [["Cost", `${write(cost)} ${currency}`.trim()]]),
  ];
}
