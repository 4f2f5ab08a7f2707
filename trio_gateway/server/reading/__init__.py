"""Large requests are read in a process of their own.

Whatever reads a body (a decoder, a search, a copy) holds the interpreter while it does, in a
thread as well, and meanwhile no other request gets anywhere. `readers.py` owns the processes,
`program.py` is what they run, and `messages.py` is what the two say to each other.
"""
