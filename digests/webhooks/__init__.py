"""Providers' reports by HTTP: authenticated, stored as they came, answered at once.

`esps` knows the providers, `signatures` and `sns` their proofs, `severity` what their words mean for a reader. What is
done about a report stands in `digests.events`.
"""
