"""What happened: the requests that came, as pages and as sums.

The last ones are in memory (`RequestBook`), and as many as are wanted in a file. What is asked of
them is worked out when somebody asks.
"""
