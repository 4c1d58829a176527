"""A tool that the model calls, and its result."""

import json
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("COTERIE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("COTERIE_API_KEY", "none"),
)
model = client.models.list().data[0].id

tools = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city now.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
        },
    }
]
messages = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]

# A tiny model is not sure when to call; naming the function makes it call. Larger ones do with "auto".
first = client.chat.completions.create(
    model=model,
    messages=messages,
    tools=tools,
    tool_choice={"type": "function", "function": {"name": "get_weather"}},
    temperature=0,
    max_tokens=200,
)
call = first.choices[0].message.tool_calls[0]
arguments = json.loads(call.function.arguments)  # held to the schema while it was written
print(f"{call.function.name}({arguments})")

messages += [
    first.choices[0].message,
    {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"temperature": 21, "sky": "clear"})},
]
# The tiny default model often just repeats its call here; one that was trained for tools tells the weather.
second = client.chat.completions.create(
    model=model, messages=messages, tools=tools, tool_choice="none", temperature=0, max_tokens=60
)
print(second.choices[0].message.content)
