"""The record of a command, as JSON, text or a page."""

from onnxprune.report.record import GroupLine, Report, Side

__all__ = ["GroupLine", "Report", "Side"]
