"""Live tail: what was proved since, to everybody who follows, each log once."""
