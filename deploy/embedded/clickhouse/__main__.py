"""`python -m deploy.embedded.clickhouse`: one embedded ClickHouse server in the foreground."""

from deploy.embedded.clickhouse.main import main

if __name__ == "__main__":
    raise SystemExit(main())
