"""Adapters: a folder for each kind of thing outside rowloop.

| folder     | what it connects to                                    |
|------------|--------------------------------------------------------|
| cli        | the command line                                       |
| displays   | terminals and notebooks, which show the progress       |
| http       | endpoints, through one client for all other adapters   |
| providers  | models: at endpoints, in this process, as functions    |
| validators | validators of rows, over HTTP                          |
"""
