"""The HR numbers of this package. Stable and never reused; `docs/errors.md` has a line for each."""

from typing import Final

# Loading an app.
APP_NOT_FOUND: Final = "HR2001"
IMPORT_FAILED: Final = "HR2002"
APP_EMPTY: Final = "HR2003"
WORKFLOW_TWICE: Final = "HR2004"
HANDLER_TWICE: Final = "HR2005"
MODULE_NAME_TAKEN: Final = "HR2006"
FEED_INVALID: Final = "HR2007"

# One definition.
NAME_INVALID: Final = "HR2010"
SIGNATURE_INVALID: Final = "HR2011"
ANNOTATION_INVALID: Final = "HR2012"
TRIGGER_INVALID: Final = "HR2013"
KEY_INVALID: Final = "HR2014"
OPTION_INVALID: Final = "HR2015"
SCHEDULE_INVALID: Final = "HR2016"

# What a workflow's code may not do.
NOT_DETERMINISTIC: Final = "HR2020"
HANDLER_CALLED: Final = "HR2021"

# An event and the user's code that looks at it: the code of its dead letter.
FILTER_FAILED: Final = "HR3030"
KEY_FAILED: Final = "HR3031"
KEY_REFUSED: Final = "HR3032"
INPUT_REFUSED: Final = "HR3033"
