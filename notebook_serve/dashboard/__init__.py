"""Dashboard: snapshots of the engines, the widget, and the files of the page.

It may import `engine` and `queueing`.
"""
