"""Judges large logs: many processes, a folder that is gone on with, a report for people.

    reading    lines of files, folders and standard input
    work       judges lines; what a worker process or an actor runs
    local      worker processes on this machine
    folder     the results on disk, and where to go on
    tally      what all results show together
    report     the same as one HTML page
    scan       the walk: read, judge, keep

This package does not know a terminal, and no framework that spreads work over machines.
"""
