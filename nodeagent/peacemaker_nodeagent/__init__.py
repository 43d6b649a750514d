"""The node agent: discover, sense, decide, act, report."""
