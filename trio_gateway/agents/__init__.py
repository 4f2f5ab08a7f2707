"""Programs that `trio-gateway launch` starts: what each needs to know to use the gateway.

`known.py` has one entry for each, `choosing.py` finds the model for it, and `settings.py` is what
both are made of. Nothing here reads or writes anything.
"""
