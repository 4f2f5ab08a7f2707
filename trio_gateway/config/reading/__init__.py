"""Readers: from the tables that a configuration left to the structs of `config/schema.py`.

One file for each table, and one for each kind of value that several tables have. A reader raises
nothing: what is wrong is noted with the path of its field, so that one run shows all of it. It may
import `config`'s other modules, and knows nothing of how the file was run.
"""
