"""Grafana's dashboards and Prometheus' alert rules, made from the catalogue.

`python -m telemetry.dashboards` writes them into `deploy/`. Needs the development dependencies; nothing that runs at run
time imports this package.
"""
