"""The verbs as functions and objects: thin, with the verbs' own options, defaults and checks."""
