"""Remote validators.

| file    | what it contains                                       |
|---------|--------------------------------------------------------|
| http.py | validators at http: and https: addresses               |

To add one for another scheme of URLs, write it in one file and add one line to the table below. Other packages list
theirs under the entry points `rowloop.validators`.
"""

from ...engine.columns.validators import validators

validators.register("http", f"{__name__}.http:validator")
validators.register("https", f"{__name__}.http:validator")
