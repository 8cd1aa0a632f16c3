"""Grafana's dashboards and Prometheus' alert rules, made from the catalogue.

`python -m telemetry.dashboards` writes them into `deploy/`. Needs the development dependencies; no part of a
run imports this package.
"""
