"""`toolledger verify`: prove that nothing is missing and nothing counted twice."""

from deploy.verify.check import lag_records, verify
from deploy.verify.output import main
from deploy.verify.report import Finding, Report

__all__ = ["Finding", "Report", "lag_records", "main", "verify"]
