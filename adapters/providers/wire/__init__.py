"""What the providers that speak HTTP share.

| file                 | what it contains                                                            |
|----------------------|-----------------------------------------------------------------------------|
| request.py           | reserved fields of a body, errors of encoding and decoding, reasoning in text |
| dialect.py           | what an endpoint does not accept, and the complaints that report it         |
| adapting.py          | requests that are put in another way when they are refused                  |
| messages.py          | changes to messages and answers for what an endpoint does not do itself     |
| verdict.py           | refusals and errors of gateways that come with status 200                   |
| lenient.py           | usage, identifiers and reasoning, in whatever form they come                |
| embedding_batches.py | texts that are ready at the same time share requests                        |
| usage.py             | the tokens of an answer, cached ones and the bill, as endpoints write them  |
| list_prices.py       | what a model costs at an endpoint, from the package genai-prices            |
"""
