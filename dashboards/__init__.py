"""The dashboard: `panel serve dashboards`. Reads run folders; computes nothing that a run could store."""
