"""Models of Anthropic, and of every endpoint that speaks its Messages API.

| file          | what it contains                                                             |
|---------------|------------------------------------------------------------------------------|
| provider.py   | the provider: checks a model and connects to its address                     |
| endpoint.py   | Anthropic's address and variables, and the headers of every request          |
| usage.py      | the tokens of a message, cached ones and terms of service                    |
| http_model.py | chat over aiohttp                                                            |
| messages.py   | a column's messages as bytes, and their answers                              |
| schema.py     | a JSON Schema in the part of the language that the endpoint can enforce      |
"""
