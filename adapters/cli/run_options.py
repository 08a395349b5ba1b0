"""The options of a run: where the dataset goes, how large it is, and what a run may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

ROWS: Final = 24
"""The rows of a run whose recipe has no seed table."""

Output = Annotated[Path, Parameter(name=["--output", "-o"], help="Directory to write the dataset to.")]
Rows = Annotated[
    int | None,
    Parameter(
        name=["--rows", "-n"],
        show_default=f"those of the seed table, else {ROWS}",
        help="Number of rows. A resumed dataset keeps its number unless a larger one is given.",
    ),
]
RowGroupSize = Annotated[
    int | None, Parameter(show_default="1000", help="Rows that are worked, written and kept in memory together.")
]
Resume = Annotated[
    bool, Parameter(show_default=False, help="Resume the dataset in the directory. It must have the same recipe.")
]
Update = Annotated[
    bool,
    Parameter(
        show_default=False,
        help="Resume with a changed recipe or changed seed data: only the cells that this changes are made again.",
    ),
]
RetryFailed = Annotated[bool, Parameter(show_default=False, help="Resume, and also retry the cells that failed.")]
Overwrite = Annotated[
    bool,
    Parameter(
        show_default=False, help="Replace the dataset in the directory. A directory with other files is refused."
    ),
]
MinCompletion = Annotated[
    float | None, Parameter(help="Fail if less than this share of the rows is completed, such as 0.95.")
]
MaxCost = Annotated[
    float | None,
    Parameter(
        help="Send no more requests once the dataset has cost this many US dollars."
        " To finish it, resume with a larger value."
    ),
]
MaxTokensTotal = Annotated[
    int | None,
    Parameter(help="Send no more requests once the dataset has used this many tokens; like --max-cost."),
]
Deadline = Annotated[
    float | None,
    Parameter(
        help="End the run after this many seconds. Requests in flight are cancelled, finished rows are written."
        " To finish it, resume."
    ),
]
Memory = Annotated[
    int | None,
    Parameter(
        show_default="268435456",
        help="Bytes that the values of unfinished row groups may take, with what is needed to write them.",
    ),
]
OutageAfter = Annotated[
    float | None,
    Parameter(
        show_default="600",
        help="Seconds that an endpoint may be down before the run ends early. Until then its rows wait.",
    ),
]
Cache = Annotated[
    Path | None,
    Parameter(help="File that stores answers. A request that was answered before is answered from the file."),
]
Quiet = Annotated[
    bool, Parameter(show_default=False, help="Print warnings and errors only: no progress and no report.")
]
