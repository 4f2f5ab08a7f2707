"""Child processes of the gateway: started in groups of their own, watched, and stopped for certain.

In go a command and its environment; out come a `Process` that a block holds, its last lines, how it
ended, and how much memory it has. Whatever a gateway killed hard leaves behind, the reaper ends.
Here is also all that differs between operating systems.

May import `tasks`, and nothing else of the project.
"""
