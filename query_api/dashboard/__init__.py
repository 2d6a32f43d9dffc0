"""The page operators open: files for the browser, which asks nothing but the public API."""
