// What goes on: asked for once a second while the tab is visible, seldom while it is not.

import { live as fetchLive } from "./api.js";
import { powerChart, scoreChart } from "./charts.js";
import { byId, fillTable, html } from "./dom.js";
import { clock, count, digits, factor, joules, percent, seconds, watts } from "./format.js";
import { colorClass, know, swatch } from "./models.js";

const PERIOD_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;
/** Decisions are asked for again this long after they were seen: other routers hand in theirs late. */
const OVERLAP_S = 5;
const KEEP_DECISIONS = 500;
const KEEP_POWER_S = 120;
const SHOWN_DECISIONS = 12;
const SHOWN_SCORES = 40;

const sum = (values) => values.reduce((a, b) => a + b, 0);
const named = (model) => [swatch(model), model];
const short = (id) => id.split(/[#:]/).at(-1).slice(0, 8);

export class LiveView {
  /** @param {(error: Error) => void} onProblem called when the router stops answering */
  constructor(onProblem) {
    this.onProblem = onProblem;
    this.since = 0;
    this.pause = PERIOD_MS;
    this.timer = 0;
    this.decisions = new Map();
    this.power = [];
  }

  /** Looks once, and from then on again and again. */
  async start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#again(0);
    });
    await this.#round();
  }

  async #round() {
    try {
      await this.look();
    } catch (error) {
      if (this.pause === PERIOD_MS) this.onProblem(error);
      this.pause = Math.min(2 * this.pause, LONGEST_PAUSE_MS);
      this.#again(this.pause);
    }
  }

  #again(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#round(), milliseconds);
  }

  /**
   * Looks now, and goes on from here.
   * @throws {ApiProblem} the router refuses, or is away
   */
  async look() {
    const view = await fetchLive(this.since);
    this.since = Math.max(0, view.now - OVERLAP_S);
    know(view.models.map(({ model }) => model));
    for (const decision of view.decisions) this.decisions.set(decision.decision_id, decision);
    const newest = [...this.decisions.values()]
      .sort((a, b) => b.finished_at - a.finished_at).slice(0, KEEP_DECISIONS);
    this.decisions = new Map(newest.map((decision) => [decision.decision_id, decision]));
    this.#keepPower(view);
    this.#draw(view, newest);
    this.pause = PERIOD_MS;
    this.#again(document.hidden ? LONGEST_PAUSE_MS : PERIOD_MS);
  }

  #keepPower(view) {
    const devices = {};
    const nodes = new Set(view.replicas.map((replica) => replica.node_id));
    for (const replica of view.replicas) {
      const device = replica.device.length > 16 ? replica.device.slice(0, 12) : replica.device;
      const name = nodes.size > 1 ? `${device} on ${short(replica.node_id)}` : device;
      devices[name] = (devices[name] ?? 0) + replica.power_watts;
    }
    this.power.push({ at: view.now, devices });
    this.power = this.power.filter(({ at }) => view.now - at <= KEEP_POWER_S);
  }

  #draw(view, decisions) {
    const ready = view.models.filter((model) => model.available).length;
    const readiness = `${ready} of ${view.models.length} models ready`;
    if (byId("readiness").textContent !== readiness) byId("readiness").textContent = readiness;
    byId("readiness").classList.toggle("all", ready === view.models.length);
    byId("live-note").textContent = view.decisions_shown
      ? "All requests of all clients, as they are answered."
      : "Decisions of everybody are for the keys of administrators; this one is not.";
    byId("profile-version").textContent = view.profile_version.slice(0, 16);
    this.#tiles(view, decisions);
    this.#share(decisions);
    const [power, scores] = [byId("power"), byId("scores")];
    power.replaceChildren(powerChart(this.power, power.clientWidth));
    const compared = decisions.filter(({ scores }) => Object.keys(scores).length > 1);
    scores.replaceChildren(scoreChart(compared.slice(0, SHOWN_SCORES).reverse(), scores.clientWidth));
    this.#models(view);
    this.#replicas(view);
    this.#decisions(decisions);
  }

  #tiles(view, decisions) {
    const answered = decisions.filter(({ actual }) => actual);
    const taken = sum(answered.map(({ actual }) => actual.energy_joules ?? 0));
    const compared = answered.filter(({ energy_saved_joules: saved }) => saved !== null);
    const saved = sum(compared.map(({ energy_saved_joules: joulesSaved }) => joulesSaved));
    const largest = saved + sum(compared.map(({ actual }) => actual.energy_joules));
    const broken = decisions.length - answered.length;
    const latest = decisions.length === KEEP_DECISIONS ? "the latest ones" : "none failed";
    const tiles = [
      ["Answers", count(answered.length), broken ? `${count(broken)} more failed or were stopped` : latest],
      ["Energy taken", joules(taken), answered.length ? `${joules(taken / answered.length)} an answer` : "idle power not included"],
      ["Saved", joules(saved), largest > 0 ? `${percent(saved / largest)} of always the largest` : "against always the largest"],
      ["Power now", watts(sum(view.replicas.map((replica) => replica.power_watts))),
        `${digits(sum(view.replicas.map((replica) => replica.tokens_per_s)))} tokens/s`],
    ];
    byId("tiles").replaceChildren(...tiles.map(([name, value, note]) =>
      html("div", { class: "tile" }, html("dt", {}, name), html("dd", {}, value, html("small", {}, note)))));
  }

  #share(decisions) {
    const answers = new Map();
    for (const { model } of decisions) answers.set(model, (answers.get(model) ?? 0) + 1);
    const rows = [...answers].sort(([, a], [, b]) => b - a);
    byId("share").replaceChildren(rows.length
      ? html("ul", { class: "shares" }, rows.map(([model, answered]) =>
        html("li", {},
          html("span", {}, named(model)),
          html("span", { class: "number" }, `${percent(answered / decisions.length)} (${count(answered)})`),
          html("progress", {
            class: colorClass(model), max: decisions.length, value: answered, "aria-label": `share of ${model}`,
          }))))
      : html("p", { class: "empty" }, "No answer yet. Ask something above, or use any OpenAI client."));
  }

  #models(view) {
    const rows = view.models.map((model) => {
      const replicas = view.replicas.filter((replica) => replica.model === model.model);
      const places = model.slots ? ` of ${model.slots * model.replicas}` : "";
      return [
        html("span", {}, named(model.model)),
        html("span", { class: model.available ? "state ok" : "state" }, model.available ? "ready" : model.reason),
        String(model.replicas),
        `${count(model.ongoing)}${places}`,
        digits(sum(replicas.map((replica) => replica.tokens_per_s))),
        drift(model.drift.runtime),
        drift(model.drift.energy),
      ];
    });
    fillTable(byId("models"), "Models",
      ["model", "state", "#replicas", "#running and waiting", "#tokens/s", "#runtime drift", "#energy drift"], rows);
  }

  #replicas(view) {
    const rows = view.replicas
      .toSorted((a, b) => (a.replica_id < b.replica_id ? -1 : 1))
      .map((replica) => [
        html("code", {}, short(replica.replica_id)),
        html("span", {}, named(replica.model)),
        short(replica.node_id),
        replica.accelerator,
        String(replica.ongoing),
        count(replica.tokens_in_flight),
        digits(replica.tokens_per_s),
        replica.meter_fault ?? watts(replica.power_watts),
      ]);
    fillTable(byId("replicas"), "Replicas",
      ["replica", "model", "node", "accelerator", "#requests", "#tokens in flight", "#tokens/s", "#power"], rows);
  }

  #decisions(decisions) {
    const rows = decisions.slice(0, SHOWN_DECISIONS).map((decision) => {
      const { weights, predicted, actual } = decision;
      return [
        clock(decision.finished_at),
        html("span", {}, named(decision.model)),
        decision.policy === "pinned"
          ? "named by the client"
          : [weights.accuracy, weights.energy, weights.time].map((w) => Math.round(100 * w)).join(" / "),
        against(predicted?.runtime_s, actual?.runtime_s, seconds),
        against(predicted?.energy_joules, actual?.energy_joules, joules),
        joules(decision.energy_saved_joules),
        decision.error ? html("span", { class: "state" }, decision.error)
          : decision.attempts > 1 ? `whole, ${decision.attempts} tries` : "whole",
      ];
    });
    fillTable(byId("decisions"), "Decisions, newest first",
      ["finished", "model", "accuracy / energy / runtime, %", "#runtime: predicted → actual",
        "#energy: predicted → actual", "#saved", "answer"], rows);
  }
}

const against = (predicted, actual, write) => `${write(predicted)} → ${write(actual)}`;

function drift({ factor: value, observations }) {
  if (!observations) return "none seen";
  return html("span", { title: `learnt from ${observations} answers` }, factor(value));
}
