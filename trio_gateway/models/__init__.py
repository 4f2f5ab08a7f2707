"""What a request needs, and which variant of a model should serve it.

A name as a client writes it enters `names` and leaves as a model; what a request is counted as
enters `model_selector` and leaves as a Selection: its need in tokens, and the smallest context that
holds it. `need` has the arithmetic, `counting` counts where that does not settle it, `explanation`
tells all of it without doing anything. It imports `engine`, mostly its Overview, and `config`;
nothing of `server`.
"""
