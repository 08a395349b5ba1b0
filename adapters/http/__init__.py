"""One HTTP client for providers and validators alike, and what its errors mean.

| file         | what it contains                                                                     |
|--------------|--------------------------------------------------------------------------------------|
| endpoint.py  | an API's address and key, read from a model and the environment                      |
| transport.py | requests over a shared aiohttp session: proxies, time limits, bytes out and back     |
| probe.py     | whether an endpoint can be reached and accepts the key                               |
| errors.py    | the ModelError of each way in which a request can fail                               |
| bodies.py    | the message in the body of an error, down to the innermost reason                    |
| words.py     | what the words of an error mean: a limit, a used-up quota, a filter, a key           |
| standing.py  | whether a refusal is about every request, or about one                               |
| causes.py    | what a status, an error code or an exception means; also for clients that users bring |
| headers.py   | the wait that an endpoint asks for, and the id of a request                          |
"""

from ...engine.runs.foreign import register_judge

register_judge("clients", f"{__name__}.causes:judge")
