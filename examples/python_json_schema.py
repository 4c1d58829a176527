"""An answer held to a schema."""

import json
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("COTERIE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("COTERIE_API_KEY", "none"),
)
model = client.models.list().data[0].id

schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "mood": {"enum": ["happy", "sad", "asleep"]},
    },
    "required": ["name", "age", "mood"],
    "additionalProperties": False,
}
answer = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Invent a cat, as JSON with name, age and mood."}],
    response_format={"type": "json_schema", "json_schema": {"name": "cat", "schema": schema, "strict": True}},
    max_tokens=200,
)
choice = answer.choices[0]
if choice.finish_reason == "length":
    raise SystemExit("The answer was cut at max_tokens, so it is not whole JSON.")
print(json.dumps(json.loads(choice.message.content), indent=2))
