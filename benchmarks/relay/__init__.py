"""What relaying costs: the gateway beside other proxies in front of the same engine, in one run.

    python -m benchmarks.run relay relay_forms relay_crowd

Each proxy is a process of its own (`targets`), in front of an engine that costs nearly nothing
(`fake_engine`). A client (`client`) asks all of them in interleaved rounds (`measure`), because a
machine's speed changes from minute to minute: what is to be read are the ratios to the row `raw` of
the same run (`figures`), which is about the least that a proxy on trio can cost (`trio_proxy`).
`baseline.json` keeps those of an earlier run, and what moved is printed (`baseline`).
"""
