"""OpenTelemetry traces: from an export request's bytes to the tool executions in it. Pure."""
