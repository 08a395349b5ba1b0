"""Templates: Jinja over the columns of a row, within bounds.

| file | what it contains |
|---|---|
| template.py | a template, compiled once per recipe, and the function that renders it |
| names.py | the columns and fields that a template uses, and their check against schemas |
| sandbox.py | what a template can reach: data, and nothing else |
| canonical.py | a template's text, whatever the columns are called |
| drawn.py | random values that follow the seed, the column and the row |
| cheapness.py | whether a template is cheap enough for the loop, or costly |
| work_bounds.py | the work that a template may do, and the time |
| weighing.py | the counting of what goes into a costly template's filters |
"""
