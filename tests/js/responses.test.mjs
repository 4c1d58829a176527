// The Responses API through the official JavaScript SDK: what works, and failures before and in a stream.
// The environment tells where: COTERIE_URL is the server, UPSTREAM_URL the scripted model server behind it, whose gates
// hold a stream until they are opened.

import assert from "node:assert/strict";
import net from "node:net";
import process from "node:process";
import { test } from "node:test";

import OpenAI, { APIConnectionError, APIError, BadRequestError, InternalServerError, NotFoundError } from "openai";

const { COTERIE_URL, UPSTREAM_URL } = process.env;
const MODEL = "smollm2-135m-instruct";
const WHOLE = Array.from({ length: 20 }, (_, number) => ` w${number}`).join("");
const TOOL = {
  type: "function",
  name: "get_temperature",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
  strict: true,
};

/** A client with the SDK's own defaults (two retries), and the number of requests that it sent. */
function counting(url = COTERIE_URL) {
  const sent = [];
  const client = new OpenAI({
    baseURL: `${url}/v1`,
    apiKey: "unused",
    fetch: (...request) => {
      sent.push(request[0]);
      return fetch(...request);
    },
  });
  return { client, sent };
}

const { client } = counting();
const open = (gate) => fetch(`${UPSTREAM_URL}/gates/${encodeURIComponent(gate)}`);
const failure = (promise) => promise.then(() => assert.fail("no failure"), (error) => error);
const asked = (changes = {}) => ({
  model: MODEL, input: "What is the capital of Cuba?", max_output_tokens: 16, temperature: 0, ...changes,
});

async function gather(stream, events = []) {
  for await (const event of stream) events.push(event);
  return events;
}

const textOf = (events) =>
  events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta).join("");
const checkNumbers = (events) =>
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, place) => place));

async function ended(id) {
  for (;;) {
    const response = await client.responses.retrieve(id);
    if (!["queued", "in_progress"].includes(response.status)) return response;
  }
}

test("create", async () => {
  const { client, sent } = counting();
  const response = await client.responses.create(asked({ metadata: { for: "a test" } }));
  assert.equal(response.output_text, "The capital of Cuba is Havana.");
  assert.equal(response.status, "completed");
  assert.deepEqual(response.metadata, { for: "a test" });
  assert.match(response._request_id, /^req_/);
  assert.equal(sent.length, 1);
  assert.equal((await client.responses.retrieve(response.id)).output_text, response.output_text);
});

test("a stream of events", async () => {
  const events = await gather(await client.responses.create(asked({ stream: true })));
  checkNumbers(events);
  assert.equal(textOf(events), "The capital of Cuba is Havana.");
  assert.equal(events.at(-1).type, "response.completed");
});

test("the stream helper", async () => {
  const deltas = [];
  const stream = client.responses.stream(asked());
  stream.on("response.output_text.delta", (event) => deltas.push(event.delta));
  const final = await stream.finalResponse();
  assert.equal(final.output_text, "The capital of Cuba is Havana.");
  assert.equal(deltas.join(""), final.output_text);
});

test("structured parsing", async () => {
  const schema = { type: "object", properties: { name: { type: "string" } }, required: ["name"] };
  const format = { type: "json_schema", name: "city", schema };
  const response = await client.responses.parse({ model: "structured", input: "Paris?", text: { format } });
  assert.deepEqual(response.output_parsed, { name: "Paris", inhabitants: 2100000 });
});

test("a tool, by the previous response and by the items", async () => {
  const input = [{ role: "user", content: "How warm is Paris?" }];
  const first = await client.responses.create({ model: "weather", input, tools: [TOOL] });
  const call = first.output.find((item) => item.type === "function_call");
  assert.deepEqual(JSON.parse(call.arguments), { city: "Paris" });
  const output = { type: "function_call_output", call_id: call.call_id, output: "21 degrees" };
  const request = { model: "weather", tools: [TOOL] };
  for (const next of [
    { ...request, input: [output], previous_response_id: first.id },
    { ...request, input: [...input, ...first.output, output], store: false },
  ]) {
    assert.equal((await client.responses.create(next)).output_text, "In Paris: 21 degrees.");
  }
});

test("a tool, as a stream", async () => {
  const stream = client.responses.stream({ model: "weather", input: "How warm is Paris?", tools: [TOOL] });
  const pieces = [];
  stream.on("response.function_call_arguments.delta", (event) => pieces.push(event.delta));
  const call = (await stream.finalResponse()).output.find((item) => item.type === "function_call");
  assert.equal(pieces.length, 2);
  assert.equal(pieces.join(""), call.arguments);
});

test("background", async () => {
  const accepted = await client.responses.create({ model: "gated", input: "js background", background: true });
  assert.ok(["queued", "in_progress"].includes(accepted.status));
  await open("js background");
  const response = await ended(accepted.id);
  assert.deepEqual([response.status, response.output_text], ["completed", WHOLE]);
});

test("cancel and delete", async () => {
  const accepted = await client.responses.create({ model: "gated", input: "js cancel", background: true });
  assert.equal((await client.responses.cancel(accepted.id)).status, "cancelled");
  await client.responses.delete(accepted.id);
  const error = await failure(client.responses.retrieve(accepted.id));
  assert.ok(error instanceof NotFoundError);
  assert.equal(error.code, "response_not_found");
});

/** A proxy whose connections can be cut. */
async function cuttable() {
  const sockets = [];
  const server = net.createServer((down) => {
    const up = net.connect(new URL(COTERIE_URL).port, "127.0.0.1");
    for (const socket of [down, up]) socket.on("error", () => {});
    sockets.push(down, up);
    down.pipe(up).pipe(down);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => {
    for (const socket of sockets) socket.resetAndDestroy();
    server.close();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, cut };
}

test("resume after a cut connection", async () => {
  const { url, cut } = await cuttable();
  const request = { model: "gated", input: "js resume", background: true, stream: true };
  const stream = await counting(url).client.responses.create(request);
  const events = [];
  await failure(
    (async () => {
      for await (const event of stream) {
        events.push(event);
        if (events.length === 6) cut();
      }
    })(),
  );
  assert.ok(events.length >= 6);
  const { id } = events[0].response;
  const rest = await client.responses.retrieve(id, { stream: true, starting_after: events.at(-1).sequence_number });
  await open("js resume");
  await gather(rest, events);
  checkNumbers(events);
  assert.equal(textOf(events), WHOLE);
  assert.equal(events.at(-1).type, "response.completed");
  const again = client.responses.stream({ response_id: id, starting_after: 9 });
  const seen = await gather(again);
  assert.deepEqual(seen.map((event) => event.sequence_number), events.slice(10).map((event) => event.sequence_number));
  assert.equal((await again.finalResponse()).output_text, WHOLE);
});

test("a cut connection is an error", async () => {
  const { url, cut } = await cuttable();
  const stream = await counting(url).client.responses.create({ model: "gated", input: "js cut", stream: true });
  const error = await failure(
    (async () => {
      for await (const event of stream) if (event.type === "response.output_text.delta") cut();
    })(),
  );
  assert.ok(error instanceof APIConnectionError || error instanceof TypeError, error.constructor.name);
});

const BEFORE = [
  { name: "unknown model", request: { model: "nope" }, kind: NotFoundError, code: "model_not_found", param: "model" },
  { name: "unknown parameter", request: { temprature: 1 }, kind: BadRequestError, code: "unknown_parameter",
    param: "temprature" },
  { name: "unknown previous response", request: { previous_response_id: "resp_none" }, kind: NotFoundError,
    code: "previous_response_not_found", param: "previous_response_id" },
  { name: "a picture for a model without eyes",
    request: { input: [{ role: "user", content: [
      { type: "input_image", image_url: "data:image/png;base64,iVBORw0KGgo=", detail: "auto" }] }] },
    kind: BadRequestError, code: "unsupported_value", param: "input[0].content[0].type" },
  { name: "full context", request: { model: "overflowing" }, kind: BadRequestError, code: "context_length_exceeded",
    param: "input" },
  { name: "overloaded", request: { model: "unavailable" }, kind: InternalServerError, code: "server_is_overloaded",
    param: null, sent: 3 },
];
for (const { name, request, kind, code, param, sent: times = 1 } of BEFORE) {
  for (const stream of [false, true]) {
    test(`before the stream: ${name}${stream ? ", stream" : ""}`, async () => {
      const { client, sent } = counting();
      const error = await failure(client.responses.create(asked({ ...request, stream })));
      assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
      assert.deepEqual([error.code, error.param], [code, param]);
      assert.match(error.requestID, /^req_/);
      assert.equal(sent.length, times);
    });
  }
}

for (const model of ["cut", "stalled"]) {
  test(`in the middle of a stream: ${model}`, async () => {
    const { client, sent } = counting();
    const events = [];
    const error = await failure(
      (async () => gather(await client.responses.create({ model, input: "Hi", stream: true }), events))(),
    );
    assert.ok(error instanceof APIError);
    assert.equal(error.code, "server_error");
    assert.equal(sent.length, 1);
    assert.equal(textOf(events), WHOLE);
    const stored = await client.responses.retrieve(events[0].response.id);
    assert.deepEqual([stored.status, stored.error.code, stored.output_text], ["failed", "server_error", WHOLE]);
  });

  test(`in the middle, under the stream helper: ${model}`, async () => {
    const error = await failure(client.responses.stream({ model, input: "Hi" }).finalResponse());
    assert.equal(error.code, "server_error");
  });
}

test("input items and conversations", async () => {
  const conversation = await client.conversations.create({ items: [{ role: "user", content: "zero" }] });
  const response = await client.responses.create({ model: "mirror", input: "one", conversation: conversation.id });
  assert.deepEqual(JSON.parse(response.output_text), [["user", "zero"], ["user", "one"]]);
  const items = await gather(await client.conversations.items.list(conversation.id, { order: "asc", limit: 2 }));
  assert.deepEqual(items.map((item) => item.role), ["user", "user", "assistant"]);
  const inputs = await gather(await client.responses.inputItems.list(response.id));
  assert.equal(inputs.at(-1).content[0].text, "one");
});
