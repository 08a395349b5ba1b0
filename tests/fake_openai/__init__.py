"""An OpenAI-compatible server that answers by rule, in a process of its own, for tests and benchmarks.

It speaks Anthropic's Messages API as well, at /v1/messages, for the sake of that provider's tests.

    from fake_openai import FakeOpenAI

    with FakeOpenAI(latency=0.05, fault_500=0.1) as server:
        ...                                   # talk to server.url
        assert server.counters().repeats == retries

By hand: `python tests/fake_openai --port 8000 --latency 0.1`, then `curl localhost:8000/control/counters`.

| file         | what it holds                                                                     |
|--------------|-----------------------------------------------------------------------------------|
| behaviour.py | Behaviour: every setting; Dice: which fault a request meets, and how long it waits |
| answers.py   | what is read from a request and what is written back                              |
| dialects.py  | what each vendor's endpoint refuses, and how it writes its errors                 |
| messages.py  | the same of Anthropic's Messages API                                              |
| billing.py   | the server's own bill, and the usage that says what a cache had                   |
| schemas.py   | a value that conforms to a JSON Schema                                            |
| counters.py  | Counters, Recorded: what can be read from the server afterwards                   |
| ledger.py    | what is remembered between requests, and the limits that follow from it           |
| server.py    | the endpoints under /v1                                                            |
| ports.py     | the public port, which can refuse connections, and the control endpoints          |
| process.py   | FakeOpenAI: the server as a child process, with its controls                      |
| __main__.py  | the command line                                                                  |
"""

from .behaviour import Behaviour
from .counters import Counters, Recorded
from .process import FakeOpenAI

__all__ = ["Behaviour", "Counters", "FakeOpenAI", "Recorded"]
