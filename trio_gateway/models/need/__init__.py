"""The arithmetic of a request's need: bounds of its tokens from its size, and what is learned.

What a request is counted as (`counted_form`) enters `bounds` and leaves as numbers of tokens:
at least, at most, for the answer, in all. `calibration` keeps what a model's own counts and answers
have taught about those. Pure; imports nothing of ours.
"""
