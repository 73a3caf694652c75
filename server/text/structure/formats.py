"""Which formats of texts are enforced, and patterns for those of dates and times. Knows no schema.

Dates and times are RFC 3339's, without leap seconds and with capital letters, so that every date is one of the calendar
and every reader of ISO 8601 takes it. (llguidance's own pattern has a 29th of February in each year.)
"""

_YEAR = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_FOURTH = "(?:0[48]|[2468][048]|[13579][26])"
_LEAP_YEAR = f"(?:[0-9]{{2}}{_FOURTH}|{_FOURTH}00)"
_DAY_OF_YEAR = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"(?:{_YEAR}-{_DAY_OF_YEAR}|{_LEAP_YEAR}-02-29)"
_HOURS = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = f"{_HOURS}:[0-5][0-9](?:\\.[0-9]{{1,6}})?(?:Z|[+-]{_HOURS})"

PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
FORMATS = frozenset({*PATTERNS, "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
"""llguidance enforces those without a pattern here."""
