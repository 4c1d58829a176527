"""The Responses API: a stream, a second turn that remembers the first, and a conversation.

Needs a server (`make serve`) and `pip install openai`.
"""

from __future__ import annotations

import os

from openai import OpenAI

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")


def main() -> None:
    client = OpenAI(
        base_url=os.environ.get("COTERIE_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("COTERIE_API_KEY", "none"),
    )

    with client.responses.stream(model=MODEL, input="My name is Ada. Say hello!", max_output_tokens=40) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
        first = stream.get_final_response()
    print(f"\n[{first.status}, {first.usage.output_tokens if first.usage else '?'} tokens]")

    second = client.responses.create(
        model=MODEL, input="What is my name?", previous_response_id=first.id, max_output_tokens=40
    )
    print(second.output_text)

    conversation = client.conversations.create(metadata={"topic": "weather"})
    client.responses.create(model=MODEL, input="It rains.", conversation=conversation.id, max_output_tokens=40)
    items = client.conversations.items.list(conversation.id, order="asc")
    print([item.type for item in items])


if __name__ == "__main__":
    main()
