"""The source section -> a plan from footers alone; a plan and row groups -> columns of numbers."""

from pipeline.source.ids import read_ids
from pipeline.source.plan import Part, Plan, RowGroup, SourceFile
from pipeline.source.rows import Rows, read_rows
from pipeline.source.scan import scan

__all__ = ["Part", "Plan", "RowGroup", "Rows", "SourceFile", "read_ids", "read_rows", "scan"]
