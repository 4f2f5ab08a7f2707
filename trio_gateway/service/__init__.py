"""The gateway as a service of the user's own: what starts it, and what it says to that.

`notifier.py` is the gateway's word to systemd while it runs. The rest is for `trio-gateway
service`: what is installed where (`installation.py`), the text of a systemd unit
(`systemd_unit.py`) or a launchd agent (`launch_agent.py`), and the programs that take it over
(`supervisor.py`).
"""
