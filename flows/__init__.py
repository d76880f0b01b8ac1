"""The nightly DAG and how people reach it: the only room that knows Prefect."""
