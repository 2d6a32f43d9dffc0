"""`toolledger doctor`: look at everything a ledger needs, change nothing, and say what to do."""

from deploy.doctor.examine import Addresses, examine
from deploy.doctor.finding import Finding

__all__ = ["Addresses", "Finding", "examine"]
