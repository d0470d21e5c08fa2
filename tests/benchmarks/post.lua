wrk.method = "POST"
wrk.body = "x"
wrk.headers["Content-Type"] = "text/plain"
