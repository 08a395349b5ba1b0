"""What the providers that speak HTTP share.

| file                 | what it contains                                                            |
|----------------------|-----------------------------------------------------------------------------|
| request.py           | reserved fields of a body, errors of encoding and decoding, reasoning in text |
| dialect.py           | what an endpoint does not accept, and how a request is put instead          |
| embedding_batches.py | texts that are ready at the same time share requests                        |
| price_list.py        | one maker's list prices, and where they are valid                           |
"""
