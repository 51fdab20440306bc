"""What a run leaves for people and scripts: results.json, a summary on the terminal, report.html."""

from rlhf.report.page import render
from rlhf.report.results import Results, StageResult, summary_table, write_results

__all__ = ["Results", "StageResult", "render", "summary_table", "write_results"]
