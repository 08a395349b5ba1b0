"""The pure part of a run: plain values and state that a shell feeds. No asyncio, clock, threads, IO or frames.

| file | what it has |
|---|---|
| events | what happened (in) and what to do next (out), as plain values |
| errors | all errors that rowloop raises, and the kinds of failure |
| spec | frozen, validated value objects that raise RecipeError |
| plain_data | the limits of a recipe's values: depth, repetitions, numbers, text |
| registry | names in a recipe that stand for things of rowloop and of other packages |
| graph | the compiled recipe: columns, needs, children, lanes |
| sequential | the same graph, with one column after the other |
| tracker | the state of a run: events in, commands out |
| tasks | how a task starts and ends, and what that starts or skips |
| row_groups | how rows are divided, and the task states of one row group |
| open_groups | which row groups are open, which comes next, whose turn it is at a stateful column |
| lane_queue | one lane: ready tasks that share a limit, and their permits |
| lanes | ready tasks that share a limit, and which of them may start |
| hedges | which slow cells get a second request |
| permits | where a lane's permits come from: the protocol, and the fixed limit |
| shared_limit | one limit, pace and circuit for all runs that ask an endpoint |
| run_circuit | what one run sees of the circuit of an endpoint |
| circuit | an endpoint that does not work: rows wait, and probes find the end of the outage |
| undecided | tasks whose last attempt has failed, perhaps by an outage |
| throttle | permits of one run: an adaptive limit and a pace |
| bounds | how many requests may be in flight and per minute, as a recipe states it |
| policy | retries, error budget, cost budget, time limit |
| totals | the counts of a run |
| store | the values of open row groups; a vector is an array of 32-bit floats |
| histogram | durations in bounded memory, and their quantiles |

The folder `limits/` has what follows an endpoint: the adaptive limit and the pace.
"""
