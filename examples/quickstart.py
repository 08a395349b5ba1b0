"""A recipe in Python: what a sampler draws, what a model writes, and what Python functions make of both.

    python examples/quickstart.py

The model runs in this process (pip install 'rowloop[local]'); OPENAI_BASE_URL and OPENAI_API_KEY with
Model("openai:NAME") would do as well.
"""

from __future__ import annotations

import sys

import rowloop as rl

MODEL = sys.argv[1] if len(sys.argv) > 1 else "local:gemma-3-270m"

PROMPT = """Animals, each told in one sentence.
dog: The dog is a loyal animal that guards the house.
horse: The horse is a strong animal that pulls heavy carts.
{{ animal }}:"""

recipe = rl.Recipe(
    models={"writer": rl.Model(MODEL, temperature=0.5, max_tokens=40)},
    columns=[
        rl.Category("animal", values=["cat", "fox", "goose", "lion", "mouse", "wolf"]),
        rl.Text("sentence", model="writer", prompt=PROMPT, stop=["\n"], allow_truncated=True),
        rl.Expression("line", "{{ animal | upper }}: {{ sentence }}"),
    ],
    seed=7,
)


@recipe.column
def words(sentence: str) -> int:
    """Count the words. The parameter names the column that is needed; the function runs in a thread."""
    return len(sentence.split())


if __name__ == "__main__":
    result = recipe.preview(6)
    print(result.to_pandas()[["line", "words"]].to_string(index=False))
    print(result.summary())
