"""The dataset engine: a pure core that decides, a shell that acts, and the classes that users construct.

| file           | what it contains                                                                      |
|----------------|---------------------------------------------------------------------------------------|
| recipe.py      | Recipe: models and columns, checked as a whole, and the ways to run them              |
| recipe_file.py | recipes as YAML and plain data, and their JSON Schema                                 |
| workflow.py    | Workflow: recipes in a chain                                                          |
| moved.py       | the names that modules had before there were folders, with a warning, for one release |

Each folder imports only the folders below it: runs, compiler, processors, datasets, telemetry, columns, models, core.
"""

from .moved import register_moved

register_moved(__name__)
