"""What runs on a Ray cluster: replicas that have an engine each. The extra `ray` installs it there.

Nothing of it runs in the gateway, which needs no Ray. See docs/cluster.md.
"""
