// What the official JavaScript SDK makes of failures of a provider: before the stream, and in its middle.
import assert from "node:assert/strict";
import test from "node:test";

import OpenAI, { APIError } from "openai";

const client = new OpenAI({ baseURL: `${process.env.COTERIE_URL}/v1`, apiKey: "unused", maxRetries: 0 });
const body = (model, stream) => ({ model, stream, messages: [{ role: "user", content: "one two three" }] });

const BEFORE = [
  ["unavailable", 503, "server_is_overloaded", null],
  ["reset", 502, "upstream_unreachable", null],
  ["silent", 504, "upstream_timeout", null],
  ["unauthorized", 502, "upstream_auth_failed", null],
  ["html", 502, "upstream_error", null],
  ["overflow", 400, "context_length_exceeded", "messages"],
  ["rate-limit", 429, "rate_limit_exceeded", null],
];
for (const [model, status, code, param] of BEFORE) {
  for (const stream of [false, true]) {
    test(`${model}, ${stream ? "as a stream" : "plain"}`, async () => {
      const error = await client.chat.completions.create(body(model, stream)).then(assert.fail, (raised) => raised);
      assert.ok(error instanceof APIError);
      assert.deepEqual([error.status, error.code, error.param], [status, code, param]);
      assert.match(error.requestID, /^req_/);
    });
  }
}

const IN_THE_MIDDLE = [
  ["cut", "upstream_stream_interrupted"],
  ["stall", "upstream_timeout"],
  ["malformed", "upstream_protocol_error"],
];
for (const [model, code] of IN_THE_MIDDLE) {
  test(`${model}, in the middle`, async () => {
    let text = "";
    const read = async () => {
      for await (const chunk of await client.chat.completions.create(body(model, true))) {
        text += chunk.choices[0]?.delta?.content ?? "";
        assert.equal(chunk.choices[0]?.finish_reason, null);
      }
    };
    const error = await read().then(assert.fail, (raised) => raised);
    assert.ok(error instanceof APIError);
    assert.equal(error.code, code);
    assert.equal(text.trim().split(" ").length, 20);
  });
}
