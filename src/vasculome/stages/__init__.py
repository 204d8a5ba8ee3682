"""One module a workflow rule: read from storage, map an algorithm over tiles, write."""
