"""The commands of `trio-gateway`, one file each.

What enters: the command line, and the configuration that it names. What leaves: text for a person,
and an exit code (0; 1: the command failed; 2: the configuration or the command line is wrong).
`loading.py` is what they share, `explanations.py` does the work of `explain`.

Commands may import every other package, and nothing imports them but `main.py`. What takes long to
load (the web framework, tables, HTTP clients) is imported where it is used, so that `--version`,
`--help` and `check` stay quick.
"""
