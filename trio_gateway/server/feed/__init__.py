"""The feed: what the gateway is doing, for those who look on, as a snapshot and then as changes.

`Feed` is the one task in it. It sleeps while nobody reads; otherwise it looks four times a second
at most, finds what has changed (`differ.py`), and puts it into a ring, encoded once for all readers
(`ring.py`). A reader takes from the ring what it is able to, and starts anew if that is too little.
"""
