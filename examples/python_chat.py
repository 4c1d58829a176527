"""A conversation of two turns."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("COTERIE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("COTERIE_API_KEY", "none"),
)
model = client.models.list().data[0].id
messages = []

for question in ("My name is Ada. What is a good name for a cat?", "What is my name?"):
    messages.append({"role": "user", "content": question})
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=60)
    choice = answer.choices[0]
    messages.append({"role": "assistant", "content": choice.message.content})
    print(f"> {question}\n{choice.message.content}")
    if choice.finish_reason == "length":
        print("(cut at max_tokens)")
    print(f"[{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens]\n")
