"""A stream, with its usage, that knows whether it is whole."""

import os

from openai import APIError, OpenAI

client = OpenAI(
    base_url=os.environ.get("COTERIE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("COTERIE_API_KEY", "none"),
)
model = client.models.list().data[0].id

finish_reason = None
try:
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Tell me a very short story."}],
        max_tokens=80,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
            finish_reason = choice.finish_reason or finish_reason
        if chunk.usage:
            print(f"\n[{chunk.usage.completion_tokens} tokens]")
except APIError as error:
    # Also for a failure in the middle: what was printed is not the whole answer.
    raise SystemExit(f"\nfailed: {error.code}: {error.message}") from None

# No SDK raises where a connection just ends: an answer without a finish reason is not whole.
raise SystemExit(0 if finish_reason else "\nThe stream broke off.")
