"""Other gateways whose models are offered here.

`listing.py` reads what one says that it has, `composition.py` makes models of it, `peers.py` asks.
"""
