"""The command line: `rowloop run`, `rowloop preview`, `rowloop schema`.

| file              | what it contains                                                             |
|-------------------|------------------------------------------------------------------------------|
| commands.py       | the commands with their options, errors in one line, exit statuses           |
| endings.py        | what a run that ended early has left, and how to resume it; SIGTERM          |
| recipe_options.py | the recipe of a command, and the options that replace parts of it            |
| run_options.py    | the options of a run: where the dataset goes, its size, what it may cost     |
| summary.py        | the report that is printed after a run: rows, counts, tokens, failures, time |
| __main__.py       | `python -m rowloop.adapters.cli`                                             |
"""
