"""The stage of the drift scenarios: agents whose ground is changed under them.

`places.py` is where a scene plays and what can be changed there, `lab.py` a private copy of this machine with a package tool,
`stage.py` plays a scene with agentscope watching, `scenes/` holds the scenes: being there is being tested. `programs/` are the
sources of what is built. Nothing of the host changes.
"""
