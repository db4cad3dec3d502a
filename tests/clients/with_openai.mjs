// The official client for Node: an answer with weights, and a stream.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2] });
const messages = [{ role: "user", content: "What is the capital of France?" }];

const answer = await client.chat.completions.create({
  model: "auto",
  messages,
  max_tokens: 16,
  temperature: 0,
  routing: { weights: { energy: 1 } },
});
if (!answer.choices[0].message.content || !answer.routing) throw new Error(JSON.stringify(answer));
console.log(answer.model, answer.choices[0].message.content);

let text = "";
let finished = null;
for await (const chunk of await client.chat.completions.create({
  model: "auto",
  messages,
  max_tokens: 16,
  temperature: 0,
  stream: true,
})) {
  text += chunk.choices[0]?.delta?.content ?? "";
  finished = chunk.choices[0]?.finish_reason ?? finished;
}
if (!text || !finished) throw new Error(`stream: '${text}', finish reason ${finished}`);
console.log("stream:", text);
