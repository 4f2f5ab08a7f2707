"""Which request gets which engine, what is started and what makes way: decisions, no effects.

In go events (`events.py`: a ticket came, an engine is ready, time passed) and the time; out come
actions (start, stop, grant, reject), which the engine manager carries out. Everything is plain
values and a clock that is an argument, so a day of traffic is tested in a moment.

May import `config`, and nothing of trio, HTTP or the other rooms of `engine`.
"""
