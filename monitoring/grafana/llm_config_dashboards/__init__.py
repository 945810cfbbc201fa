"""The Grafana dashboards: their source, their checks and their pictures.

`python -m llm_config_dashboards` is the command line; `.ci/dashboards` runs it with its tools in place.
"""
