// Vercel's AI SDK: text, a stream, and a loop of forced calls, over each of the three dialects.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { z } from "zod";

const [url, model] = process.argv.slice(2);
const apiKey = "none";
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey });
const weather = tool({
  description: "The weather of a city.",
  inputSchema: z.object({ city: z.enum(["Oslo", "Rome"]) }),
  execute: async ({ city }) => `rain in ${city}`,
});
const prompt = "What is the weather in Oslo?";
const did = {};
for (const [name, chosen] of Object.entries({
  chat: openai.chat(model),
  responses: openai.responses(model),
  messages: anthropic(model),
})) {
  const whole = await generateText({ model: chosen, prompt, maxOutputTokens: 8 });
  assert(["stop", "length"].includes(whole.finishReason), whole.finishReason);
  const stream = streamText({ model: chosen, prompt, maxOutputTokens: 8 });
  let pieces = 0;
  for await (const _ of stream.textStream) pieces += 1;
  const loop = await generateText({
    model: chosen,
    prompt,
    tools: { weather },
    toolChoice: { type: "tool", toolName: "weather" },
    stopWhen: stepCountIs(4),
    maxOutputTokens: 64,
  });
  assert.equal(loop.steps.length, 4);
  for (const step of loop.steps) assert.equal(step.toolResults.length, 1);
  did[name] = pieces;
}
const manifest = JSON.parse(readFileSync("node_modules/ai/package.json"));
console.log(JSON.stringify({ version: manifest.version, did }));
