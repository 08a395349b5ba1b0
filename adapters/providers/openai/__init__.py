"""Models of OpenAI, and of every endpoint that speaks its API.

| file             | what it contains                                                                |
|------------------|---------------------------------------------------------------------------------|
| provider.py      | the provider: checks a model, and connects to an address or the user's client   |
| endpoint.py      | OpenAI's address and variables, and what its own endpoint needs                 |
| presets.py       | the same provider with the address and variables of other known endpoints       |
| http_model.py    | the fast path: chat and embeddings over aiohttp                                 |
| sdk_model.py     | the general path: the same through the user's own client                        |
| chat.py          | a column's chat completions as bytes, and their answers                         |
| embeddings.py    | a column's embeddings as bytes, and their answers                               |
| strict_schema.py | a JSON Schema in the form that strict structured output requires                |
"""
