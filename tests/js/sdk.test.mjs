// The official JavaScript SDK against a running server: what works, and each kind of failure before and in a stream.
// The environment tells where: COTERIE_URL, GUARDED_URL and GUARDED_KEY, as tests/integration/test_javascript.py sets.

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";

import OpenAI, {
  APIError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
} from "openai";

const { COTERIE_URL, GUARDED_URL, GUARDED_KEY } = process.env;
const MODEL = "smollm2-135m-instruct";
const REQUEST_ID = /^req_[0-9a-f]{32}$/;

/** A client with the SDK's own defaults (two retries), and the number of requests that it sent. */
function counting(url = COTERIE_URL, apiKey = "unused") {
  const sent = [];
  const client = new OpenAI({
    baseURL: `${url}/v1`,
    apiKey,
    fetch: (...request) => {
      sent.push(request[0]);
      return fetch(...request);
    },
  });
  return { client, sent };
}

function chat(changes = {}) {
  const messages = [{ role: "user", content: "What is the capital of Cuba?" }];
  return { model: MODEL, messages, max_tokens: 8, temperature: 0, ...changes };
}

function longChat(model, changes = {}) {
  return chat({ model, max_tokens: 1500, logit_bias: { 2: -100, 0: -100 }, ...changes });
}

async function failure(promise) {
  return promise.then(
    () => assert.fail("no failure"),
    (error) => error,
  );
}

async function engine(model) {
  const status = await (await fetch(`${COTERIE_URL}/status`)).json();
  return status.engines.find((row) => row.model === model && row.task === "generate");
}

async function gather(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

test("chat", async () => {
  const { client, sent } = counting();
  const answer = await client.chat.completions.create(chat());
  assert.equal(answer.choices[0].message.content, "The capital of Cuba is Havana.");
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.match(answer._request_id, REQUEST_ID);
  assert.equal(sent.length, 1);
});

test("chat as a stream, with usage", async () => {
  const { client } = counting();
  const request = chat({ stream: true, stream_options: { include_usage: true } });
  const chunks = await gather(await client.chat.completions.create(request));
  const last = chunks.pop();
  const text = chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
  assert.equal(text, "The capital of Cuba is Havana.");
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.total_tokens > 0);
});

test("the stream helper", async () => {
  const { client } = counting();
  const stream = client.chat.completions.stream(chat());
  assert.equal(await stream.finalContent(), "The capital of Cuba is Havana.");
});

test("a forced tool call, plain and through the stream helper", async () => {
  const { client } = counting();
  const parameters = { type: "object", properties: { city: { enum: ["Paris"] } }, required: ["city"] };
  const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
  const choice = { type: "function", function: { name: "get_weather" } };
  const request = chat({ tools, tool_choice: choice, max_tokens: 200 });
  const plain = await client.chat.completions.create(request);
  const streamed = await client.chat.completions.stream(request).finalChatCompletion();
  for (const answer of [plain, streamed]) {
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(call.function.name, "get_weather");
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
  }
});

test("text completions, embeddings, models", async () => {
  const { client } = counting();
  const completion = await client.completions.create({
    model: MODEL, prompt: "The capital of France is", max_tokens: 1, temperature: 0,
  });
  assert.equal(completion.choices[0].text, " Paris");
  const embeddings = await client.embeddings.create({ model: MODEL, input: ["one", "two"] });
  assert.equal(embeddings.data.length, 2);
  assert.ok(embeddings.data[0].embedding.every(Number.isFinite));
  const ids = (await client.models.list()).data.map((model) => model.id);
  assert.ok(ids.includes(MODEL));
  assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
});

const BEFORE_THE_STREAM = [
  { name: "unknown model", request: chat({ model: "nope" }), kind: NotFoundError, status: 404,
    code: "model_not_found", type: "invalid_request_error", param: "model", sent: 1 },
  { name: "empty model", request: chat({ model: "" }), kind: BadRequestError, status: 400,
    code: "missing_required_parameter", type: "invalid_request_error", param: "model", sent: 1 },
  { name: "unknown parameter", request: chat({ temprature: 1 }), kind: BadRequestError, status: 400,
    code: "unknown_parameter", type: "invalid_request_error", param: "temprature", sent: 1 },
  { name: "wrong type", request: chat({ temperature: "hot" }), kind: BadRequestError, status: 400,
    code: "invalid_type", type: "invalid_request_error", param: "temperature", sent: 1 },
  { name: "long conversation",
    request: chat({ messages: [{ role: "user", content: "one two three ".repeat(700) }] }),
    kind: BadRequestError, status: 400, code: "context_length_exceeded", type: "invalid_request_error",
    param: "messages", sent: 1, says: /maximum context length is 1024 tokens.* [1-9]\d{3} tokens/ },
  { name: "broken picture",
    request: chat({ messages: [{ role: "user", content: [
      { type: "image_url", image_url: { url: "data:image/png;base64,****" } }] }] }),
    kind: BadRequestError, status: 400, code: "invalid_base64", type: "invalid_request_error",
    param: "messages[0].content[0].image_url.url", sent: 1 },
  { name: "body of 9 MB", request: chat({ messages: [{ role: "user", content: "a".repeat(9_000_000) }] }),
    kind: APIError, status: 413, code: "request_too_large", type: "invalid_request_error", param: null, sent: 1 },
  { name: "wrong key", request: chat(), url: GUARDED_URL, key: "wrong", kind: AuthenticationError, status: 401,
    code: "invalid_api_key", type: "invalid_request_error", param: null, sent: 1 },
  { name: "damaged model", request: chat({ model: "damaged" }), kind: InternalServerError, status: 500,
    code: "model_load_failed", type: "server_error", param: null, sent: 1 },
  { name: "late first token", request: chat({ model: "late" }), kind: InternalServerError, status: 504,
    code: "engine_timeout", type: "server_error", param: null, sent: 3 },
];

for (const row of BEFORE_THE_STREAM) {
  for (const stream of [false, true]) {
    test(`before the stream: ${row.name}${stream ? ", stream" : ""}`, async () => {
      const { client, sent } = counting(row.url, row.key);
      const error = await failure(client.chat.completions.create({ ...row.request, stream }));
      checkStatusError(error, row);
      assert.equal(sent.length, row.sent);
    });
  }
}

function checkStatusError(error, { kind, status, code, type, param, says }) {
  assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
  assert.deepEqual(
    { status: error.status, code: error.code, type: error.type, param: error.param },
    { status, code, type, param },
  );
  assert.match(error.requestID, REQUEST_ID);
  if (says) assert.match(error.message, says);
}

test("the right key is let in", async () => {
  const { client } = counting(GUARDED_URL, GUARDED_KEY);
  assert.equal((await client.models.list()).data[0].id, MODEL);
});

test("full queue", async () => {
  const { client, sent } = counting();
  const occupant = await client.chat.completions.create(longChat("single", { stream: true }));
  const chunks = occupant[Symbol.asyncIterator]();
  await chunks.next();
  sent.length = 0;
  const error = await failure(client.chat.completions.create(chat({ model: "single" })));
  checkStatusError(error, {
    kind: InternalServerError, status: 503, code: "server_is_overloaded", type: "service_unavailable_error",
    param: null, says: /Please try again in \d+s\./,
  });
  assert.ok(Number(error.headers.get("retry-after")) >= 1);
  assert.ok(Number(error.headers.get("retry-after-ms")) >= 1);
  assert.equal(sent.length, 3);
  await chunks.return();
});

test("engine killed in the stream, and the next request", async () => {
  const { client, sent } = counting();
  const stream = await client.chat.completions.create(longChat("fragile", { stream: true }));
  const seen = [];
  const error = await failure(
    (async () => {
      for await (const chunk of stream) {
        seen.push(chunk);
        if (seen.length === 3) process.kill((await engine("fragile")).pid, "SIGKILL");
      }
    })(),
  );
  assert.equal(error.constructor, APIError);
  assert.deepEqual(
    { status: error.status, code: error.code, type: error.type, param: error.param },
    { status: undefined, code: "engine_failed", type: "server_error", param: null },
  );
  assert.ok(seen.every((chunk) => chunk.choices[0].finish_reason === null));
  assert.equal(sent.length, 1);
  const answer = await client.chat.completions.create(chat({ model: "fragile" }));
  assert.equal(answer.choices[0].finish_reason, "stop");
});

test("engine killed under the stream helper", async () => {
  const { client } = counting();
  const stream = client.chat.completions.stream(longChat("fragile"));
  stream.once("chunk", async () => process.kill((await engine("fragile")).pid, "SIGKILL"));
  const error = await failure(stream.finalChatCompletion());
  assert.equal(error.code, "engine_failed");
});

test("a client that leaves frees its slot", async () => {
  const { client } = counting();
  const stream = await client.chat.completions.create(longChat("fragile", { stream: true }));
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break;
  }
  const deadline = Date.now() + 30_000;
  while ((await engine("fragile")).running > 0) assert.ok(Date.now() < deadline, "the slot stays taken");
});
