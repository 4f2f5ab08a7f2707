"""What was measured of variants outlives the gateway: a file in the user's state folder.

`entry.py` is what is kept of one variant, `identity.py` what it holds for, `file.py` where it lies,
and `ledger.py` who reads and writes it.
"""
