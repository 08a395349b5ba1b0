"""Datasets: what is on the disk, how it gets there whole, and how it is read back.

| file | what it contains |
|---|---|
| directory.py | the files of a dataset's directory, and how each is written whole |
| claim.py | a directory claimed for one run, and how a run gets one |
| claim_files.py | who works in a directory, in files with a heartbeat, without file locks |
| heartbeat.py | the thread that keeps a claim alive |
| processes.py | the process that a claim names, and whether it has ended |
| remote.py | what other processes read of a run, and the commands that they leave for it |
| past.py | what earlier runs have left in a directory |
| earlier.py | what a dataset was before an update, set aside |
| found_parts.py | the parts in a directory, checked to belong to its dataset |
| parts.py | one part: the file of a row group |
| tables.py | row groups as Arrow tables of one schema |
| table_columns.py | the values of one column as Arrow arrays: typed, inferred, or JSON text |
| sinks.py | the protocol of a sink, and the sink of a preview |
| parquet_sink.py | the sink of a build |
| heap.py | gives memory that was freed back to the system |
| journal.py | the SQLite file with everything that is in no part yet |
| journal_records.py | what the journal stores, and which values it can store |
| journal_writer.py | sends what ends in a run to the journal, from a thread |
| kept.py | what a later run needs of a journal that is gone |
| metadata.py | the contract of metadata.json, and its JSON Schema |
| result.py | the result of a run, its report, and PartialDatasetError |
| reading.py | reads a dataset back as a result |
"""
