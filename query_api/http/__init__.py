"""The HTTP edge of the query service: routes, keys, bodies, headers. Thin: what is asked and answered is decided below it."""
