"""Who may call, and as whom.

In comes the head of a request: `well_formed.py` refuses what could be read in two ways,
`guard.py` checks its host, page and key (`browser_rules.py`, `key_ring.py`). Out goes the same
request with its Permissions in the scope, or an error before anything of its body is read.
`caller.py` tells the scheduler who asks and how urgent it is.

It imports `server.http`, `server.api` and `config`; it knows no models and no engines.
"""
