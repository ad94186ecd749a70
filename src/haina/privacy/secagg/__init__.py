"""Secure aggregation: the coordinator learns the sum of a group's vectors and no single one.

A member hides its vector behind masks that cancel in the sum (`members`), the coordinator passes messages on and takes out what drop-outs leave
(`aggregator`). Bytes in, bytes out: nothing here knows a wire, a file or a clock, and randomness comes in as an argument. What it protects against,
and what not, is in docs/threat-model.md.
"""

from haina.privacy.secagg.aggregator import Aggregator
from haina.privacy.secagg.keys import check_advert
from haina.privacy.secagg.masks import Words
from haina.privacy.secagg.members import Member
from haina.privacy.secagg.messages import Advert, Answer, Consent, Inbox, pack, unpack
from haina.privacy.secagg.plan import FEWEST, Plan, plan
from haina.privacy.secagg.refusal import SecAggError
from haina.privacy.secagg.rehearsal import Rehearsed, secure_sum
from haina.privacy.secagg.setting import Setting, Terms

__all__ = [
    "FEWEST",
    "Advert",
    "Aggregator",
    "Answer",
    "Consent",
    "Inbox",
    "Member",
    "Plan",
    "Rehearsed",
    "SecAggError",
    "Setting",
    "Terms",
    "Words",
    "check_advert",
    "pack",
    "plan",
    "secure_sum",
    "unpack",
]
