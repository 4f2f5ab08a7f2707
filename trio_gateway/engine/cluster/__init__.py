"""Engines that run on a Ray cluster: as applications of Ray Serve, by its REST interface.

The gateway needs no Ray for it. What runs there is `trio_gateway/cluster/`.
"""
