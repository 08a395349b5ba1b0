"""Telemetry: what is known of a run beside its state, each a fold over the run's events.

| file | what it contains |
|---|---|
| observer.py | the protocol of an observer: the methods that a run calls with its events |
| outside.py | observers that users pass as an option: timed, and named where they are slow or raise |
| failures.py | the failures table: every cell that failed for good, with its inputs |
| spending.py | requests, tokens and cost per column and model, of this run and of earlier ones |
| metrics.py | latencies, retries, the slowest requests, and samples of the load |
| stalls.py | warnings: slow requests, a run without progress, an endpoint that asks for long waits |
| outages.py | warnings: an endpoint is down, and answers again |
| traces.py | one record per attempt: when it was queued, started and finished |
| chrome_trace.py | traces as a file for ui.perfetto.dev |
| progress.py | the snapshot of a run that displays show |
| report.py | the report at the end of a run, and its text |
| report_parts.py | its parts: models, slow requests, lanes, outages and the load, and the text of each |
| log.py | the records of the log, whose control characters are escaped |

To add a fold, write a class with `on_event` here and list it among the observers in runs/bookkeeping.py or
runs/diagnostics.py.
"""
