"""Which of several URLs gets a request.

What is known of each (whether it works, how fast it answers, what others want of it), and the
decision. Pure.
"""
