"""Why the helper process cannot say how many tokens a prompt has."""


class CannotCount(Exception):
    """The message says why. It never has a part of the prompt in it: it is logged."""
