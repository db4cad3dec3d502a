// The router's API. The key lives in this module's memory and nowhere else.

import { events } from "./sse.js";

let key = "";

/** Sends this key from now on. */
export const useKey = (value) => { key = value; };

/** An answer that is an error object, or none at all (`status` 0). */
export class ApiProblem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function send(path, { body, signal } = {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiProblem(0, "the router does not answer");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new ApiProblem(response.status, answer.error?.message ?? `HTTP status ${response.status}`);
}

/** Who would answer, and why; nothing is sent to a model. */
export async function dryRun(body, signal) {
  return (await send("v1/route", { body, signal })).json();
}

/** What goes on now, and the decisions that finished after a Unix time. */
export async function live(since) {
  return (await send(`v1/live?since=${since}`)).json();
}

/**
 * The pieces of a streamed answer. What the server says is not judged here: an error event is a
 * piece too, and whether the answer is whole is for the reader to see.
 */
export async function* chat(body, signal) {
  const response = await send("v1/chat/completions", { body: { ...body, stream: true }, signal });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    yield JSON.parse(data);
  }
}
