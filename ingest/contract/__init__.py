"""What all services agree on: events, topics, tables, access, settings, errors, metrics and logs."""
