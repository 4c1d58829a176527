"""Texts ordered by likeness. (With a chat model the order is a rough one; an embedding model does better.)"""

import math
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("COTERIE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("COTERIE_API_KEY", "none"),
)
model = client.models.list().data[0].id

question = "How do I bake bread?"
texts = ["Knead the dough and let it rise.", "The train leaves at noon.", "Flour, water, yeast and salt."]

answer = client.embeddings.create(model=model, input=[question, *texts])
asked, *vectors = [row.embedding for row in answer.data]


def likeness(a: list[float], b: list[float]) -> float:
    """The cosine of the angle between two vectors."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


print(f"{len(asked)} numbers each, {answer.usage.prompt_tokens} tokens\n{question}")
scores = [likeness(asked, vector) for vector in vectors]
for score, text in sorted(zip(scores, texts, strict=True), reverse=True):
    print(f"  {score:.3f}  {text}")
