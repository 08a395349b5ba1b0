"""Ways to fill a column by model calls, each written as its users write it: what pipeline.py and peers.py compare.

| file                     | what it holds                                                                    |
|--------------------------|----------------------------------------------------------------------------------|
| job.py                   | Job: how many rows, how many requests at once, against which endpoint; the prompts |
| bare.py                  | aiohttp and msgspec alone, without and with retries: the references               |
| by_hand.py               | AsyncOpenAI, a semaphore, tenacity and pandas                                      |
| through_rowloop.py       | a recipe                                                                         |
| through_data_designer.py | NVIDIA NeMo DataDesigner                                                         |
| through_curator.py       | Bespoke Curator                                                                  |
| __main__.py              | runs one of them, once, in this process                                          |
| measuring.py             | runs one of them in a process of its own, against the fake endpoint              |

What a peer's environment runs (all but bare.py, by_hand.py and measuring.py) imports nothing but the peer and the
standard library.
"""
