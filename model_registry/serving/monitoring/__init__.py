"""What watches servers, agents and gateways: what Prometheus scrapes, computes and warns of, and what Grafana shows.

dashboard           the dashboard;  dashboard_panels: its rows
alerts              the file of rules;  request_alerts: what clients notice;  fleet_alerts: what agents and gateways say
alert               one alert, and how it is written
recording_rules     what alerts, dashboard and autoscaling have in common
prometheus_config   whom Prometheus asks
monitoring_config   what a server is told, so that it answers
"""
