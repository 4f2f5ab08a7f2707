"""What `trio-gateway doctor` finds: in a configuration, on this machine, by trying engines.

`probes.py` looks at files, programs, ports and devices, and gives a `Seen`; `examination.py` makes
findings of it and of the configuration, without looking at anything itself. `trial.py` starts a
variant and asks it.
"""
