// An answer, a stream and an error in JavaScript.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.COTERIE_URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.COTERIE_API_KEY ?? "none",
});
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "Say hello!" }];

const answer = await client.chat.completions.create({ model, messages, max_tokens: 30 });
console.log(answer.choices[0].message.content);

const stream = await client.chat.completions.create({ model, messages, max_tokens: 30, stream: true });
let finishReason = null;
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
  finishReason = chunk.choices[0]?.finish_reason ?? finishReason;
}
console.log(finishReason ? `\n[finish reason: ${finishReason}]` : "\n[the stream broke off]");

try {
  await client.chat.completions.create({ model, messages, temperature: 3 });
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  console.log(`${error.constructor.name} ${error.status}: code=${error.code} param=${error.param}`);
  console.log(`  ${error.error.message}`);
  console.log(`  request id ${error.requestID}`);
}
