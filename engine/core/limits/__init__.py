"""Limits: how many requests may be in flight, and when the next may be sent. Knows nothing of runs and their events.

| file | what it has |
|---|---|
| adaptive_limit | how many requests may be in flight, learnt from 429s |
| evidence | shares of 429s, and what a cut of the limit has shown |
| shut | an endpoint that refuses everything for an unknown time, and the probes that find it open |
| waits | what a lane begins with after a wait that the endpoint asked for |
| pace | requests and tokens per minute |
"""
