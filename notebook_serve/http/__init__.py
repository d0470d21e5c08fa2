"""The web server: routes, APIs, authentication and responses.

It may import `dashboard`, `engine`, `models` and `queueing`. The packages `transport` and
`telemetry` import nothing of the routes.
"""
