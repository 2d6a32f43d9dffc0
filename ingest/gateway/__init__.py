"""The recording gateway: tool calls go on to an upstream, their answers come back, and what happened is recorded."""
