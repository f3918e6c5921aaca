"""Reports: a run or an ablation as one page that needs nothing else, and its figures as CSV and Markdown."""

from polyvex.report.write import Written, write_report

__all__ = ["Written", "write_report"]
