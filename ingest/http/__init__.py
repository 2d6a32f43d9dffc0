"""The public HTTP address: ingest routes of our own, everything else forwarded to the query service."""
