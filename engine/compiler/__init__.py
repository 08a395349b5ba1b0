"""From a recipe to its graph and its identity.

| file               | what it contains                                                                     |
|--------------------|--------------------------------------------------------------------------------------|
| compiling.py       | a recipe checked as a whole: names resolved, lanes shared, mistakes refused          |
| definitions.py     | what makes each column's values, to compare two recipes column by column             |
| identity.py        | the part of a recipe that decides its table, and the differences between two of them |
| template_checks.py | fields that no answer has, and single braces, found in templates                     |
"""
