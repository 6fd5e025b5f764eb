"""The trials that a scan has kept."""

import contextlib
import sqlite3


def kept(path="run/scan.db"):
    connection = sqlite3.connect(path)
    with contextlib.closing(connection):
        return [(method, severity) for method, severity in connection.execute("SELECT method, severity FROM trials")]
