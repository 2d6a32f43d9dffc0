"""Export: all logs of a selection and a range, as of one moment, however many."""
