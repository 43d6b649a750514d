"""The core that every part of peacemaker shares: policy model, expressions, engine, nice table.

Nothing here does I/O, reads /proc or knows Kubernetes: values come in, values go out.
"""

__version__ = "0.1.0"
