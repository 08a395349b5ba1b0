"""Runs: one run, from the options of the user to its end.

| file | what it contains |
|---|---|
| settings.py | the options of a run, and their checks |
| job.py | one run, checked before it starts; gives each part what it needs of the recipe |
| resuming.py | whether the dataset in a directory fits, and what is left to do in it |
| recovering.py | what the parts say of a dataset whose journal is lost |
| workload.py | columns on a graph, the models they call, the processors around them, and their work |
| execution.py | one run from start to result: connect, bind, schedule, describe the end |
| scheduler.py | carries out the tracker's commands in one TaskGroup |
| executor.py | the protocol of whoever works tasks |
| local_executor.py | works tasks in this process and classifies their exceptions |
| foreign.py | what exceptions of other people's code mean, as adapters judge them |
| racing.py | two requests for a cell that takes long |
| transfers.py | row groups between the store and the sink |
| timers.py | retries, waking lanes, periodic checks |
| slices.py | how long workers may occupy the loop |
| showing.py | a run's display, which hides no error of the run |
| serving.py | what a run does for other processes at each heartbeat |
| bookkeeping.py | the counts of a run, as snapshot, metadata, report and result |
| facts.py | what bookkeeping and budget need of the recipe |
| budget.py | what a run may still spend |
| steering.py | what may be asked of a run while it lasts: pause, limits, caps |
| diagnostics.py | warnings, traces and load |
| ending.py | status, error and last log record of a run |
| handle.py | the handle of a run in the background |

The folder `updates/` has what compares a dataset with an earlier one.
"""
