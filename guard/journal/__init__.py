"""The journal: the durable record of flagged, rewritten and blocked responses.

`guard.journal.record` says what a row is and writes the log event; `guard.journal.store`
keeps rows in a database. Importing this package loads neither.
"""
