"""Usage questions: what was asked, which rows answer it exactly, and how the rows become an answer. Pure."""
