"""One HTTP client for providers and validators alike, and what its errors mean.

| file            | what it contains                                                                         |
|-----------------|------------------------------------------------------------------------------------------|
| endpoint.py     | an API's address and key, read from a model and the environment                          |
| addresses.py    | which hosts are this machine, and how an address is shown                                |
| proxies.py      | the proxy that the environment names for an address                                      |
| certificates.py | the certificates that are trusted, and OpenSSL's reason where one is not                 |
| transport.py    | requests over a shared aiohttp session: proxies, time limits, bytes out and back         |
| probe.py        | whether an endpoint can be reached and accepts the key                                   |
| errors.py       | the ModelError of each way in which a request can fail                                   |
| masks.py        | keys, cut out of other parties' texts                                                    |
| bodies.py       | the message in the body of an error, down to the innermost reason                        |
| words.py        | what the words of an error mean: a limit, a used-up quota, a filter, a key               |
| standing.py     | whether a refusal is about every request, or about one                                   |
| causes.py       | what a status, an error code or an exception means                                       |
| chains.py       | an exception and those inside it, by the names of their classes                          |
| clients.py      | what an exception of a client means that a user's function brings                        |
| headers.py      | the wait that an endpoint asks for, and the id of a request                              |
"""

from ...engine.runs.foreign import register_judge

register_judge("clients", f"{__name__}.clients:judge")
