"""The access log, the traces and the metrics of the web server."""
