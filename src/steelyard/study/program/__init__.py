"""Any program as what a study trains: what it declares, what it is told, what it reports, and how it is run."""
