"""report.html: what one run did, or several beside each other, in one file that fetches nothing.

    load       run_data.py    everything that a run's folder says
    derive     series.py, by_lag.py, lanes.py, said.py, costs.py    plain data for the pictures
    render     page.py        sections of HTML, and the data as JSON; assets/ holds the style and the scripts

A new section is a function of the runs, put into `page.SECTIONS`.
"""

from telemetry.report.page import write_report
from telemetry.report.run_data import RunData, load_run

__all__ = ["RunData", "load_run", "write_report"]
