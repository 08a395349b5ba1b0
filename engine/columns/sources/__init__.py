"""The tables that a Seed reads: files, globs, addresses and Python objects, each as one table in blocks of rows.

| file             | what it contains                                                                |
|------------------|---------------------------------------------------------------------------------|
| opening.py       | which reader a seed's data needs; an unchanged file is opened once in a process |
| reading.py       | how the data is to be read: columns, types, separator, encoding                 |
| addresses.py     | paths made absolute, and addresses shown without keys                           |
| locations.py     | a path, a glob or an address as files that can be opened                        |
| blocks.py        | a table that is read in blocks of rows; small ones are in memory                |
| spool.py         | batches in a temporary file                                                     |
| schemas.py       | one schema for several files, and tables that conform to it                     |
| parquet.py       | parquet files                                                                   |
| arrow_files.py   | Arrow IPC files                                                                 |
| delimited.py     | csv and tsv                                                                     |
| text_types.py    | the type that the text of a column has without a value changing                 |
| json_files.py    | jsonl, ndjson and json                                                          |
| json_records.py  | the text of each record of a JSON file                                          |
| json_shapes.py   | whether an Arrow type holds JSON values exactly                                 |
| json_text.py     | columns of JSON text, for values that no Arrow type holds                       |
| objects.py       | DataFrames, lists, dicts, and what gives an Arrow stream                        |
| python_values.py | Python's own values in the place of numpy's and pandas'                         |
| streams.py       | batches that come once                                                          |
| digest.py        | a hash of a table's values                                                      |
| order.py         | the rows that a run takes, as they are or shuffled                              |
| arranging.py     | a table in that order                                                           |

A new format is one function from files and a `Reading` to `Blocks`, and a line in `opening`.
"""
