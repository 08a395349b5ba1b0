"""Progress displays: a live region in a terminal, an output area in a notebook, plain lines elsewhere.

A display is a function: it takes a function that returns a ProgressSnapshot, and returns a context manager that shows
the progress until its block ends. To add a display, write a module here and add one line to the table below: the option
`progress` then takes its name. Other packages list theirs under the entry points `rowloop.displays`.

| file        | what it contains                                                                       |
|-------------|----------------------------------------------------------------------------------------|
| auto.py     | the choice between the displays; plain lines on stderr                                 |
| terminal.py | the live display of a terminal: its lines, bars and colours                            |
| screen.py   | a region at the bottom of the terminal that stays there while others print above it    |
| notebook.py | the display of a notebook, as HTML                                                     |
| ticker.py   | a thread that redraws a display, and a limit on the CPU time that drawing takes        |
| wording.py  | counts, rates and times in short words, and the speed of a run                         |
"""

from ...engine.telemetry.progress import displays

displays.register("auto", f"{__name__}.auto:auto")
displays.register("terminal", f"{__name__}.terminal:terminal")
displays.register("notebook", f"{__name__}.notebook:notebook")
displays.register("plain", f"{__name__}.auto:plain")
