"""The random kill harness: a real pipeline under load whose processes are killed and frozen at random, and what comes of it.

`truth` knows what each producer sent and what was acknowledged, `producers` send it over HTTP and straight to Kafka, `parts`
and `faults` are the processes and what happens to them, `watch` measures how far behind the pipeline is, `judge` compares what
ClickHouse holds with the truth, `run` puts them together. `bash deploy/check soak` runs it for long,
tests/e2e/test_random_kills.py for a minute.
"""
