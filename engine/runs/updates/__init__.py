"""Updates: a dataset whose recipe or seed data has changed, made again only where that changes a cell.

| file | what it contains |
|---|---|
| updating.py | what an update keeps of earlier tables, and what it may not begin with |
| comparing.py | which cells earlier tables have already |
| matching.py | which earlier row each row is, in arrays |
| plan.py | what an update would keep and make |
"""
