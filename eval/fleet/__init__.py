"""An evaluation on more than one machine; `cluster.py` alone speaks to Ray."""
